"""How administrators see the hub."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import grpc
import grpc.aio
import pytest
from eventhouse import (
    PATIENCE,
    House,
    Running,
    dialled,
    end_of,
    eventually,
    interest,
    listening,
    next_message,
    sample,
)
from organisation import Organisation
from subscribers import Subscriber

from event_hub.channels.channel import Channel
from event_hub.channels.recent import RecentBlocks
from event_hub.channels.status import SourceStatus
from event_hub.consumers import Consumers
from event_hub.events import BLOCK, CHAINCODE
from event_hub.hub_state import CONSUMERS_A_TURN, INTEREST_CHARACTERS, MAX_INTERESTS, HubStates
from event_hub.interests import Interests
from event_hub.outbox import OutboxConfig
from event_hub.processor import Processor
from event_hub.producer import URI, Producer
from event_hub.session import Service, Session
from event_hub.watch import CONSUMERS, MAX_CONSUMERS, METHOD, Watch, add_watch
from selvedge_common.comm import (
    GRPCServer,
    MessageStream,
    ServerConfig,
)
from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil import seek
from selvedge_common.signed_requests import SignedRequests, sign_request
from selvedge_protos.peer import chaincode_event_pb2
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import (
    ConsumerState,
    HubState,
    PublishRequest,
    SubscribeRequest,
    WatchRequest,
)
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2_grpc import ProducerStub

Transport = Literal["native", "grpcio"]
LISTEN = "/test.Consumers/Listen"
CHANNEL = "mychannel"
# A connection on which little can be under way, so that who does not read is noticed soon.
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * 1024))


class Watcher:
    """A client that watches.

    Attributes:
        call: the call; `hear` reads from it.
    """

    def __init__(self, opened: grpc.aio.Channel, request: bytes) -> None:
        watch = opened.unary_stream(METHOD)  # type: ignore[call-arg]  # raw messages
        self.call: Any = watch(request)

    async def hear(self) -> HubState:
        return HubState.FromString(await next_message(self.call))

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """The status by which the stream ends; reports before it are skipped."""
        return await end_of(self.call)


@asynccontextmanager
async def watching(
    organisation: Organisation,
    address: str,
    request: WatchRequest | bytes,
    *,
    by: SigningIdentity | None = None,
    bound: bool = True,
    options: tuple[tuple[str, int], ...] = (),
) -> AsyncIterator[Watcher]:
    """Watch, as an administrator unless somebody else signs; bytes are sent as they are."""
    opened, digest = dialled(organisation, address, *options)
    if isinstance(request, WatchRequest):
        signer = by or organisation.identity("admin", "admin")
        envelope = sign_request(request, signer, tls_cert_hash=digest if bound else b"")
        request = envelope.SerializeToString()
    async with opened:
        yield Watcher(opened, request)


async def report(organisation: Organisation, address: str, limit: int = 0) -> HubState:
    """The state now, and that no further one comes."""
    async with watching(organisation, address, WatchRequest(limit=limit)) as watcher:
        state = await watcher.hear()
        assert await watcher.ended() == (grpc.StatusCode.OK, "")
        return state


async def report_with(
    house: House, hub: Running, condition: Callable[[HubState], object]
) -> HubState:
    """The first report of a hub that is as it should be."""
    async with asyncio.timeout(PATIENCE):
        while not condition(state := await report(house.organisation, hub.address)):
            pass
        return state


def every(seconds: float, limit: int = 0) -> WatchRequest:
    request = WatchRequest(limit=limit)
    request.interval.FromTimedelta(timedelta(seconds=seconds))
    return request


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_administrator_is_told_how_the_hub_is(house: House, transport: str) -> None:
    before = datetime.now(UTC)
    hub = await house.hub(TRANSPORT_KIND=transport, PEER_ID="hub-1")
    await report_with(house, hub, lambda state: state.channels[0].height == 1)
    client = house.client(hub, house.organisation.identity("ada"))
    await client.register(interest(BLOCK), interest(CHAINCODE, "cc", "made", on=CHANNEL))
    await house.ledger.commit(house.ledger.transaction())
    await client.hear()
    state = await report(house.organisation, hub.address)

    assert state.hub == "hub-1"
    started, at = state.started.ToDatetime(UTC), state.at.ToDatetime(UTC)
    assert before <= started <= at <= datetime.now(UTC)
    (told,) = state.channels
    assert (told.name, told.height, told.source) == (CHANNEL, 2, house.peer.address)
    assert (told.behind, told.trouble) == (0, "")
    assert state.open == {"CHAT": 1, "DELIVER": 0, "SUBSCRIBE": 0}
    (consumer,) = state.consumers
    assert (consumer.service, consumer.identity) == (ConsumerState.CHAT, "Org1MSP/ada")
    assert consumer.peer.startswith("ipv4:127.0.0.1:")
    assert started <= consumer.since.ToDatetime(UTC) <= at
    assert sorted(consumer.interests) == [
        "BLOCK on every channel",
        "CHAINCODE cc/made on channel mychannel",
    ]
    # The confirmation and the block.
    assert (consumer.delivered, consumer.waiting_events, consumer.waiting_bytes) == (2, 0, 0)
    assert consumer.behind == {}


async def test_consumers_of_every_service_are_told_of(house: House) -> None:
    hub = await house.hub()
    await report_with(house, hub, lambda state: state.channels[0].height == 1)
    await house.client(hub).register(interest(BLOCK))
    opened, digest = dialled(house.organisation, hub.address)
    bea = house.organisation.identity("bea")
    request = SubscribeRequest(channel=CHANNEL, block=0)
    subscriber = Subscriber(opened, sign_request(request, bea, tls_cert_hash=digest))
    await subscriber.begin()
    state = await report(house.organisation, hub.address)
    await subscriber.leave()
    assert state.open == {"CHAT": 1, "DELIVER": 0, "SUBSCRIBE": 1}
    told = {consumer.identity: consumer for consumer in state.consumers}
    assert told["Org1MSP/user"].service == ConsumerState.CHAT
    assert told["Org1MSP/bea"].service == ConsumerState.SUBSCRIBE
    assert told["Org1MSP/bea"].interests[0].startswith("mychannel from block 0")


async def test_trouble_with_a_source_is_told(house: House) -> None:
    hub = await house.hub()
    await report_with(house, hub, lambda state: state.channels[0].source)
    await house.peer.stop()
    state = await report_with(house, hub, lambda state: state.channels[0].trouble)
    assert state.channels[0].source == ""
    assert house.peer.address in state.channels[0].trouble


async def test_source_with_another_ledger_is_trouble(house: House) -> None:
    """As after the source's ledger was restored from an old backup."""
    file = house.folder / "checkpoints/mychannel.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"channel": CHANNEL, "number": 9, "hash": "00"}))
    hub = await house.hub()
    state = await report_with(house, hub, lambda state: state.channels[0].trouble)
    assert "ends at block 0" in state.channels[0].trouble
    assert sample("eventhub_source_unfit", channel=CHANNEL) == 1


