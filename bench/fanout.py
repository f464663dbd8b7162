"""Events from the hub to its consumers, beside the same messages sent by nothing but our server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench import load_client
from bench.client import NAME
from bench.comparison import Subject, Tally, compare
from bench.event_source import EVENT
from bench.hub_process import HubProcess, hub_process
from bench.load_client import LoadClient, Round
from bench.process import Program, module
from bench.progress import say
from bench.row import Row, verdict
from bench.site import Site
from selvedge_common.protoutil.seek_request import FOREVER, NEWEST
from selvedge_protos.peer.chaincode_event_pb2 import ChaincodeEvent
from selvedge_protos.peer.events_pb2 import Event

CHAT, DELIVER = "Events/Chat", "Deliver"
METHODS = {CHAT: "/protos.Events/Chat", DELIVER: "/protos.Deliver/Deliver"}
SECURITIES = ("plaintext", "mTLS")
CONSUMERS = (1, 10, 100, 1000)
SIZES = (1, 10, 100)
"""KB of an event's payload, or of a block."""
BLOCK = 100
"""KB of events in a block, but one in any case."""
RATE_AIM = 0.85
"""Of raw, from ten consumers on."""
CPU_AIM = 6.0
"""Microseconds for an event of 1 KB to each of 100 consumers, in plaintext."""
_MESSAGES_A_SECOND, _BYTES_A_SECOND = 150_000, 300_000_000
"""What a round of so long has at most: about what there is time for."""


@dataclass(frozen=True)
class Load:
    """What is sent, by whom and to how many.

    Attributes:
        service: what the consumers call.
        secure: behind mTLS.
        size: KB of an event, or of a block.
        consumers: each has a connection of its own.
    """

    service: str
    secure: bool
    size: int
    consumers: int

    @property
    def group(self) -> str:
        """Of its row."""
        return f"fan-out, {self.service}, {SECURITIES[self.secure]}"

    @property
    def name(self) -> str:
        """Of its row."""
        to = f"{self.consumers:,} consumers" if self.consumers > 1 else "1 consumer"
        return f"{self.size} KB to {to}"

    @property
    def each(self) -> int:
        """Events of a block."""
        return max(1, BLOCK // self.size) if self.service == CHAT else 1

    def blocks(self, seconds: float) -> int:
        """How many a round has that is to take about so long."""
        size = self.size * 1024
        deliveries = seconds * min(_MESSAGES_A_SECOND, _BYTES_A_SECOND / size)
        return max(1, round(deliveries / self.consumers / self.each))


async def measure(site: Site) -> list[Row]:
    """Every service, size and number of consumers, in plaintext and behind mTLS."""
    rows = []
    async with module("transport_server", "native", site.house.home / "event-hub" / "tls") as raw:
        addresses = (await raw.line()).split()
        for secure, address in enumerate(addresses):
            async with hub_process(site.house, secure=bool(secure)) as hub:
                for service in METHODS:
                    for size in SIZES:
                        for consumers in CONSUMERS:
                            load = Load(service, bool(secure), size, consumers)
                            say(f"{load.group}, {load.name}")
                            rows.append(await _row(site, hub, raw, address, load))
    return rows


async def _row(site: Site, hub: HubProcess, raw: Program, raw_address: str, load: Load) -> Row:
    seconds, size = site.effort.round_seconds, _message_size(load)
    async with (
        consumers_of(site, hub, METHODS[load.service], load.consumers) as consumers,
        load_client.load_client(
            *("fanout", raw_address),
            built=site.load,
            tls=site.user_tls if load.secure else None,
            connections=load.consumers,
            size=size,
        ) as others,
    ):
        subjects = {
            "ours": Subject(hub.pid, _publishing(hub, consumers, load, seconds)),
            "raw": Subject(raw.pid, others.rounds(seconds)),
        }
        tallies = await compare(subjects, site.effort.rounds)
    return _beside_raw(load, tallies["ours"], tallies["raw"])


def consumers_of(
    site: Site,
    hub: HubProcess,
    method: str,
    count: int,
    *,
    streams: int = 1,
    chaincode: str = NAME,
) -> load_client.Running:
    """Consumers of a chaincode's events, or of blocks, that are waiting for the next.

    Args:
        count: connections.
        streams: on each of them.
        chaincode: whose events, if it is not blocks.
    """
    client, chat = site.client, method == METHODS[CHAT]
    request = client.registration(chaincode) if chat else client.seek(NEWEST, FOREVER)
    return site.load_client(
        *("follow", hub.address, method),
        connections=count,
        streams=streams,
        request=request,
        secure=hub.secure,
    )


def _publishing(
    hub: HubProcess, consumers: LoadClient, load: Load, seconds: float
) -> Callable[[float], Awaitable[Round]]:
    """What has the source append blocks, and the consumers read all that comes of them."""

    async def publish(part: float) -> Round:
        blocks = load.blocks(part * seconds)
        size = load.size * 1024
        if load.service == CHAT:
            await hub.source("events", blocks, load.each, size)
        else:
            await hub.source("blocks", blocks, size)
        reading = asyncio.create_task(consumers.round(blocks * load.each))
        await hub.source("release")
        return await reading

    return publish


def _message_size(load: Load) -> int:
    """Bytes of what a consumer is sent."""
    size = load.size * 1024
    if load.service == DELIVER:
        return size
    event = ChaincodeEvent(chaincode_id=NAME, tx_id=64 * "0", event_name=EVENT, payload=bytes(size))
    return Event(chaincode_event=event).ByteSize()


def _beside_raw(load: Load, ours: Tally, raw: Tally) -> Row:
    notes = []
    if load.consumers >= 10:
        notes.append(verdict(f"≥ {RATE_AIM:g}", ours.rate / raw.rate >= RATE_AIM))
    if (load.secure, load.size, load.consumers) == (False, 1, 100):
        notes.append(verdict(f"≤ {CPU_AIM:g} µs", ours.cpu_each <= CPU_AIM))
    return Row(
        load.group,
        load.name,
        ours.rate,
        "/s",
        raw.rate,
        cpu=ours.cpu_each,
        raw_cpu=raw.cpu_each,
        note="; ".join(notes),
    )
