"""Blocks come from a peer without gap and without repeats, whoever restarts."""

import asyncio
import gc
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from deliver_peer import Ledger, Peer
from eventhouse import PATIENCE, Client, House, eventually, interest, sample
from organisation import Organisation

from event_hub.events import BLOCK, FILTEREDBLOCK
from event_hub.sources.chain import Chain, DamagedBlock, Fork, Gap, Position
from event_hub.sources.checkpoint import Checkpoint, CheckpointError
from event_hub.sources.connection import Dialled, SourceStream
from event_hub.sources.deliver import SourceUnfit
from selvedge_common.comm import MessageStream, MessageStreamHandler
from selvedge_common.files import write_atomically
from selvedge_common.protoutil import blocks, metadata
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.peer import events_pb2, transaction_pb2


async def numbers(client: Client, count: int) -> list[int]:
    return [(await client.hear()).filtered_block.number for _ in range(count)]


async def test_restarted_hub_goes_on_where_it_was(house: House) -> None:
    first = await house.hub()
    for _ in range(3):
        await house.ledger.commit(house.ledger.transaction())
    await eventually(lambda: sample("eventhub_source_height", channel="mychannel") == 4)
    await first.stop()
    for _ in range(3):
        await house.ledger.commit(house.ledger.transaction())
    await house.peer.stop()

    second = await house.hub()
    client = house.client(second)
    await client.register(interest(FILTEREDBLOCK))
    await house.peer.start()
    await house.ledger.commit(house.ledger.transaction())
    assert await numbers(client, 4) == [4, 5, 6, 7]


async def test_killed_hub_skips_no_block(house: House) -> None:
    first = await house.hub()
    for _ in range(20):
        await house.ledger.commit(house.ledger.transaction())
    await eventually(lambda: sample("eventhub_source_height", channel="mychannel") > 5)
    await first.kill()
    told = int(sample("eventhub_source_height", channel="mychannel"))
    await house.peer.stop()
    await house.ledger.commit(house.ledger.transaction())

    second = await house.hub()
    client = house.client(second)
    await client.register(interest(FILTEREDBLOCK))
    await house.peer.start()
    begun = (await numbers(client, 1))[0]
    assert begun <= told
    assert await numbers(client, 21 - begun) == list(range(begun + 1, 22))