async def test_hub_that_is_behind_its_source_says_by_how_much(stage: "Stage") -> None:
    stage.channel.status = SourceStatus(address="peer:7051", newest=9)
    state = await report(stage.organisation, stage.address)
    (told,) = state.channels
    assert (told.height, told.source, told.behind) == (3, "peer:7051", 7)


async def test_streams_that_ended_are_told_by_their_reason(house: House) -> None:
    hub = await house.hub()
    refused, leaving = house.client(hub), house.client(hub)
    await refused.say(b"not a signed event")
    await refused.refused()
    await leaving.register(interest(BLOCK))
    await leaving.call.done_writing()
    await leaving.refused()
    state = await report_with(house, hub, lambda state: not state.open["CHAT"])
    assert state.ended == {"MESSAGE_REFUSED": 1, "HALF_CLOSED": 1}


async def test_what_producers_published_is_told(house: House) -> None:
    hub = await house.hub()
    event = chaincode_event_pb2.ChaincodeEvent(event_name="storm")
    good, wrong = (PublishRequest(channel=name, event=event) for name in ("news", CHANNEL))
    opened, _ = dialled(house.organisation, hub.address, uri=URI + "weather")
    async with opened, asyncio.timeout(PATIENCE):
        await ProducerStub(opened).Publish(iter([good, wrong, good]))
    told = (await report(house.organisation, hub.address)).producers
    assert (told.open, told.accepted) == (0, 2)
    assert told.dropped == {"CHANNEL_OF_A_SOURCE": 1}


async def test_hub_that_stops_tells_its_watchers_and_waits_for_none(house: House) -> None:
    hub = await house.hub(PEER_GRACEPERIOD="10m")
    async with watching(house.organisation, hub.address, every(600)) as watcher:
        await watcher.hear()
        await hub.stop()
        code, details = await watcher.ended()
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "shutting down; connect again" in details


@dataclass
class Stage:
    """Watch alone, and consumers that are what a test makes of them.

    Attributes:
        channel: the channel that the hub is said to have.
        sessions: the consumers.
        ahead: the clock of the service runs so much ahead.
        looks: how often it has looked at the clock.
    """

    organisation: Organisation
    channel: Channel
    states: HubStates
    address: str = ""
    sessions: list[Session] = field(default_factory=list)
    ahead: timedelta = timedelta(0)
    looks: int = 0

    def now(self) -> datetime:
        self.looks += 1
        return datetime.now(UTC) + self.ahead

    @asynccontextmanager
    async def consumers(self, number: int) -> AsyncIterator[None]:
        """So many streams."""
        opened, _ = dialled(self.organisation, self.address)
        async with opened:
            listen: Any = opened.stream_stream(LISTEN)  # type: ignore[call-arg]  # raw messages
            calls: list[Any] = []
            # gRPC core's server refuses by chance what comes in greater numbers at once.
            for goal in (*range(500, number, 500), number):
                calls += [listen() for _ in range(goal - len(calls))]
                await self._joined(goal)
            yield
            for call in calls:
                call.cancel()

    async def _joined(self, number: int) -> None:
        await eventually(lambda: len(self.sessions) == number)


