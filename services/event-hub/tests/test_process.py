"""The hub as a process: what its user types, and how it begins and ends."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from eventhouse import House

from event_hub import config as configuration
from selvedge_common.config import ConfigError

PATIENCE = 20.0
BROKEN = b"-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def run(*arguments: str, **environ: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "event_hub",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | environ,
    )
    async with asyncio.timeout(PATIENCE):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@asynccontextmanager
async def running(house: House, operations: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "event_hub",
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ
        | {
            "CORE_PEER_EVENTS_ADDRESS": "127.0.0.1:0",
            "CORE_PEER_FILESYSTEMPATH": str(house.folder),
            "CORE_SOURCE_ADDRESSES": house.peer.address,
            "CORE_OPERATIONS_LISTENADDRESS": f"127.0.0.1:{operations}",
        },
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def ask(house: House, port: int, path: str) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=house.folder / "tls/ca.crt")
    # The roots of these tests are plainer than the strict profile of the web wants them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    connection = HTTPSConnection("localhost", port, timeout=5, context=context)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


async def until_read(house: House, port: int, height: int) -> None:
    """Wait until the process is healthy and has read so many blocks."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                health, _ = await asyncio.to_thread(ask, house, port, "/healthz")
                _, metrics = await asyncio.to_thread(ask, house, port, "/metrics")
            except OSError:
                health, metrics = 0, ""
            if health == 200 and f'height{{channel="mychannel"}} {height}.0' in metrics:
                return
            await asyncio.sleep(0.02)


async def test_killed_process_goes_on_where_it_was_and_a_told_one_ends_well(house: House) -> None:
    port = free_port()
    async with running(house, port) as process:
        await until_read(house, port, 1)
        async with asyncio.timeout(PATIENCE):
            while not (house.folder / "checkpoints/mychannel.json").exists():
                await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
    await house.ledger.commit(house.ledger.transaction())
    async with running(house, port) as process:
        await until_read(house, port, 2)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
    # The block that was read last, the newest, and the one that is new.
    assert house.peer.streams[-1] == 3


async def test_source_with_less_than_was_read_shows_in_healthz(house: House) -> None:
    """As after a ledger was restored from an old backup, or replaced."""
    position = {"channel": "mychannel", "number": 9, "hash": "00"}
    file = house.folder / "checkpoints/mychannel.json"
    file.parent.mkdir()
    file.write_text(json.dumps(position))
    port = free_port()
    async with running(house, port), asyncio.timeout(PATIENCE):
        status, body = 0, ""
        while '"component": "source"' not in body:
            with contextlib.suppress(OSError):
                status, body = await asyncio.to_thread(ask, house, port, "/healthz")
            await asyncio.sleep(0.02)
    assert status == 503
    assert "up to block 9" in body
    assert "ends at block 0" in body


async def test_help_has_an_example() -> None:
    code, output = await run("--help")
    assert code == 0
    assert "CORE_PEER_FILESYSTEMPATH=" in output
    assert "--config FILE" in output


async def test_mistake_in_a_setting_ends_it_with_one_sentence() -> None:
    code, output = await run(CORE_PEER_EVENTS_TIMEOUT="10")
    assert code == 1
    assert output.count("\n") == 1
    assert "CORE_PEER_EVENTS_TIMEOUT" in output


async def test_mistake_in_the_file_names_file_and_key(tmp_path: Path) -> None:
    file = tmp_path / "hub.yaml"
    file.write_text("peer: {events: {bufersize: 5}}")
    code, output = await run("--config", str(file))
    assert code == 1
    assert str(file) in output
    assert "buffersize" in output


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"not a certificate", "no certificate"), (BROKEN, "no certificate")],
)
async def test_client_roots_that_cannot_be_used_are_named_with_their_key(
    house: House, content: bytes | None, said: str
) -> None:
    roots = house.folder / "partner.pem"
    if content is not None:
        roots.write_bytes(content)
    code, output = await run(
        CORE_PEER_EVENTS_ADDRESS="127.0.0.1:0",
        CORE_PEER_FILESYSTEMPATH=str(house.folder),
        CORE_PEER_TLS_CLIENTROOTCAS_FILES=str(roots),
        CORE_OPERATIONS_LISTENADDRESS="127.0.0.1:0",
    )
    assert code == 1
    (sentence,) = [line for line in output.splitlines() if line.startswith("event-hub: ")]
    assert "Traceback" not in output
    assert "peer.tls.clientRootCAs.files" in sentence
    assert str(roots) in sentence
    assert said in sentence
    assert "PEM" in sentence


