"""`selvedge events --consumers` as one types it, against a hub that checks who signed."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cli.tests.good_listeners import EventHub, serving
from cli.tests.homes import Home
from click.testing import CliRunner

from selvedge_cli import ENVIRONMENT
from selvedge_cli.hub_table import table
from selvedge_cli.main import cli
from selvedge_common.comm import StatusError
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import (
    ChannelState,
    ConsumerState,
    HubState,
    ProducersState,
)

SELVEDGE = Path(sys.executable).with_name("selvedge")
AT = datetime(2030, 5, 1, 12, 0, 5, tzinfo=UTC)
NOBODY = "localhost:1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    home.add_user("user1")
    home.add_user("admin", unit="admin")
    return home


@pytest.fixture
def hub(home: Home) -> EventHub:
    return EventHub(home.msp, [busy()])


def command(home: Home, address: str, *words: str) -> list[str]:
    where = ["--home", str(home.path), "--events", address, "--ca", NOBODY]
    return [str(SELVEDGE), "events", "--consumers", *words, *where]


async def run(home: Home, address: str, *words: str) -> subprocess.CompletedProcess[str]:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(home, address, *words),
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=30,
        )

    return await asyncio.to_thread(run)


def consumer(
    service: ConsumerState.Service.ValueType, identity: str, minutes: float, **fields: object
) -> ConsumerState:
    usual = {"peer": "ipv4:127.0.0.1:50000", "identity": identity, "service": service}
    made = ConsumerState(**{**usual, **fields})  # type: ignore[arg-type]
    made.since.FromDatetime(AT - timedelta(minutes=minutes))
    return made


def busy() -> HubState:
    state = HubState(
        hub="event-hub",
        channels=[
            ChannelState(name="mychannel", height=120, source="peer:7051"),
            ChannelState(
                name="other", height=3, behind=2, trouble="the source p:1: a fork\x1b[31m"
            ),
        ],
        open={"CHAT": 2, "DELIVER": 1, "SUBSCRIBE": 0},
        waiting_events=12,
        waiting_bytes=4200,
        consumers=[
            consumer(
                ConsumerState.DELIVER,
                "Org1MSP/bea",
                90,
                interests=["mychannel from block 4: block"],
                behind={"mychannel": 116},
                delivered=4,
            ),
            consumer(
                ConsumerState.CHAT,
                "Org1MSP/ada",
                0.5,
                interests=["BLOCK on every channel", "CHAINCODE cc/\x1b[31m on every channel"],
                more_interests=True,
                waiting_events=12,
                waiting_bytes=4200,
                delivered=1000,
            ),
            consumer(ConsumerState.CHAT, "", 0),
        ],
        ended={"HALF_CLOSED": 7, "SLOW_CONSUMER": 1, "CLIENT_GONE": 7},
        producers=ProducersState(open=1, accepted=20, dropped={"BUFFER_FULL": 3, "MALFORMED": 1}),
    )
    state.started.FromDatetime(AT - timedelta(hours=30))
    state.at.FromDatetime(AT)
    return state


def test_channels_consumers_and_what_ended_are_told() -> None:
    assert list(table(busy())) == [
        "event-hub: up 1d 6h, at 12:00:05 UTC",
        "",
        "CHANNEL    HEIGHT  BEHIND  SOURCE",
        "mychannel     120       0  peer:7051",
        "other           3       2  none",
        "  the source p:1: a fork\\x1b[31m",
        "",
        "SERVICE  PEER                  IDENTITY     UP          WAITING          BEHIND  "
        "DELIVERED  INTERESTS",
        "deliver  ipv4:127.0.0.1:50000  Org1MSP/bea  1h 30m            -  mychannel: 116  "
        "        4  mychannel from block 4: block",
        "chat     ipv4:127.0.0.1:50000  Org1MSP/ada  30s     12 (4.2 kB)               -  "
        "     1000  BLOCK on every channel; CHAINCODE cc/\\x1b[31m on every channel; …",
        "chat     ipv4:127.0.0.1:50000  -            0s                -               -  "
        "        0",
        "",
        "3 consumers: 2 chat, 1 deliver; 4.2 kB wait for them",
        "ended since the start: 7 CLIENT_GONE, 7 HALF_CLOSED, 1 SLOW_CONSUMER",
        "producers: 1 open, 20 events taken, dropped: 3 BUFFER_FULL, 1 MALFORMED",
    ]


def test_hub_without_consumers_says_so() -> None:
    idle = HubState(hub="event-hub", channels=[ChannelState(name="mychannel")])
    assert list(table(idle))[-4:] == [
        "",
        "no consumers",
        "ended since the start: none",
        "producers: 0 open, 0 events taken, none dropped",
    ]


def test_those_left_out_are_counted() -> None:
    state = busy()
    del state.consumers[1:]
    assert "3 consumers: 2 chat, 1 deliver; 4.2 kB wait for them; above are the 1 that are " in (
        "\n".join(table(state))
    )


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (999, "999 B"),
        (1000, "1.0 kB"),
        (150_000, "150 kB"),
        (2_500_000, "2.5 MB"),
        (10**13, "10000 GB"),
    ],
)
def test_sizes_are_short(size: int, shown: str) -> None:
    state = busy()
    state.waiting_events, state.waiting_bytes = 0, size
    assert f"; {shown} wait for them" in "\n".join(table(state))


async def test_administrator_is_shown_the_consumers(home: Home, hub: EventHub) -> None:
    async with serving(home, hub.add_to) as address:
        shown = await run(home, address)
        as_json = await run(home, address, "--json", "--limit", "7")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines() == list(table(busy()))
    state = json.loads(as_json.stdout)
    assert state["hub"] == "event-hub"
    assert state["started"] == "2030-04-30T06:00:05+00:00"
    assert [each["name"] for each in state["channels"]] == ["mychannel", "other"]
    assert state["open"] == {"chat": 2, "deliver": 1, "subscribe": 0}
    first, second, _ = state["consumers"]
    assert (first["service"], first["behind"]) == ("deliver", {"mychannel": 116})
    assert (second["waiting_events"], second["more_interests"]) == (12, True)
    assert state["ended"]["SLOW_CONSUMER"] == 1
    assert state["producers"]["dropped"] == {"BUFFER_FULL": 3, "MALFORMED": 1}
    assert [asked.limit for asked in hub.asked] == [100, 7]
    assert [asked.interval.ToTimedelta() for asked in hub.asked] == [timedelta(0)] * 2


async def test_it_is_shown_again_until_the_hub_stops(home: Home, hub: EventHub) -> None:
    hub.states *= 3
    hub.farewell = StatusError(grpc.StatusCode.UNAVAILABLE, "the hub is shutting down")
    async with serving(home, hub.add_to) as address:
        shown = await run(home, address, "--every", "1s")
        as_json = await run(home, address, "--every", "1s", "--json")
    block = "\n".join(table(busy())) + "\n"
    assert shown.stdout == "\n".join([block] * 3)
    assert len(as_json.stdout.splitlines()) == 4  # the last one is the error
    assert shown.returncode == as_json.returncode == 1
    assert shown.stderr == (
        f"selvedge: the event hub at {address} answered: the hub is shutting down\n"
    )
    assert hub.asked[0].interval.ToTimedelta() == timedelta(seconds=1)


async def test_on_a_terminal_each_takes_the_place_of_the_one_before(
    home: Home, hub: EventHub
) -> None:
    hub.states *= 2
    reader, terminal = pty.openpty()
    environ = {**ENVIRONMENT, "LINES": "24", "COLUMNS": "200"}
    async with serving(home, hub.add_to) as address:
        process = await asyncio.create_subprocess_exec(
            *command(home, address, "--every", "1s"),
            stdout=terminal,
            stderr=subprocess.PIPE,
            env=environ,
        )
        await process.communicate()
    os.close(terminal)
    shown = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert shown.count("\x1b[2J") == 2
    assert shown.count("event-hub: up") == 2
    # What has room beside the other lines.
    assert hub.asked[0].limit == 12


async def test_who_is_no_administrator_is_told(home: Home, hub: EventHub) -> None:
    async with serving(home, hub.add_to) as address:
        refused = await run(home, address, "--user", "user1")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(
        f"selvedge: the event hub at {address} tells administrators alone: leave --user out, or "
        "give --user admin"
    )


async def test_hub_that_does_not_tell_is_told(home: Home) -> None:
    async with serving(home) as address:
        refused = await run(home, address)
    assert refused.returncode == 1
    assert f"the event hub at {address} does not tell of its consumers: it is" in refused.stderr
    assert "an older one" in refused.stderr


async def test_nobody_to_ask_is_one_sentence(home: Home) -> None:
    done = await run(home, NOBODY)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("selvedge: the event hub at localhost:1 does not answer")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--consumers", "--chaincode", "cc"], "--consumers shows the hub, and no events"),
        (["--every", "1s"], "--every and --limit go with --consumers"),
        (["--limit", "5"], "--every and --limit go with --consumers"),
        (["--consumers", "--limit", "1001"], "1001 is not in the range"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: list[str], sentence: str) -> None:
    refused = CliRunner().invoke(cli, ["events", *words])
    assert refused.exit_code == 2
    assert sentence in refused.output