@asynccontextmanager
async def staged(
    organisation: Organisation,
    transport: Transport = "native",
    *,
    limit: int = 10,
    send_timeout: float = 60.0,
) -> AsyncIterator[Stage]:
    config = ServerConfig(
        transport=transport, secure=listening(organisation), max_concurrent_streams=10_000
    )
    server = GRPCServer("127.0.0.1:0", config)
    consumers = Consumers(10_000, OutboxConfig(1, 1, 1), 60.0, 1 << 20)
    producer = Producer(
        Processor(Interests(1), consumers, 1, 1, -1), {}, max_streams=1, max_event_bytes=1
    )
    served = Channel(
        CHANNEL, validated=True, height=3, recent=RecentBlocks(1), fetch=lambda _: _never()
    )
    states = HubStates("hub", {CHANNEL: served}, consumers, producer)
    stage = Stage(organisation, served, states)

    async def listen(stream: MessageStream) -> None:
        with consumers.session(Service.DELIVER, stream) as session:
            stage.sessions.append(session)
            await stream.wait_closed()

    requests = SignedRequests(
        organisation.msp, max_bytes=1 << 20, setting="peer.events.maxRecvMsgSize"
    )
    watch = Watch(
        requests,
        states,
        limit=limit,
        send_timeout=send_timeout,
        shortest_interval=0.01,
        now=stage.now,
    )
    add_watch(server, watch)
    server.add_message_stream(LISTEN, listen)
    await server.start()
    stage.address = server.address
    try:
        yield stage
    finally:
        await server.stop(0)


async def _never() -> Any:
    raise AssertionError("nobody reads")


@pytest.fixture(params=["native", "grpcio"])
async def stage(request: pytest.FixtureRequest, organisation: Organisation) -> AsyncIterator[Stage]:
    async with staged(organisation, request.param) as made:
        yield made


async def test_reports_go_on_until_the_watcher_leaves(stage: Stage) -> None:
    async with watching(stage.organisation, stage.address, every(0.01)) as watcher:
        moments = [(await watcher.hear()).at.ToDatetime(UTC) for _ in range(3)]
        assert moments == sorted(set(moments))
        stage.channel.status.trouble = "later"
        while (await watcher.hear()).channels[0].trouble != "later":
            pass
        assert sample("eventhub_watchers") == 1
    await eventually(lambda: sample("eventhub_watchers") == 0)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (every(0.001), "no reports come every 0.001 s: ask for one every 0.01 to 86400 s"),
        (every(-1), "no reports come every -1 s"),
        (every(86401), "no reports come every 86401 s"),
        (WatchRequest(limit=MAX_CONSUMERS + 1), "no report tells of 1001 consumers: ask for 1000"),
    ],
)
async def test_request_without_sense_is_refused(
    stage: Stage, request_: WatchRequest, words: str
) -> None:
    async with watching(stage.organisation, stage.address, request_) as watcher:
        code, details = await watcher.ended()
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert words in details


async def test_user_who_is_no_administrator_is_refused(stage: Stage) -> None:
    user = stage.organisation.identity("user")
    async with watching(stage.organisation, stage.address, WatchRequest(), by=user) as watcher:
        code, details = await watcher.ended()
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert "is no administrator of Org1MSP" in details


async def test_administrator_of_another_organisation_is_refused(
    stage: Stage, stranger: Organisation
) -> None:
    other = stranger.identity("admin", "admin")
    async with watching(stage.organisation, stage.address, WatchRequest(), by=other) as watcher:
        code, details = await watcher.ended()
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "not of a member of Org1MSP" in details


async def test_request_of_another_connection_is_refused(stage: Stage) -> None:
    async with watching(stage.organisation, stage.address, WatchRequest(), bound=False) as watcher:
        code, details = await watcher.ended()
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "not bound to the TLS client certificate" in details


async def test_what_is_no_request_is_refused(stage: Stage) -> None:
    async with watching(stage.organisation, stage.address, b"\xff") as watcher:
        code, details = await watcher.ended()
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "request" in details


