"""The load client, bench/load."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.process import PATIENCE, Program, program
from bench.wire import read_packed, write_packed

_MOMENT = struct.Struct(">q")


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


@dataclass(frozen=True)
class Answer:
    """What came for a message.

    Attributes:
        sent, came: moments, of the message and of the answer, in nanoseconds since 1970.
        content: of the answer.
    """

    sent: int
    came: int
    content: bytes


class LoadClient:
    """A running load client with its connections.

    Args:
        folder: for files that the two exchange.
    """

    def __init__(self, running: Program, folder: Path) -> None:
        self._running = running
        self._asked, self._answered = folder / "asked", folder / "answered"

    async def round(self, amount: float) -> Round:
        """Do a round of so many seconds; if idle, open so many connections on top.

        Raises:
            BenchError: the client gave up.
        """
        answer = await self._running.ask(amount, patience=PATIENCE + amount)
        return Round(**json.loads(answer))

    async def more(self, streams: int) -> None:
        """Have a following client open so many streams on top. Raises as `round`."""
        await self._running.ask(f"+{streams}", patience=PATIENCE + streams)

    def rounds(self, seconds: float) -> Callable[[float], Awaitable[Round]]:
        """What does a part of a round of so many seconds; raises as `round`."""
        return lambda part: self.round(seconds * part)

    async def replay(self, requests: Iterable[bytes]) -> tuple[Round, list[bytes]]:
        """Make these unary calls; gives their answers too, in the same order. Raises as `round`."""
        write_packed(self._asked, requests)
        done = Round(**json.loads(await self._running.ask(self._asked, self._answered)))
        return done, read_packed(self._answered)

    async def pace(self, messages: Iterable[bytes], per_second: float) -> list[Answer]:
        """Send messages at a pace; gives their answers, in the same order. Raises as `round`."""
        write_packed(self._asked, messages)
        await self._running.ask(self._asked, per_second, self._answered)
        return [_answer(each) for each in read_packed(self._answered)]

    async def watched(self) -> list[tuple[int, bytes]]:
        """What came since it was asked before, each with its moment. Raises as `round`."""
        await self._running.ask(self._answered)
        return [(_moment(each), each[_MOMENT.size :]) for each in read_packed(self._answered)]


def _answer(stamped: bytes) -> Answer:
    sent, came = _moment(stamped), _moment(stamped, _MOMENT.size)
    return Answer(sent, came, stamped[2 * _MOMENT.size :])


def _moment(stamped: bytes, place: int = 0) -> int:
    (moment,) = _MOMENT.unpack_from(stamped, place)
    assert isinstance(moment, int)
    return moment


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
    request: bytes = b"",
    count: int = 1,
) -> AsyncIterator[LoadClient]:
    """A load client that has opened its connections; bench/load/main.go says what its modes are.

    Args:
        mode: one of those.
        address: the server's.
        built: its program.
        tls: the folder of its certificate; None for plaintext.
        connections: how many to open.
        streams: on each of them, or calls in flight.
        size: bytes of each message.
        pause: seconds that each caller or stream rests after an answer.
        method: what modes call that any server will do for.
        answer: bytes of each answer to exchange.
        window: messages of exchange that wait for their answer at a time.
        request: what read and watch send.
        count: messages that read waits for, each time.

    Raises:
        BenchError: it does not get that far.
    """
    with TemporaryDirectory(prefix="selvedge-bench-") as name:
        folder = Path(name)
        requests = folder / "requests"
        write_packed(requests, [request])
        words = (
            *("-mode", mode, "-address", address, "-connections", str(connections)),
            *("-streams", str(streams), "-size", str(size), "-pause", f"{pause}s"),
            *("-method", method, "-answer", str(answer), "-window", str(window)),
            *("-requests", requests, "-count", str(count)),
            *(("-tls", tls) if tls else ()),
        )
        async with program(built, *words) as running:
            await running.line()
            yield LoadClient(running, folder)
