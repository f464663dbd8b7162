"""What the event hub tells of its channels and its consumers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable

import grpc
import pytest
from cli.tests.doctor.conftest import Examined
from cli.tests.good_listeners import EventHub, serving
from cli.tests.homes import Home

from selvedge_cli.addresses import Addresses
from selvedge_cli.doctor import hub
from selvedge_cli.doctor.findings import Finding, Severity
from selvedge_common.comm import StatusError
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import ChannelState, HubState

Find = Callable[[str], Awaitable[list[Finding]]]


@pytest.fixture
def event_hub(home: Home) -> EventHub:
    return EventHub(home.msp)


@pytest.fixture
def find(examined: Examined) -> Find:
    async def find(address: str) -> list[Finding]:
        installation = examined(addresses=Addresses(events=address))
        return await asyncio.to_thread(lambda: list(hub.examine(installation)))

    return find


async def test_hub_that_does_well(find: Find, home: Home, event_hub: EventHub) -> None:
    channels = [ChannelState(name="mychannel", height=7, source="localhost:7051", behind=1)]
    event_hub.states = [HubState(channels=channels, ended={"CLIENT_GONE": 5})]
    async with serving(home, event_hub.add_to) as address:
        assert await find(address) == []


async def test_channel_that_is_not_read_is_told(
    find: Find, home: Home, event_hub: EventHub
) -> None:
    trouble = "the source peer:7051: connection refused"
    channels = [
        ChannelState(name="mychannel", height=7, trouble=trouble),
        ChannelState(name="new", trouble=trouble),
    ]
    event_hub.states = [HubState(channels=channels)]
    async with serving(home, event_hub.add_to) as address:
        found, new = await find(address)
    assert (found.severity, found.where) == (Severity.ERROR, "event hub, channel mychannel")
    assert found.what == f"it is not read beyond block 6: {trouble}"
    assert new.what == f"it is not read: {trouble}"


async def test_clients_that_do_not_read_are_told(
    find: Find, home: Home, event_hub: EventHub
) -> None:
    event_hub.states = [HubState(ended={"SLOW_CONSUMER": 2, "SEND_TIMEOUT": 1})]
    async with serving(home, event_hub.add_to) as address:
        (found,) = await find(address)
    assert (found.severity, found.where) == (Severity.NOTE, "event hub")
    assert found.what.startswith("3 streams ended since it started")


async def test_hub_that_does_not_tell_is_noted(find: Find, home: Home) -> None:
    async with serving(home) as address:
        (found,) = await find(address)
    assert found.severity == Severity.NOTE
    assert "does not tell of its consumers" in found.what


async def test_hub_that_refuses_is_a_warning(find: Find, home: Home, event_hub: EventHub) -> None:
    event_hub.farewell = StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS: 10")
    async with serving(home, event_hub.add_to) as address:
        (found,) = await find(address)
    assert found.severity == Severity.WARNING
    assert "refused: RESOURCE_EXHAUSTED: TOO_MANY_WATCHERS" in found.what


async def test_what_others_explain_is_not_told_twice(
    find: Find, home: Home, event_hub: EventHub
) -> None:
    assert await find("localhost:1") == []
    event_hub.farewell = StatusError(grpc.StatusCode.UNAVAILABLE, "it stops")
    async with serving(home, event_hub.add_to) as address:
        assert await find(address) == []
        assert len(event_hub.asked) == 1
        # Nobody there whom it would tell.
        shutil.rmtree(home.path / "crypto" / "users" / "admin")
        assert await find(address) == []
    assert len(event_hub.asked) == 1
