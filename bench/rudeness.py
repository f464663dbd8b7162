"""Ways of leaving a server in the middle of something, one connection each."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import frames

SERVICE = "/bench.Transport/"
LONGEST = 25.0
"""Seconds that a connection stays at most, some longer than a server waits for a handshake."""
STREAMS = range(1, 40, 2)
"""The streams of those that open several at once."""
_choice = random.Random()  # noqa: S311 - nobody's secret


@dataclass(frozen=True)
class Line:
    """A connection to be rude on."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    socket: socket.socket

    async def say(self, *words: bytes) -> None:
        """Send this."""
        self.writer.write(b"".join(words))
        await self.writer.drain()

    async def ended(self) -> None:
        """Read on until the server ends the connection."""
        while await self.reader.read(65536):
            pass


async def say_nothing(line: Line) -> None:
    """Wait for the server to lose its patience, or leave before."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_choice.uniform(0, LONGEST)):
            await line.ended()


async def leave_mid_preface(line: Line) -> None:
    """Begin, and no more."""
    await line.say(_part(frames.PREFACE))


async def leave_mid_frame(line: Line) -> None:
    """Announce a frame that does not come."""
    await line.say(frames.hello(), _part(frames.call(1, SERVICE + "Answer")))


async def leave_mid_header_block(line: Line) -> None:
    """Send some headers, and no CONTINUATION."""
    block = _part(frames.header_block(SERVICE + "Answer"))
    await line.say(frames.hello(), frames.frame(frames.HEADERS, 0, 1, block))


async def leave_mid_message(line: Line) -> None:
    """Send a part of a message, on several streams."""
    part = frames.prefix(10_000) + bytes(_choice.randrange(1, 1000))
    await line.say(frames.hello())
    for number in STREAMS:
        path = SERVICE + _choice.choice(("Answer", "PingPong"))
        await line.say(frames.call(number, path), frames.frame(frames.DATA, 0, number, part))


async def reset_at_once(line: Line) -> None:
    """Call, and cancel with the next frame."""
    await line.say(frames.hello())
    for number in STREAMS:
        path = SERVICE + _choice.choice(("Answer", "PingPong", "Events"))
        await line.say(frames.call(number, path), frames.cancel(number))
    await _answer(line)


async def cancel_running(line: Line) -> None:
    """Cancel calls whose handlers are at work."""
    await line.say(frames.hello())
    for number in STREAMS:
        await line.say(
            frames.call(number, SERVICE + "PingPong"), frames.message(number, bytes(100))
        )
    await _answer(line)
    await line.say(*map(frames.cancel, STREAMS))
    await _answer(line)


async def half_close(line: Line) -> None:
    """Close one direction of TCP in the middle of a call, without a word of TLS."""
    await line.say(frames.hello(), frames.call(1, SERVICE + "PingPong"))
    await line.say(frames.message(1, bytes(1000)))
    line.socket.shutdown(socket.SHUT_WR)
    with suppress(TimeoutError):
        async with asyncio.timeout(LONGEST):
            await line.ended()


async def grant_nothing(line: Line) -> None:
    """Ask a lot, and allow no byte of the answers."""
    await line.say(frames.hello(window=0), frames.call(1, SERVICE + "PingPong"))
    for _ in range(4):
        await line.say(frames.message(1, bytes(15_000)))
    await asyncio.sleep(_choice.uniform(0, 5))


async def never_read(line: Line) -> None:
    """Allow all that one can, have events published, and leave them in the socket."""
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]
    large = 2**31 - 1
    await line.say(
        frames.hello(window=large),
        frames.frame(frames.WINDOW_UPDATE, 0, 0, (large - 65535).to_bytes(4)),
        frames.call(1, SERVICE + "Events"),
        frames.message(1, b""),
        frames.call(3, SERVICE + "Publish"),
        frames.message(3, b"100000 0.05", last=True),
    )
    await asyncio.sleep(_choice.uniform(0, 5))


async def speak_plainly(line: Line) -> None:
    """HTTP/2 where TLS is wanted."""
    await line.say(frames.hello(), frames.call(1, SERVICE + "Answer"))
    await _answer(line)


async def speak_tls(line: Line) -> None:
    """TLS where none is wanted."""
    await line.say(_client_hello())
    await _answer(line)


async def leave_mid_handshake(line: Line) -> None:
    """Begin with TLS, and no more."""
    await line.say(_part(_client_hello()))


async def show_no_certificate(line: Line) -> None:
    """Be told to go."""
    await line.say(frames.hello())
    await _answer(line)


Manner = Callable[[Line], Awaitable[None]]
ANYWHERE: tuple[Manner, ...] = (
    say_nothing,
    leave_mid_preface,
    leave_mid_frame,
    leave_mid_header_block,
    leave_mid_message,
    reset_at_once,
    cancel_running,
    half_close,
    grant_nothing,
    never_read,
)
PLAINTEXT: tuple[Manner, ...] = (*ANYWHERE, speak_tls)
BEFORE_TLS: tuple[Manner, ...] = (say_nothing, speak_plainly, leave_mid_handshake)
BEHIND_TLS: tuple[Manner, ...] = (*ANYWHERE, show_no_certificate)


class Rudeness:
    """Connections that end badly, to a plaintext and an mTLS address.

    Args:
        plaintext, secure: the addresses.
        folder: the certificates.
    """

    def __init__(self, plaintext: str, secure: str, folder: Path) -> None:
        self._plaintext = plaintext
        self._secure = secure
        self._anonymous = ssl.create_default_context(cafile=folder / "ca.crt")
        self._anonymous.set_alpn_protocols(["h2"])
        self._known = ssl.create_default_context(cafile=folder / "ca.crt")
        self._known.set_alpn_protocols(["h2"])
        self._known.load_cert_chain(folder / "client.crt", folder / "client.key")
        self._dropped = Counter[str]()
        self.unconnected = 0

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many connections there were, by what was done on them."""
        return self._dropped

    async def once(self) -> None:
        """Connect, be rude in one way or another, and drop the connection."""
        address, tls, manner = self._secure, None, _choice.choice(BEFORE_TLS)
        match _choice.randrange(5):
            case 0:
                pass
            case 1 | 2:
                tls, manner = self._known, _choice.choice(BEHIND_TLS)
                if manner is show_no_certificate:
                    tls = self._anonymous
            case _:
                address, manner = self._plaintext, _choice.choice(PLAINTEXT)
        # The server may well be the first to end it, in whatever way.
        with suppress(OSError, TimeoutError):
            async with self._line(address, tls) as line:
                await manner(line)
                await asyncio.sleep(_choice.choice((0, 0.1)))
        where = "TLS" if tls else "plaintext" if address == self._plaintext else "before TLS"
        self._dropped[f"{manner.__name__} ({where})"] += 1

    @asynccontextmanager
    async def _line(self, address: str, tls: ssl.SSLContext | None) -> AsyncIterator[Line]:
        host, _, port = address.rpartition(":")
        end = socket.socket()
        try:
            end.setblocking(False)
            try:
                async with asyncio.timeout(LONGEST):
                    await asyncio.get_running_loop().sock_connect(end, (host, int(port)))
            except (OSError, TimeoutError):
                self.unconnected += 1
                raise
            reader, writer = await asyncio.open_connection(
                sock=end,
                ssl=tls,
                server_hostname=host if tls else None,
                ssl_handshake_timeout=LONGEST if tls else None,
            )
            try:
                yield Line(reader, writer, end)
                if _choice.random() < 0.3:
                    writer.close()  # in TLS, not without saying so
                    async with asyncio.timeout(1):
                        await writer.wait_closed()
                elif _choice.random() < 0.5:
                    # No wait for anything: the server gets a RST.
                    linger = struct.pack("ii", 1, 0)
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            finally:
                writer.transport.abort()
        finally:
            end.close()


async def _answer(line: Line) -> None:
    """Wait a little for whatever comes."""
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await line.reader.read(65536)


def _part(whole: bytes) -> bytes:
    return whole[: _choice.randrange(1, len(whole))]


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
