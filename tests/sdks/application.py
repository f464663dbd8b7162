"""An application on one of Fabric's SDKs for Node.js, in a process of its own.

Each line of its input is a JSON object, the request: what to do, and an `id`. Each line of its
output has that `id` with the `answer` or the `error`, as the SDK gave it; or `heard`, which comes
as often as the listener of that `id` hears something.
"""

import itertools
import json
import os
import queue
import re
import subprocess
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.e2e.stack import ROOT, Stack, eventually
from tests.e2e.tools import require
from tests.shims.build import Product

_PATIENCE = 30.0  # seconds


class SDKError(Exception):
    """What the SDK raised.

    Attributes:
        kind: the name of its class.
        code: of the transaction, if it was committed as invalid.
    """

    def __init__(self, raised: Mapping[str, str]) -> None:
        super().__init__(raised["message"])
        self.kind = raised["name"]
        self.code = raised.get("code")


@dataclass(frozen=True)
class Credentials:
    """Files: the identity that signs, and the pair that servers are shown."""

    certificate: Path
    key: Path
    tls_certificate: Path
    tls_key: Path


def credentials(stack: Stack, user: str = "user1") -> Credentials:
    """A user's, as the home has them."""
    msp, tls = stack.home / "crypto" / "users" / user / "msp", stack.user_tls(user)
    return Credentials(
        msp / "signcerts" / "cert.pem",
        msp / "keystore" / "key.pem",
        tls / "client.crt",
        tls / "client.key",
    )


def environment(sdk: Product) -> dict[str, str]:
    """With it Node finds an SDK, which is installed first, if it is not yet."""
    if not sdk.built:
        require("npm")
    return {**os.environ, "NODE_PATH": str(sdk.build() / "node_modules")}


def await_checkpoint(file: Path, number: int) -> None:
    """Wait until a checkpointer has kept the number of the block that comes next."""

    def kept() -> bool:
        text = file.read_text()  # it is empty while it is written
        return bool(text) and json.loads(text).get("blockNumber") == str(number)

    eventually(kept, f"block {number} is the next one of {file}")


def documented(language: str) -> list[str]:
    """The blocks of a language in the how-to on SDKs."""
    page = (ROOT / "docs" / "how-to" / "use-an-sdk.md").read_text()
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


@contextmanager
def script(program: Path, sdk: Product) -> Iterator[Path]:
    """A program that runs in the folder that it is in; gives what it prints to."""
    output = program.with_suffix(".log")
    with output.open("w") as log:
        running = subprocess.Popen(
            [require("node"), program.name],
            cwd=program.parent,
            env=environment(sdk),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield output
    finally:
        running.terminate()
        running.wait()


class Listener:
    """What a listener of an application heard."""

    def __init__(self) -> None:
        self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def until(self, last: Callable[[Any], bool]) -> list[Any]:
        """All that it hears next, to the first event that is the last, with that one."""
        events = [self.heard.get(timeout=_PATIENCE)]
        while not last(events[-1]):
            events.append(self.heard.get(timeout=_PATIENCE))
        return events


class Application:
    """An application, connected until its `with` ends; then its process must end well.

    Args:
        words: its program and what that is started with.
        env: the variables of its process.
        log: where it logs.
    """

    def __init__(self, words: Sequence[str | Path], env: Mapping[str, str], log: Path) -> None:
        self._log = log
        with self._log.open("ab") as errors:
            self._process = subprocess.Popen(
                [require("node"), *words],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._lines = self._process.stdin, self._process.stdout
        self._ids = itertools.count()
        self._answers: dict[int, queue.SimpleQueue[Any]] = {}
        self._listeners: dict[int, Listener] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._requests.close()
            try:
                ended = self._process.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            assert ended == 0, self._log.read_text()
        self._reader.join()
        self._lines.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._requests.close()

    def listen(self, what: str, **options: Any) -> Listener:
        """A new listener, once the SDK says that it listens.

        Args:
            what: the request.
            options: the SDK's, or `checkpoint`: the file of its checkpointer.
        """
        listener = Listener()
        self.ask(what, listener, **options)
        return listener

    def ask(self, what: str, listener: Listener | None = None, **parameters: Any) -> Any:
        """The answer to a request.

        Raises:
            SDKError: the SDK raised an error.
        """
        number = next(self._ids)
        answers = self._answers[number] = queue.SimpleQueue()
        if listener:
            self._listeners[number] = listener
        self._requests.write(json.dumps({"id": number, "ask": what, **parameters}) + "\n")
        self._requests.flush()
        line = answers.get(timeout=_PATIENCE)
        if "error" in line:
            raise SDKError(line["error"])
        return line["answer"]

    def _read(self) -> None:
        for text in self._lines:
            line = json.loads(text)
            if "heard" in line:
                self._listeners[line["id"]].heard.put(line["heard"])
            else:
                self._answers.pop(line["id"]).put(line)