async def test_call_without_a_request_is_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, _ = dialled(stage.organisation, stage.address)
    async with opened, asyncio.timeout(PATIENCE):
        ask: Any = opened.stream_stream(METHOD)  # type: ignore[call-arg]  # raw messages
        empty = ask()
        await empty.done_writing()
        assert await empty.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert await empty.details() == "the call came without a request: send one"
        monkeypatch.setattr(seek, "FIRST_REQUEST_SECONDS", 0.05)
        silent = ask()
        assert await silent.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "no request came within 0.05 s: send one with the call" in await silent.details()


async def test_watcher_whose_certificate_expires_is_told_no_more(stage: Stage) -> None:
    async with watching(stage.organisation, stage.address, every(0.01)) as watcher:
        await watcher.hear()
        stage.ahead = timedelta(hours=1)
        code, details = await watcher.ended()
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "expired at" in details


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_no_more_watch_than_may(organisation: Organisation, transport: Transport) -> None:
    refused = sample("eventhub_watchers_refused_total")
    async with staged(organisation, transport, limit=1) as stage:
        async with watching(organisation, stage.address, every(600)) as first:
            await first.hear()
            assert sample("eventhub_watchers") == 1
            async with watching(organisation, stage.address, WatchRequest()) as second:
                code, details = await second.ended()
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details.startswith("TOO_MANY_WATCHERS: 1 watch the event hub already")
        assert "peer.events.maxWatchers" in details
        assert sample("eventhub_watchers_refused_total") == refused + 1
        await eventually(lambda: sample("eventhub_watchers") == 0)
        await report(organisation, stage.address)


async def test_reports_do_not_pile_up_for_a_watcher_that_does_not_read(stage: Stage) -> None:
    stage.channel.status.trouble = (1 << 20) * "x"
    request = every(0.01)
    async with watching(stage.organisation, stage.address, request, options=NARROW) as watcher:
        await eventually(lambda: stage.looks > 10)
        reads_from = datetime.now(UTC)
        assert (await watcher.hear()).at.ToDatetime(UTC) < reads_from
        assert (await watcher.hear()).at.ToDatetime(UTC) >= reads_from


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_watcher_that_does_not_read_for_long_loses_its_place(
    organisation: Organisation, transport: Transport
) -> None:
    async with staged(organisation, transport, send_timeout=0.05) as stage:
        stage.channel.status.trouble = (1 << 20) * "x"
        request = every(0.01)
        async with watching(organisation, stage.address, request, options=NARROW) as watcher:
            await eventually(lambda: stage.looks > 0)
            await eventually(lambda: sample("eventhub_watchers") == 0)
            code, details = await watcher.ended()
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details.startswith("SEND_TIMEOUT: this client has not taken a report for 0.05 s")


async def test_of_thousands_of_consumers_those_furthest_behind_are_told(stage: Stage) -> None:
    async with stage.consumers(1200):
        behind, waiting = stage.sessions[600:602]
        behind.blocks_behind = lambda: {CHANNEL: 7, "other": 1}
        waiting.blocks_behind = lambda: {CHANNEL: 1}
        some = await report(stage.organisation, stage.address)
        many = await report(stage.organisation, stage.address, MAX_CONSUMERS)
        few = await report(stage.organisation, stage.address, 3)
    assert [len(state.consumers) for state in (some, many, few)] == [CONSUMERS, MAX_CONSUMERS, 3]
    for state in (some, many, few):
        assert state.open == {"CHAT": 0, "DELIVER": 1200, "SUBSCRIBE": 0}
        first, second, third = state.consumers[:3]
        assert first.behind == {CHANNEL: 7, "other": 1}
        assert second.behind == {CHANNEL: 1}
        # Then who came first.
        oldest = min(session.since for session in stage.sessions)
        assert third.since.ToDatetime(UTC) == oldest


async def test_others_have_their_turn_while_consumers_are_looked_at(stage: Stage) -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with stage.consumers(300):
        other = asyncio.create_task(take_turns())
        await stage.states.take(200)
        other.cancel()
    assert turns >= 500 // CONSUMERS_A_TURN


async def test_long_list_of_interests_is_cut(stage: Stage) -> None:
    wanted = [f"\x1b{number}" + 300 * "x" for number in range(MAX_INTERESTS + 1)]
    async with stage.consumers(2):
        long, short = stage.sessions
        long.interests = lambda: wanted
        short.interests = lambda: wanted[:MAX_INTERESTS]
        state = await report(stage.organisation, stage.address)
    told = sorted(state.consumers, key=lambda consumer: consumer.more_interests)
    assert [consumer.more_interests for consumer in told] == [False, True]
    for consumer in told:
        assert len(consumer.interests) == MAX_INTERESTS
        assert consumer.interests[0].startswith("\\x1b0x")
        assert consumer.interests[0].endswith("…")
        assert len(consumer.interests[0]) <= INTEREST_CHARACTERS + 4
