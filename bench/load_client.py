"""The load client, bench/load."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.process import PATIENCE, Program, program

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class Round:
    """What came of one round.

    Attributes:
        seconds: how long it took.
        messages: calls answered, messages exchanged or events received, all as they should be.
        failed: what was not.
        error: the first of these.
    """

    seconds: float
    messages: int
    failed: int = 0
    error: str = ""


class LoadClient:
    """A running load client with its connections."""

    def __init__(self, running: Program) -> None:
        self._running = running

    async def round(self, amount: float) -> Round:
        """Do a round of so many seconds; if idle, open so many connections on top.

        Raises:
            BenchError: the client gave up.
        """
        answer = await self._running.ask(amount, patience=PATIENCE + amount)
        return Round(**json.loads(answer))

    def rounds(self, seconds: float) -> Callable[[float], Awaitable[Round]]:
        """What does a part of a round of so many seconds; raises as `round`."""
        return lambda part: self.round(seconds * part)

    async def replay(self, requests: Iterable[bytes]) -> tuple[Round, list[bytes]]:
        """Make these unary calls; gives their answers too, in the same order.

        Raises:
            BenchError: the client gave up.
        """
        with TemporaryDirectory(prefix="selvedge-bench-") as folder:
            asked, answered = Path(folder, "requests"), Path(folder, "answers")
            _write(asked, requests)
            done = Round(**json.loads(await self._running.ask(asked, answered)))
            return done, list(_read(answered))


def _write(file: Path, messages: Iterable[bytes]) -> None:
    file.write_bytes(b"".join(_LENGTH.pack(len(each)) + each for each in messages))


def _read(file: Path) -> Iterator[bytes]:
    content, place = file.read_bytes(), 0
    while place < len(content):
        (length,) = _LENGTH.unpack_from(content, place)
        place += _LENGTH.size + length
        yield content[place - length : place]


Running = AbstractAsyncContextManager[LoadClient]


@asynccontextmanager
async def load_client(
    mode: str,
    address: str,
    *,
    built: Path,
    tls: Path | None = None,
    connections: int = 1,
    streams: int = 1,
    size: int = 100,
    pause: float = 0.0,
    method: str = "",
    answer: int = 0,
    window: int = 1,
) -> AsyncIterator[LoadClient]:
    """A load client that has opened its connections; bench/load/main.go says what its modes are.

    Args:
        mode: unary, pingpong, fanout, idle, exchange or replay.
        address: the server's.
        built: its program.
        tls: the folder of its certificate; None for plaintext.
        connections: how many to open.
        streams: on each of them, or calls in flight.
        size: bytes of each message.
        pause: seconds that each caller or stream rests after an answer.
        method: what exchange and replay call.
        answer: bytes of each answer to exchange.
        window: messages of exchange that wait for their answer at a time.

    Raises:
        BenchError: it does not get that far.
    """
    words = (
        *("-mode", mode, "-address", address, "-connections", str(connections)),
        *("-streams", str(streams), "-size", str(size), "-pause", f"{pause}s"),
        *("-method", method, "-answer", str(answer), "-window", str(window)),
        *(("-tls", tls) if tls else ()),
    )
    async with program(built, *words) as running:
        await running.line()
        yield LoadClient(running)