DURATIONS = [
    "peer.gracePeriod",
    "peer.events.timewindow",
    "peer.events.sendtimeout",
    "peer.events.keepalive.interval",
    "peer.events.keepalive.timeout",
    "peer.events.keepalive.minInterval",
    "source.answerTimeout",
    "source.reconnect.initial",
    "source.reconnect.max",
    "ca.timeout",
    "transport.handshakeTimeout",
    "peer.tls.reloadInterval",
]
SIZES = [
    "peer.events.maxRecvMsgSize",
    "peer.events.maxSendMsgSize",
    "peer.events.maxInterestBytes",
    "peer.events.outbox.maxBytes",
    "peer.events.outbox.totalBytes",
    "source.maxRecvMsgSize",
    "source.historyBytes",
    "transport.maxHeaderListSize",
    "transport.receiveWindow",
    "transport.receivingBytes",
    "transport.pendingBytes",
    "transport.totalPendingBytes",
    "transport.overheadBytes",
    "transport.unreadBytes",
]
COUNTS = [
    "peer.events.buffersize",
    "peer.events.bufferBytes",
    "peer.events.recentBytes",
    "peer.events.maxConsumers",
    "peer.events.maxInterests",
    "peer.events.maxProducers",
    "peer.events.maxWatchers",
    "peer.events.maxConcurrentStreams",
    "peer.events.outbox.maxEvents",
    "transport.maxConnections",
    "transport.resets",
]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in DURATIONS for value in ("0s", "-1s", "1us", "1000h")),
        *((key, value) for key in SIZES for value in ("0", "100", "2GB")),
        *((key, value) for key in COUNTS for value in ("0", "-1", "3000000000")),
        ("peer.events.timeout", "1000h"),
        *(("source.compareInterval", value) for value in ("-1s", "1us", "1000h")),
        ("peer.events.keepalive.maxStrikes", "-1"),
        ("peer.localMspId", " "),
        ("source.addresses", "localhost"),
        ("source.addresses", "localhost:7051,:7051"),
        ("source.addresses", "localhost:70510"),
        ("source.channels", "../up"),
        ("source.channels", 250 * "x"),
        ("source.reconnect.initial", "1m"),
        ("source.start", "middle"),
        ("transport.kind", "carrier pigeon"),
    ],
)
def test_settings_without_sense_are_refused_by_name(key: str, value: str) -> None:
    variable = "CORE_" + key.replace(".", "_").upper()
    with pytest.raises(ConfigError) as refused:
        configuration.read(None, {variable: value})
    assert variable in str(refused.value)
    assert key.rpartition(".")[2] in str(refused.value)


def test_every_duration_size_and_count_is_checked() -> None:
    """So that a new setting is not forgotten in the lists above."""

    def numbers(part: Any, path: str = "") -> Iterator[str]:
        for field in dataclasses.fields(part):
            value, name = getattr(part, field.name), f"{path}{field.name.replace('_', '')}".lower()
            if dataclasses.is_dataclass(value):
                yield from numbers(value, f"{name}.")
            elif isinstance(value, float | int) and not isinstance(value, bool):
                yield name

    zero_has_a_meaning = (
        "peer.events.timeout",
        "peer.events.keepalive.maxStrikes",
        "source.compareInterval",
    )
    listed = {key.lower() for key in (*DURATIONS, *SIZES, *COUNTS, *zero_has_a_meaning)}
    assert set(numbers(configuration.read(None, {}))) == listed


@pytest.mark.parametrize("value", ["-1s", "0s", "1us", "1m"])
def test_every_way_to_wait_for_room_can_be_set(value: str) -> None:
    configuration.read(None, {"CORE_PEER_EVENTS_TIMEOUT": value})


def test_packaged_settings_are_fabrics_where_fabric_has_them() -> None:
    events = configuration.read(None, {}).peer.events
    fabric = (100, 0.01, 15 * 60.0, 60.0)
    ours = (events.buffersize, events.timeout, events.timewindow, events.sendtimeout)
    assert ours == fabric


async def test_sigterm_ends_it_while_it_waits_for_the_ca(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "event_hub",
        stderr=asyncio.subprocess.PIPE,
        env=os.environ
        | {
            "CORE_PEER_FILESYSTEMPATH": str(tmp_path),
            "CORE_CA_ENROLMENT": str(tmp_path / "nowhere.json"),
        },
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while b"waiting to enrol" not in await process.stderr.readline():
            pass
        process.terminate()
        assert await process.wait() == 0
