"""Broadcast over real gRPC: who may, what is refused and why, and the order of the replies."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY
from testchannel import CHANNEL, Network, Service, fill_disk, make_room

from chaincode_support.ordering import BatchSize, OrderingSettings
from chaincode_support.ordering.broadcast import Broadcast
from selvedge_common.msp import msp
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.orderer.ab_pb2_grpc import AtomicBroadcastStub

MAX_BYTES = 20_000


def settings(**changed: Any) -> OrderingSettings:
    usual: dict[str, Any] = {
        "batch": BatchSize(10, 10_000),
        "timeout": 0.002,
        "max_pending_messages": 100,
        "max_pending_bytes": 1 << 24,
    }
    return OrderingSettings(**{**usual, **changed})


@pytest.fixture
async def service(tmp_path: Path, network: Network) -> AsyncIterator[Service]:
    async with Service(network, tmp_path, settings(), max_envelope_bytes=MAX_BYTES) as running:
        yield running


async def broadcast(service: Service, *messages: bytes) -> list[ab_pb2.BroadcastResponse]:
    """Send all at once, half-close, and give all replies."""
    async with grpc.aio.insecure_channel(service.server.address) as channel:
        call = AtomicBroadcastStub(channel).Broadcast(
            common_pb2.Envelope.FromString(message) for message in messages
        )
        return [reply async for reply in call]


def status_of(reply: ab_pb2.BroadcastResponse) -> str:
    return common_pb2.Status.Name(reply.status)


async def test_success_means_durable_and_committed_soon(service: Service) -> None:
    txid, envelope = service.network.transaction()
    (reply,) = await broadcast(service, envelope)
    assert (status_of(reply), reply.info) == ("SUCCESS", "")
    assert service.ordering.height == 2
    await service.ledger.wait_for(2)
    assert service.ledger.block_number_of(txid) == (1, 0)


def forged(network: Network) -> bytes:
    envelope = common_pb2.Envelope.FromString(network.transaction()[1])
    envelope.signature = network.client.sign(b"another message")
    return envelope.SerializeToString()


def of(network: Network, **fields: Any) -> bytes:
    envelope = common_pb2.Envelope.FromString(network.transaction()[1])
    payload = common_pb2.Payload.FromString(envelope.payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    for name, value in fields.items():
        setattr(header, name, value)
    payload.header.channel_header = header.SerializeToString()
    envelope.payload = payload.SerializeToString()
    envelope.signature = network.client.sign(envelope.payload)
    return envelope.SerializeToString()


def by(network: Network, identity: Any) -> bytes:
    return network.endorse(network.propose(b"x", client=identity), b"").SerializeToString()


def expired(network: Network) -> bytes:
    return by(network, network.organisation.issue("client", "old", valid=timedelta(seconds=-1)))


def early(network: Network) -> bytes:
    """By a client whose certificate begins tomorrow."""
    return by(
        network,
        network.organisation.issue("client", "new", age=timedelta(-1), valid=timedelta(2)),
    )


def padded(network: Network) -> bytes:
    """Sound, but for a field of the envelope that no release knows."""
    return network.transaction()[1] + b"\x7a" + b"\xa0\x9c\x01" + bytes(MAX_BYTES)


REFUSALS: list[tuple[str, str, Callable[[Network], bytes]]] = [
    ("BAD_REQUEST", "envelope is empty", lambda n: b""),
    (
        "BAD_REQUEST",
        "payload of the envelope is not a marshalled",
        lambda n: common_pb2.Envelope(payload=b"\xff").SerializeToString(),
    ),
    ("BAD_REQUEST", "header type 0", lambda n: of(n, type=common_pb2.MESSAGE)),
    ("NOT_FOUND", "no channel 'yours' here", lambda n: of(n, channel_id="yours")),
    ("NOT_IMPLEMENTED", "cannot be reconfigured", lambda n: of(n, type=common_pb2.CONFIG_UPDATE)),
    ("NOT_IMPLEMENTED", "cannot be reconfigured", lambda n: of(n, type=common_pb2.CONFIG)),
    ("FORBIDDEN", "does not match the message", forged),
    ("FORBIDDEN", "OtherMSP", lambda n: by(n, n.stranger)),
    ("FORBIDDEN", "expired", expired),
    ("FORBIDDEN", "is only valid from", early),
    ("FORBIDDEN", "/Channel/Application/Writers", lambda n: by(n, n.peer)),
    (
        "REQUEST_ENTITY_TOO_LARGE",
        "more than the 20000",
        lambda n: n.endorse(n.propose(b"x" * MAX_BYTES), b"").SerializeToString(),
    ),
    ("REQUEST_ENTITY_TOO_LARGE", "more than the 20000", padded),
]


@pytest.mark.parametrize(("status", "why", "make"), REFUSALS)
async def test_a_refusal_says_why_and_the_stream_goes_on(
    status: str, why: str, make: Callable[[Network], bytes], service: Service
) -> None:
    good = service.network.transaction()[1]
    refused, accepted = await broadcast(service, make(service.network), good)
    assert status_of(refused) == status
    assert why in refused.info
    assert status_of(accepted) == "SUCCESS"


async def test_large_envelopes_keep_their_place_too(tmp_path: Path, network: Network) -> None:
    """They are judged on a thread, the others on the loop."""
    size = 2 << 20
    roomy = settings(batch=BatchSize(10, 2 * size))
    async with Service(network, tmp_path, roomy, max_envelope_bytes=2 * size) as service:
        made = [
            network.endorse(network.propose(b"x"), bytes(size if n % 2 else 1)).SerializeToString()
            for n in range(6)
        ]
        made.insert(3, forged(network))
        replies = await broadcast(service, *made)
        assert [status_of(reply) for reply in replies] == [
            "FORBIDDEN" if n == 3 else "SUCCESS" for n in range(7)
        ]
        ordered = [
            envelope
            for number in range(1, service.ordering.height)
            for envelope in common_pb2.Block.FromString(service.ordering.block(number)).data.data
        ]
    assert ordered == [envelope for n, envelope in enumerate(made) if n != 3]


async def test_a_verdict_on_an_identity_does_not_outlive_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = service.network
    client = network.organisation.issue("client", "brief", valid=timedelta(minutes=5))
    before, after = by(network, client), by(network, client)
    (taken,) = await broadcast(service, before)

    class Later:
        @staticmethod
        def now(tz: tzinfo) -> datetime:
            return datetime.now(tz) + timedelta(minutes=10)

    monkeypatch.setattr(msp, "datetime", Later)
    (refused,) = await broadcast(service, after)
    assert (status_of(taken), status_of(refused)) == ("SUCCESS", "FORBIDDEN")
    assert "expired" in refused.info


async def test_replies_keep_the_order_and_share_blocks(service: Service) -> None:
    messages = [
        forged(service.network) if n % 5 == 0 else service.network.transaction()[1]
        for n in range(40)
    ]
    replies = await broadcast(service, *messages)
    assert [status_of(reply) for reply in replies] == [
        "FORBIDDEN" if n % 5 == 0 else "SUCCESS" for n in range(40)
    ]
    # Had each waited for the one before, there would be a block for each.
    assert service.ordering.height < 1 + 32


async def test_a_full_ordering_is_unavailable(tmp_path: Path, network: Network) -> None:
    async with Service(network, tmp_path, settings(max_pending_bytes=10)) as service:
        (reply,) = await broadcast(service, network.transaction()[1])
    assert status_of(reply) == "SERVICE_UNAVAILABLE"
    assert "is full" in reply.info


async def test_what_was_taken_and_could_not_be_written_is_told_apart_from_what_was_refused(
    service: Service,
) -> None:
    log: Any = service.ordering._log
    fill_disk(log._writer)
    large = service.network.endorse(service.network.propose(b"x"), bytes(15_000))
    (reply,) = await broadcast(service, large.SerializeToString())
    make_room(log._writer)
    assert status_of(reply) == "INTERNAL_SERVER_ERROR"
    assert "is not known to be ordered" in reply.info


def refused(reason: str) -> float:
    labels = {"channel": CHANNEL, "reason": reason}
    return REGISTRY.get_sample_value("ordering_refused_total", labels) or 0


def bytes_behind() -> float | None:
    return REGISTRY.get_sample_value("ledger_bytes_behind", {"channel": CHANNEL})


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ({"blocks_ahead": 1}, r"is 1 blocks behind its ordering, .*\.blocksAhead \(1\)"),
        ({"bytes_ahead": 9000}, r"is 1\d{4} bytes behind its ordering, .*\.bytesAhead \(9000\)"),
    ],
)
async def test_what_would_not_be_committed_soon_is_unavailable(
    tmp_path: Path, network: Network, limit: Any, why: str
) -> None:
    before = refused("behind")
    async with Service(network, tmp_path, settings(), **limit) as service:
        await service.ledger.wait_for(1)
        fill_disk(service.ledger._writer)
        large = network.endorse(network.propose(b"x"), bytes(12_000)).SerializeToString()
        (taken,) = await broadcast(service, large)
        (reply,) = await broadcast(service, network.transaction()[1])
        make_room(service.ledger._writer)
        async with asyncio.timeout(10):
            await service.ledger.wait_for(2)
            while bytes_behind():
                await asyncio.sleep(0.005)
        (again,) = await broadcast(service, network.transaction()[1])
    assert [status_of(answer) for answer in (taken, reply, again)] == [
        "SUCCESS",
        "SERVICE_UNAVAILABLE",
        "SUCCESS",
    ]
    assert re.search(why, reply.info)
    assert refused("behind") == before + 1


async def test_what_would_never_be_committed_is_unavailable(
    tmp_path: Path, network: Network
) -> None:
    before = refused("stopped")
    async with Service(network, tmp_path, settings()) as service:
        await service.ledger.wait_for(1)
        other = sqlite3.connect(service.ledger.file)
        other.execute("DROP TABLE tx")
        other.close()
        await broadcast(service, network.transaction()[1])
        await asyncio.wait((service.committing,))
        (reply,) = await broadcast(service, network.transaction()[1])
        assert service.ordering.height == 2
    assert status_of(reply) == "SERVICE_UNAVAILABLE"
    assert "committing stopped at block 1" in reply.info
    assert refused("stopped") == before + 1


async def test_a_stream_is_not_read_faster_than_its_pipeline_empties(
    tmp_path: Path, network: Network
) -> None:
    # Two in the pipeline, one in the replier's hands, one waiting for its place: never more.
    slow = settings(max_pending_messages=4, timeout=0.05)
    async with Service(network, tmp_path, slow, pipeline=2) as service:
        messages = [network.transaction()[1] for _ in range(12)]
        replies = await broadcast(service, *messages)
    assert {status_of(reply) for reply in replies} == {"SUCCESS"}


async def test_streams_are_bounded_and_places_come_back(tmp_path: Path, network: Network) -> None:
    counter = "broadcast_streams_refused_total"
    before = REGISTRY.get_sample_value(counter) or 0
    async with Service(network, tmp_path, settings(), broadcast_streams=1) as service:
        async with grpc.aio.insecure_channel(service.server.address) as channel:
            # The stubs know no call that is written to by hand.
            method: Any = AtomicBroadcastStub(channel).Broadcast
            held = method()
            await held.write(common_pb2.Envelope.FromString(network.transaction()[1]))
            await held.read()
            assert REGISTRY.get_sample_value("broadcast_streams") == 1
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await broadcast(service, network.transaction()[1])
            await held.done_writing()
            assert await held.code() is grpc.StatusCode.OK
        (reply,) = await broadcast(service, network.transaction()[1])
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == (
        "All 1 Broadcast streams that this service allows are open: close one, or raise "
        "orderer.limits.streams."
    )
    assert REGISTRY.get_sample_value(counter) == before + 1
    assert REGISTRY.get_sample_value("broadcast_streams") == 0
    assert status_of(reply) == "SUCCESS"


async def test_many_streams_at_once_lose_nothing(service: Service) -> None:
    made = [service.network.transaction() for _ in range(30)]
    await asyncio.gather(*(broadcast(service, envelope) for _, envelope in made))
    await service.ledger.wait_for(service.ordering.height)
    assert all(service.ledger.has_transaction(txid) for txid, _ in made)


async def test_what_strangers_wrote_is_repeated_in_part_and_logged_once(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    endless = of(service.network, channel_id="x" * 1_000_000)
    replies = await broadcast(service, endless, endless, endless)
    assert [status_of(reply) for reply in replies] == ["NOT_FOUND"] * 3
    assert all(len(reply.info) < 1000 for reply in replies)
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(lines) == 2
    assert sum(map(len, lines)) < 2000


async def test_a_stream_that_says_nothing_is_ended(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaincode_support.ordering.broadcast.FIRST_MESSAGE_SECONDS", 0.05)
    async with grpc.aio.insecure_channel(service.server.address) as channel:
        # The stubs of grpc.aio want what may be left out.
        open_stream: Any = channel.stream_stream
        call = open_stream("/orderer.AtomicBroadcast/Broadcast")()
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_end_of_a_read_is_told_as_it_is() -> None:
    class Gone:
        """A stream whose client left, as the transport says it."""

        peer = "ipv4:127.0.0.1:1"

        def __aiter__(self) -> "Gone":
            return self

        async def __anext__(self) -> bytes:
            raise grpc.aio.UsageError("RPC already finished.")

    stream: Any = Gone()
    with pytest.raises(grpc.aio.UsageError):
        await Broadcast({}, pipeline=1, max_streams=1).serve(stream)
