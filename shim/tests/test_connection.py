"""Finding the peer, losing it, and leaving it."""

import asyncio
import logging
import socket

import grpc
import pytest
from shim.tests.scripted_peer import (
    Message,
    Peer,
    conversation,
    listening,
    plaintext,
    serving,
)

from selvedge_shim import (
    Chaincode,
    ConfigurationError,
    Response,
    Stub,
    connection,
    serve,
    success,
)


class Echo(Chaincode):
    """Answers with what it was asked, once it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.running = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def invoke(self, stub: Stub) -> Response:
        self.running.set()
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return success(stub.args[0])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_chaincode_waits_for_a_peer_that_starts_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    async with serving(Echo(), plaintext(f"localhost:{port}")):
        async with asyncio.timeout(5):
            while "cannot be reached" not in caplog.text:
                await asyncio.sleep(0.01)
        peer = Peer()
        async with listening(peer, f"127.0.0.1:{port}"):
            stream = await peer.accept()
            assert (await stream.register()).name == "asset:1.0"
            stream.end()


async def test_chaincode_dials_again_when_the_stream_ends(caplog: pytest.LogCaptureFixture) -> None:
    peer, chaincode = Peer(), Echo()
    async with listening(peer) as address, serving(chaincode, plaintext(address)):
        first = await peer.accept()
        await first.register()
        await first.transaction("lost")
        await chaincode.running.wait()
        first.end()
        second = await peer.accept()
        await second.register()
        await asyncio.wait_for(chaincode.cancelled.wait(), 5)
        chaincode.let.set()
        await second.transaction("found")
        response, _ = await second.completed()
        assert response.payload == b"found"
        second.end()
    assert "ended the stream; trying again" in caplog.text


async def test_peer_that_comes_is_found_within_a_second(caplog: pytest.LogCaptureFixture) -> None:
    port, peer = free_port(), Peer()
    async with serving(Echo(), plaintext(f"localhost:{port}")):
        # So often that the delay between attempts has grown as far as it does.
        async with asyncio.timeout(10):
            while caplog.text.count("trying again") < 7:
                await asyncio.sleep(0.01)
        async with listening(peer, f"127.0.0.1:{port}"):
            async with asyncio.timeout(1):
                stream = await peer.accept()
            await stream.register()
            stream.end()


async def test_peer_that_stays_away_is_dialled_less_often(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "EARLY", 0.3)
    async with serving(Echo(), plaintext(f"localhost:{free_port()}")), asyncio.timeout(10):
        while "trying again in 2.00 s" not in caplog.text:
            await asyncio.sleep(0.01)


async def test_refused_chaincode_says_why_and_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer()
    peer.refusal = grpc.StatusCode.ALREADY_EXISTS, "asset is registered"
    async with listening(peer) as address, serving(Echo(), plaintext(address)):
        stream = await peer.accept()
        await stream.register()
        stream.end()
    assert "refused the chaincode (ALREADY_EXISTS: asset is registered)" in caplog.text


async def test_wrong_opening_is_named(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer()
    async with listening(peer) as address, serving(Echo(), plaintext(address)):
        stream = await peer.accept()
        await stream.expect(Message.REGISTER)
        await stream.send(Message.READY)
        stream.end()
        stream = await peer.accept()
        await stream.register()
        stream.end()
    assert "sent READY instead of REGISTERED" in caplog.text


async def test_keepalive_is_echoed() -> None:
    async with conversation(Echo()) as stream:
        await stream.send(Message.KEEPALIVE)
        await stream.expect(Message.KEEPALIVE)


async def test_answer_to_nothing_is_reported_and_harmless(caplog: pytest.LogCaptureFixture) -> None:
    chaincode = Echo()
    chaincode.let.set()
    async with conversation(chaincode) as stream:
        await stream.send(Message.RESPONSE, b"late", "gone")
        await stream.transaction("after")
        response, _ = await stream.completed()
        assert response.payload == b"after"
    assert "[gone] the peer's RESPONSE answers nothing" in caplog.text


async def test_stopping_finishes_what_runs_and_refuses_what_comes() -> None:
    peer, chaincode = Peer(), Echo()
    async with listening(peer) as address, serving(chaincode, plaintext(address)) as stop:
        stream = await peer.accept()
        await stream.register()
        await stream.transaction("running", txid="tx1")
        await chaincode.running.wait()
        stop.set()
        await asyncio.sleep(0)
        await stream.transaction("late", txid="tx2")
        refused = await stream.expect(Message.ERROR)
        assert (refused.txid, refused.payload) == ("tx2", b"chaincode asset:1.0 is stopping")
        chaincode.let.set()
        response, _ = await stream.completed()
        assert response.payload == b"running"
        assert await stream.half_closed()
        stream.end()


async def test_plain_function_as_handler_is_refused() -> None:
    class Plain(Chaincode):
        def invoke(self, stub: Stub) -> Response:  # type: ignore[override]
            return success()

    with pytest.raises(ConfigurationError, match=r"Plain\.invoke must be a coroutine"):
        await serve(Plain(), plaintext("localhost:1"), asyncio.Event())


@pytest.fixture(autouse=True)
def _hear_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "selvedge_shim")