async def test_restarted_source_is_found_again_without_gap_or_repeat(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.register(interest(FILTEREDBLOCK))
    heard: list[int] = []
    for _ in range(3):
        await house.ledger.commit(house.ledger.transaction())
        while not heard or heard[-1] < house.ledger.height - 1:
            heard += await numbers(client, 1)
        await house.peer.stop()
        await house.ledger.commit(house.ledger.transaction())
        await house.peer.start()
    while heard[-1] < house.ledger.height - 1:
        heard += await numbers(client, 1)
    assert heard == list(range(heard[0], house.ledger.height))


async def hears_of_a_block(house: House, addresses: str, **settings: str) -> None:
    hub = await house.hub(SOURCE_ADDRESSES=addresses, **settings)
    client = house.client(hub)
    await client.register(interest(BLOCK))
    await house.ledger.commit(house.ledger.transaction())
    while (await client.hear()).block.header.number < 1:
        pass


async def test_another_address_is_tried_when_nobody_is_at_one(house: House) -> None:
    await hears_of_a_block(house, f"127.0.0.1:1,{house.peer.address}")


async def say_nothing(stream: MessageStream) -> None:
    await asyncio.Event().wait()


async def refuse(stream: MessageStream) -> None:
    status = common_pb2.SERVICE_UNAVAILABLE
    stream.send(events_pb2.DeliverResponse(status=status).SerializeToString())


async def refuse_and_stay(stream: MessageStream) -> None:
    await refuse(stream)
    await say_nothing(stream)


async def test_another_address_is_tried_when_one_says_nothing(
    house: House, organisation: Organisation
) -> None:
    silent = Peer(organisation, house.ledger)
    silent.instead = say_nothing
    await silent.start()
    try:
        addresses = f"{silent.address},{house.peer.address}"
        await hears_of_a_block(house, addresses, SOURCE_ANSWERTIMEOUT="300ms")
    finally:
        await silent.stop()


@pytest.mark.parametrize("promised", [0, 2**40])
async def test_another_address_is_tried_when_one_keeps_back_what_it_says_to_have(
    house: House, organisation: Organisation, promised: int
) -> None:
    """It answers all that is compared, and then sends nothing; or the blocks that there are, and
    said that there were more."""
    for _ in range(3):
        await house.ledger.commit(house.ledger.transaction())
    liar = Peer(organisation, house.ledger)
    follows: list[int] = []

    def say(stream: MessageStream, block: common_pb2.Block) -> None:
        stream.send(events_pb2.DeliverResponse(block=block).SerializeToString())

    async def keep_back(stream: MessageStream) -> None:
        async for message in stream:
            envelope = common_pb2.Envelope.FromString(message)
            payload = common_pb2.Payload.FromString(envelope.payload)
            seek = ab_pb2.SeekInfo.FromString(payload.data)
            if seek.stop.specified.number == 2**64 - 1:
                follows.append(seek.start.specified.number)
                for number in range(house.ledger.height if promised else 0):
                    say(stream, common_pb2.Block.FromString(house.ledger.held(number)))
                await asyncio.Event().wait()
            newest = seek.start.HasField("newest")
            number = house.ledger.height - 1 if newest else seek.start.specified.number
            block = common_pb2.Block.FromString(house.ledger.held(number))
            block.header.number = promised or number
            say(stream, block)
            done = events_pb2.DeliverResponse(status=common_pb2.SUCCESS)
            stream.send(done.SerializeToString())

    liar.instead = keep_back
    await liar.start()
    before = attempts("timeout")
    try:
        hub = await house.hub(
            SOURCE_ADDRESSES=f"{liar.address},{house.peer.address}", SOURCE_ANSWERTIMEOUT="300ms"
        )
        await eventually(lambda: hub.channel().status.address == house.peer.address)
        await house.ledger.commit(house.ledger.transaction())
        await eventually(lambda: hub.channel().height == house.ledger.height)
    finally:
        await liar.stop()
    assert len(follows) == 1
    assert attempts("timeout") == before + 1


@pytest.fixture
def kept_garbage() -> Iterator[None]:
    """What is in a cycle stays, as it does for long in a process that makes little garbage."""
    gc.disable()
    yield
    gc.enable()


def attempts(cause: str) -> float:
    return sample("eventhub_source_failures_total", channel="mychannel", cause=cause)


@pytest.mark.usefixtures("kept_garbage")
@pytest.mark.parametrize(
    ("instead", "cause"),
    [
        (refuse, "SERVICE_UNAVAILABLE"),
        (refuse_and_stay, "SERVICE_UNAVAILABLE"),
        (say_nothing, "timeout"),
    ],
)
async def test_failed_attempt_leaves_no_connection(
    house: House, instead: MessageStreamHandler, cause: str
) -> None:
    house.peer.instead = instead
    before = attempts(cause)
    hub = await house.hub(SOURCE_ANSWERTIMEOUT="200ms")
    await eventually(lambda: sample("grpc_server_connections") > 0)
    await eventually(lambda: attempts(cause) >= before + 10)
    await hub.stop()
    await eventually(lambda: sample("grpc_server_connections") == 0)


async def test_first_start_begins_at_the_oldest_block(house: House) -> None:
    for _ in range(3):
        await house.ledger.commit(house.ledger.transaction())
    await house.peer.stop()
    hub = await house.hub()
    client = house.client(hub)
    await client.register(interest(FILTEREDBLOCK))
    await house.peer.start()
    assert await numbers(client, 4) == [0, 1, 2, 3]


async def test_first_start_can_begin_at_the_newest_block(house: House) -> None:
    for _ in range(3):
        await house.ledger.commit(house.ledger.transaction())
    await house.peer.stop()
    hub = await house.hub(SOURCE_START="newest")
    client = house.client(hub)
    await client.register(interest(FILTEREDBLOCK))
    await house.peer.start()
    assert await numbers(client, 1) == [3]


async def test_source_waits_while_the_processor_is_full(house: House) -> None:
    """The peer is held back; what it had to keep comes in order once there is room again."""
    hub = await house.hub(PEER_EVENTS_BUFFERSIZE="1", PEER_EVENTS_OUTBOX_MAXEVENTS="10")
    client = house.client(hub)
    await client.register(interest(BLOCK))
    total, payload = 60, b"x" * 500_000
    for _ in range(total):
        await house.ledger.commit(house.ledger.transaction(payload=payload))
    heard = [await client.hear()]
    while heard[-1].block.header.number < total:
        heard.append(await client.hear())
    found = [event.block.header.number for event in heard]
    assert found == list(range(found[0], total + 1))


@pytest.mark.parametrize("kept", [0, 1])
async def test_source_with_another_history_is_refused(house: House, kept: int) -> None:
    """A ledger that was replaced: shorter than what the hub has read, or as long but another."""
    first = await house.hub()
    await house.ledger.commit(house.ledger.transaction())
    await eventually(lambda: sample("eventhub_source_height", channel="mychannel") == 2)
    await first.stop()
    kept_ledger, replaced = house.ledger, Ledger(house.organisation)
    await replaced.commit()
    for _ in range(kept):
        await replaced.commit(replaced.transaction())
    house.peer.ledger = replaced
    cause = "fork" if kept else "behind"
    labels = {"channel": "mychannel", "cause": cause}
    before = sample("eventhub_source_failures_total", **labels)
    second = await house.hub()
    await eventually(lambda: sample("eventhub_source_failures_total", **labels) > before)
    assert sample("eventhub_source_connected", channel="mychannel") == 0
    assert sample("eventhub_source_height", channel="mychannel") == 2
    second.hub.check_serving()
    with pytest.raises(SourceUnfit) as unfit:
        second.hub.check_sources()
    sentence = str(unfit.value)
    assert sentence.startswith(f"the source {house.peer.address}: ")
    assert "block 1" in sentence
    assert "source.addresses" in sentence
    assert "delete mychannel.json in the folder source.checkpoint" in sentence
    if not kept:
        assert "this hub has read mychannel up to block 1" in sentence
        assert "ends at block 0" in sentence
        assert "wait until it has caught up" in sentence

    # As long as the peer with another history is all there was, its absence does not mend it.
    failures = sample("eventhub_source_failures_total", channel="mychannel", cause="UNAVAILABLE")
    await house.peer.stop()
    await eventually(
        lambda: (
            sample("eventhub_source_failures_total", channel="mychannel", cause="UNAVAILABLE")
            > failures
        )
    )
    with pytest.raises(SourceUnfit):
        second.hub.check_sources()
    house.peer.ledger = kept_ledger
    await house.peer.start()
    await eventually(lambda: sample("eventhub_source_connected", channel="mychannel") == 1)
    second.hub.check_sources()


async def test_absent_source_is_no_trouble_of_the_hub(house: House) -> None:
    labels = {"channel": "mychannel", "cause": "UNAVAILABLE"}
    before = sample("eventhub_source_failures_total", **labels)
    await house.peer.stop()
    hub = await house.hub()
    await eventually(lambda: sample("eventhub_source_failures_total", **labels) > before)
    hub.hub.check_sources()


async def test_damaged_source_is_unhealthy_until_its_block_was_read(house: House) -> None:
    """Each attempt connects and stands until the damaged block comes: that is not health."""
    hub = await house.hub()
    await eventually(lambda: sample("eventhub_source_height", channel="mychannel") == 1)
    labels = {"channel": "mychannel", "cause": "damaged_block"}
    before = sample("eventhub_source_failures_total", **labels)
    whole = (await house.ledger.commit(house.ledger.transaction())).SerializeToString()
    damaged = common_pb2.Block.FromString(whole)
    damaged.data.data[0] = b"damaged"
    await hub.stop()
    house.ledger.replace(1, damaged.SerializeToString())
    (house.folder / "checkpoints/mychannel.json").unlink()

    hub = await house.hub()
    await eventually(lambda: sample("eventhub_source_failures_total", **labels) > before)
    while sample("eventhub_source_failures_total", **labels) < before + 4:
        with pytest.raises(SourceUnfit, match="block 1"):
            hub.hub.check_sources()
        await asyncio.sleep(0)
    house.ledger.replace(1, whole)
    await eventually(lambda: sample("eventhub_source_height", channel="mychannel") == 2)
    hub.hub.check_sources()


@pytest.mark.parametrize("codes", [b"", b"\0", b"\0\xfe"])
async def test_block_that_hides_whether_a_transaction_is_valid_comes_from_the_next_address(
    house: House, organisation: Organisation, codes: bytes
) -> None:
    """No orderer signs the codes, so a source could leave events out by leaving out their codes."""
    honest, hostile = house.ledger, Ledger(organisation)
    hub = await house.hub()
    await eventually(lambda: sample("eventhub_source_height", channel="mychannel") == 1)
    await hub.stop()
    block = await honest.commit(honest.transaction(), honest.transaction())
    metadata.set_metadata(block, common_pb2.TRANSACTIONS_FILTER, codes)
    await hostile.append(common_pb2.Block.FromString(honest.held(0)))
    await hostile.append(block)
    first = Peer(organisation, hostile)
    await first.start()
    try:
        before = attempts("damaged_block")
        hub = await house.hub(SOURCE_ADDRESSES=f"{first.address},{house.peer.address}")
        await eventually(lambda: sample("eventhub_source_height", channel="mychannel") == 2)
        assert attempts("damaged_block") == before + 1
        told = await hub.channel("mychannel").read(1)
        assert metadata.validation_codes(told.message) == [transaction_pb2.VALID] * 2
    finally:
        await first.stop()


async def test_source_that_leaves_out_the_beginning_is_not_read(house: House) -> None:
    """Even if what it begins with is a configuration, by which its blocks could be judged."""
    await house.ledger.configure([house.organisation], house.ledger.orderer)
    whole = house.ledger.held(0)
    before = attempts("gap")
    house.ledger.replace(0, house.ledger.held(1))
    hub = await house.hub()
    await eventually(lambda: attempts("gap") > before)
    with pytest.raises(SourceUnfit, match=r"sent block 1, and the hub has to begin with block 0"):
        hub.hub.check_sources()
    house.ledger.replace(0, whole)
    await eventually(lambda: sample("eventhub_source_height", channel="mychannel") == 2)
    hub.hub.check_sources()


async def test_block_above_the_limit_is_unhealthy_until_it_may_be_read(house: House) -> None:
    hub = await house.hub(SOURCE_MAXRECVMSGSIZE="16KB")
    await eventually(lambda: sample("eventhub_source_height", channel="mychannel") == 1)
    labels = {"channel": "mychannel", "cause": "block_too_large"}
    before = sample("eventhub_source_failures_total", **labels)
    await house.ledger.commit(house.ledger.transaction(payload=b"x" * 100_000))
    await house.ledger.commit(house.ledger.transaction())
    await eventually(lambda: sample("eventhub_source_failures_total", **labels) > before)
    while sample("eventhub_source_failures_total", **labels) < before + 4:
        with pytest.raises(SourceUnfit, match=r"after block 0 .* source.maxRecvMsgSize"):
            hub.hub.check_sources()
        await asyncio.sleep(0)
    await hub.stop()

    hub = await house.hub()
    await eventually(lambda: sample("eventhub_source_height", channel="mychannel") == 3)
    hub.hub.check_sources()


async def test_only_what_concerns_the_credentials_is_blamed_on_them(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failures(cause: str) -> float:
        return sample("eventhub_source_failures_total", channel="mychannel", cause=cause)

    faults, credentials = failures("fault"), failures("credentials")
    check = Chain.check

    def fail_at_first(
        chain: Chain, block: common_pb2.Block, after: Position | None = None
    ) -> Position:
        if failures("fault") == faults and failures("credentials") == credentials:
            raise ValueError("nothing about credentials")
        return check(chain, block, after)

    monkeypatch.setattr(Chain, "check", fail_at_first)
    hub = await house.hub()
    await eventually(lambda: sample("eventhub_source_height", channel="mychannel") == 1)
    assert failures("fault") == faults + 1
    assert failures("credentials") == credentials

    await house.peer.stop()
    key = house.folder / "msp/keystore/key.pem"
    kept = key.read_bytes()
    key.unlink()
    await eventually(lambda: failures("credentials") > credentials)
    assert failures("fault") == faults + 1
    hub.hub.check_serving()

    key.write_bytes(kept)
    await house.peer.start()
    await eventually(lambda: sample("eventhub_source_connected", channel="mychannel") == 1)


class FailsWhenCancelled:
    """A call, and all that leads to it, as grpc.aio's is when it fails while it is cancelled before
    it has begun: the cancellation is lost."""

    def stream_stream(self, *_: Any, **__: Any) -> Any:
        return lambda requests: self

    async def read(self) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            none = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, none, none, "", "") from None

    def cancel(self) -> None: ...

    async def close(self, grace: float | None) -> None: ...


async def test_reading_ends_when_it_is_told_to_while_the_source_goes_away(
    organisation: Organisation,
) -> None:
    dialled: Any = Dialled(
        FailsWhenCancelled(),  # type: ignore[arg-type]
        organisation.identity("hub", "peer"),
        None,
    )

    async def read() -> None:
        async with SourceStream(
            lambda _: dialled, "peer", "localhost:1", "mychannel", "source"
        ) as stream:
            await stream.read()

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()


class TakesItsTime(FailsWhenCancelled):
    """A call whose read ends a while after it was cancelled."""

    def __init__(self) -> None:
        self.leaving = asyncio.Event()
        self.left = asyncio.Event()

    async def read(self) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            self.leaving.set()
            await self.left.wait()


async def test_leaving_a_source_ends_when_it_is_told_to(organisation: Organisation) -> None:
    call = TakesItsTime()
    signer = organisation.identity("hub", "peer")
    dialled = Dialled(call, signer, None)  # type: ignore[arg-type]

    async def leave() -> None:
        async with SourceStream(lambda _: dialled, "peer", "localhost:1", "mychannel", "source"):
            await asyncio.sleep(0)  # the read has begun
        await asyncio.Event().wait()

    leaving = asyncio.create_task(leave())
    await call.leaving.wait()
    leaving.cancel()
    call.left.set()
    await asyncio.wait([leaving], timeout=PATIENCE)
    assert leaving.cancelled()


def block_after(
    block: common_pb2.Block | None,
    number: int | None = None,
    data: Sequence[bytes] = (b"envelope",),
) -> common_pb2.Block:
    last = Position(block.header.number, blocks.header_hash(block.header)) if block else None
    return blocks.new_block(
        (last.number + 1 if last else 0) if number is None else number,
        last.hash if last else b"",
        data,
    )


def test_chain_takes_the_next_block_and_refuses_all_others() -> None:
    genesis = block_after(None)
    chain = Chain("mychannel", None)
    with pytest.raises(Gap, match="block 7, and the hub has to begin with block 0"):
        chain.check(block_after(None, number=7))
    chain.last = chain.check(genesis)
    with pytest.raises(Gap, match="block 2 after block 0"):
        chain.check(block_after(genesis, number=2))
    with pytest.raises(Gap):
        chain.check(genesis)
    stranger = block_after(block_after(None, data=(b"another",)))
    with pytest.raises(Fork, match=r"block 1 .* does not follow"):
        chain.check(stranger)
    altered = block_after(genesis)
    altered.data.data[0] = b"altered"
    with pytest.raises(DamagedBlock, match="block 1"):
        chain.check(altered)
    assert chain.check(block_after(genesis)).number == 1


def test_chain_recognises_only_the_last_block() -> None:
    genesis = block_after(None)
    chain = Chain("mychannel", None)
    chain.last = chain.check(genesis)
    chain.recognise(genesis)
    with pytest.raises(Fork):
        chain.recognise(block_after(None, data=(b"another",)))


async def test_checkpoint_is_remembered(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoints", "mychannel")
    assert checkpoint.position is None
    checkpoint.advance(Position(7, b"hash"))
    await checkpoint.write()
    assert Checkpoint(tmp_path / "checkpoints", "mychannel").position == Position(7, b"hash")


async def test_slow_write_does_not_undo_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write under way when the hub stops, and the last one, which stopping makes."""
    checkpoint = Checkpoint(tmp_path, "mychannel")
    begun, go_on = threading.Event(), threading.Event()

    def write_slowly(file: Path, data: bytes, mode: int) -> None:
        if not begun.is_set():
            begun.set()
            assert go_on.wait(PATIENCE)
        write_atomically(file, data, mode)

    monkeypatch.setattr("event_hub.sources.checkpoint.write_atomically", write_slowly)
    checkpoint.advance(Position(1, b"first"))
    first = asyncio.create_task(checkpoint.write())
    await eventually(begun.is_set)
    checkpoint.advance(Position(2, b"second"))
    last = asyncio.create_task(checkpoint.write())
    await asyncio.wait([last], timeout=0.1)
    go_on.set()
    await asyncio.gather(first, last)
    assert Checkpoint(tmp_path, "mychannel").position == Position(2, b"second")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"channel": "mychannel", "number": "x", "hash": ""}',
        json.dumps({"channel": "other", "number": 1, "hash": ""}),
    ],
)
def test_unusable_checkpoint_is_not_guessed_around(tmp_path: Path, content: str) -> None:
    (tmp_path / "mychannel.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"mychannel\.json"):
        Checkpoint(tmp_path, "mychannel")


async def test_checkpoint_that_cannot_be_written_is_unhealthy_until_it_can(tmp_path: Path) -> None:
    blocked = tmp_path / "checkpoints"
    blocked.write_text("a file in the way")
    checkpoint = Checkpoint(tmp_path / "elsewhere", "mychannel")
    checkpoint.file = blocked / "mychannel.json"
    checkpoint.advance(Position(1, b"hash"))
    await checkpoint.write()
    with pytest.raises(CheckpointError, match="make room"):
        checkpoint.check_health()
    blocked.unlink()
    await checkpoint.write()
    checkpoint.check_health()
