"""An application on npm `fabric-network` 2.2, in a process of its own."""

import itertools
import json
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.e2e.clients import CHANNEL
from tests.e2e.stack import LISTENERS, Stack
from tests.e2e.tools import require
from tests.shims.build import FABRIC_NETWORK

_PROGRAM = Path(__file__).parent / "fabric-network" / "application.js"
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


def connection_profile(stack: Stack) -> dict[str, Any]:
    """The connection profile of a stack."""
    roots = {"path": str(stack.user_tls("user1") / "ca.crt")}
    peer, orderer = (f"grpcs://{LISTENERS[name][0]}" for name in ("peer", "ordering"))
    return {
        "channels": {CHANNEL: {"orderers": ["orderer"], "peers": {"peer": {}}}},
        "organizations": {"Org1": {"mspid": "Org1MSP", "peers": ["peer"]}},
        "orderers": {"orderer": {"url": orderer, "tlsCACerts": roots}},
        "peers": {"peer": {"url": peer, "tlsCACerts": roots}},
    }


def environment() -> dict[str, str]:
    """With it Node finds `fabric-network`, which is installed first, if it is not yet."""
    if not FABRIC_NETWORK.built:
        require("npm")
    return {**os.environ, "NODE_PATH": str(FABRIC_NETWORK.build() / "node_modules")}


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
        who: it acts as; user1, if nobody is named.
    """

    def __init__(self, stack: Stack, who: Credentials | None = None) -> None:
        who = who or credentials(stack)
        profile = stack.folder / "fabric-network.json"
        profile.write_text(json.dumps(connection_profile(stack)))
        identity = (who.certificate, who.key, who.tls_certificate, who.tls_key)
        self._log = stack.folder / "fabric-network.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [require("node"), _PROGRAM, profile, *identity],
                # Else some of its log would be on the standard output.
                env={**environment(), "HFC_LOGGING": json.dumps({"warn": str(self._log)})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
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

    def submit(self, chaincode: str, name: str, *args: str, **options: Any) -> Any:
        """Submit a transaction; gives its `txid` and `payload` once the SDK has seen its commit.

        Args:
            options: `transient`, or `strategy`: the SDK's event handler for this transaction.
        """
        return self.ask("submit", chaincode=chaincode, name=name, args=args, **options)

    def evaluate(self, chaincode: str, name: str, *args: str, **options: Any) -> Any:
        """What a function of a chaincode answers."""
        return self.ask("evaluate", chaincode=chaincode, name=name, args=args, **options)

    def listen(self, what: str, **options: Any) -> Listener:
        """A new listener, once the SDK says that it listens.

        Args:
            what: the request, of `application.js`.
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
