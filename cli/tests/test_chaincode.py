"""`selvedge chaincode` as one types it, against a server that checks who signed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cli.tests.good_listeners import Chaincodes, serving
from cli.tests.homes import Home
from cli.tests.wrong_listeners import listening, secured
from click.testing import CliRunner

from selvedge_cli import ENVIRONMENT
from selvedge_cli.chaincode_table import table
from selvedge_cli.durations import ago
from selvedge_cli.errors import CommandError
from selvedge_cli.main import cli
from selvedge_cli.package import read_package
from selvedge_common.comm import StatusError
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import Chaincode, Stream

SELVEDGE = Path(sys.executable).with_name("selvedge")
NOW = datetime.now(UTC)
NOBODY = "localhost:1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    home.add_user("user1")
    home.add_user("admin", unit="admin")
    return home


@pytest.fixture
def chaincodes(home: Home) -> Chaincodes:
    return Chaincodes(home.msp)


async def run(home: Home, address: str, *words: str) -> subprocess.CompletedProcess[str]:
    where = ["--home", str(home.path), "--peer", address, "--ca", NOBODY]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SELVEDGE, "chaincode", *words, *where],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=30,
        )

    return await asyncio.to_thread(run)


def stream(
    name: str, *, state: Stream.State.ValueType = Stream.READY, hours: float = 1, completed: int = 3
) -> Stream:
    stream = Stream(registered_name=name, peer="ipv4:127.0.0.1:50000", state=state)
    stream.since.FromDatetime(NOW - timedelta(hours=hours))
    stream.completed = completed
    return stream


def failing() -> Chaincode:
    chaincode = Chaincode(
        name="asset-transfer",
        version="1.0",
        launcher=Chaincode.EXTERNAL,
        streams=[stream("asset-transfer:1.0", hours=2.05)],
        running=1,
        completed=120,
        failed=2,
        last_error="there is no asset a1\x1b[31m",
    )
    chaincode.last_error_at.FromDatetime(NOW - timedelta(minutes=3))
    return chaincode


def changing() -> Chaincode:
    return Chaincode(
        name="mycc",
        version="2.0",
        launcher=Chaincode.EXTERNAL,
        streams=[stream("mycc:2.0"), stream("mycc:1.0", state=Stream.DRAINING, hours=26)],
    )


ALL = [
    failing(),
    changing(),
    Chaincode(
        name="served",
        launcher=Chaincode.SERVICE,
        package_id="served:0123",
        launcher_state="dials it again in 4 s",
        init_required=True,
    ),
    Chaincode(name="lscc", launcher=Chaincode.SYSTEM),
]


def test_chaincodes_are_aligned_with_their_streams_and_troubles_below() -> None:
    assert list(table(ALL, NOW)) == [
        "NAME            VERSION  STARTED BY       STATE                UP     RUNNING  COMPLETED  "
        "FAILED",
        "asset-transfer  1.0      others           ready                2h 3m        1        120  "
        "     2",
        "  last error, 3m ago: there is no asset a1\\x1b[31m",
        "mycc            2.0      others           1 ready, 1 draining  1d 2h        0          0  "
        "     0",
        "  mycc:2.0 at ipv4:127.0.0.1:50000: ready, up 1h, 0 running, 3 completed, 0 failed",
        "  mycc:1.0 at ipv4:127.0.0.1:50000: draining, up 1d 2h, 0 running, 3 completed, 0 failed",
        "served          -        others, dialled  not connected        -            0          0  "
        "     0",
        "  its Init comes first, once a version: chaincode.initRequired",
        "  package served:0123",
        "  dials it again in 4 s",
        "lscc            -        -                part of the peer     -            0          0  "
        "     0",
    ]


def test_chaincode_whose_only_stream_is_not_ready_has_a_line_for_it() -> None:
    hanging = Chaincode(name="mycc", streams=[stream("mycc:1", state=Stream.UNRESPONSIVE)])
    _, row, below = table([hanging], NOW)
    assert "unresponsive" in row
    assert below.startswith("  mycc:1 at ipv4:127.0.0.1:50000: unresponsive, up 1h")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0s"), (0, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h"), (90061, "1d 1h")],
)
def test_time_ago_is_told_in_two_units(seconds: int, said: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == said


async def test_list_tells_every_chaincode(home: Home, chaincodes: Chaincodes) -> None:
    chaincodes.known = ALL
    async with serving(home, chaincodes.add_to) as address:
        listed = await run(home, address, "list")
        as_json = await run(home, address, "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines() if line[0] != " "] == [
        *("NAME", "asset-transfer", "mycc", "served", "lscc")
    ]
    records = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [record["name"] for record in records] == ["asset-transfer", "mycc", "served", "lscc"]
    assert records[0]["last_error_at"].startswith(f"{NOW - timedelta(minutes=3):%Y-%m-%dT%H:%M}")
    assert [each["state"] for each in records[1]["streams"]] == ["ready", "draining"]
    assert records[2]["launcher"] == "service"
    assert records[2]["last_error_at"] is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mycc"
    folder.mkdir()
    (folder / "metadata.json").write_text('{"type": "ccaas", "label": "mycc"}')
    (folder / "connection.json").write_text('{"address": "localhost:9999"}')
    return folder


def test_folder_is_packed_as_fabric_has_it_and_always_alike(folder: Path, tmp_path: Path) -> None:
    index = folder / "META-INF" / "statedb" / "couchdb" / "indexes" / "owner.json"
    index.parent.mkdir(parents=True)
    index.write_text("{}")
    (folder / "notes.txt").write_text("not a part of it")
    package = read_package(folder)
    with tarfile.open(fileobj=io.BytesIO(package)) as outer:
        assert outer.getnames() == ["metadata.json", "code.tar.gz"]
        code = outer.extractfile("code.tar.gz")
        assert code is not None
        with tarfile.open(fileobj=io.BytesIO(code.read())) as inner:
            assert inner.getnames() == [
                "connection.json",
                "META-INF/statedb/couchdb/indexes/owner.json",
            ]
    elsewhere = tmp_path / "copy"
    shutil.copytree(folder, elsewhere)
    os.utime(elsewhere / "metadata.json", (0, 0))
    assert read_package(elsewhere) == package


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("metadata.json", None, r"there is no .*metadata\.json: write it as"),
        ("metadata.json", "label", "metadata.json holds no JSON object"),
        ("metadata.json", "[]", "metadata.json holds no JSON object"),
        ("metadata.json", "{}", "metadata.json has no type and no label: write it as"),
        ("connection.json", None, r"there is no .*connection\.json: write it as"),
        ("connection.json", "{}", "connection.json has no address: write it as"),
    ],
)
def test_folder_that_makes_no_package_is_told_why(
    folder: Path, file: str, content: str | None, sentence: str
) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(CommandError, match=sentence):
        read_package(folder)


def test_file_that_is_no_package_is_told(folder: Path) -> None:
    with pytest.raises(CommandError, match=r"metadata\.json is no package, which is a \.tar\.gz"):
        read_package(folder / "metadata.json")


async def test_folder_or_package_is_installed_by_the_administrator(
    home: Home, chaincodes: Chaincodes, folder: Path, tmp_path: Path
) -> None:
    package = tmp_path / "mycc.tar.gz"
    package.write_bytes(read_package(folder))
    async with serving(home, chaincodes.add_to) as address:
        installed = await run(home, address, "install", str(folder))
        again = await run(home, address, "install", str(package), "--json")
    assert installed.returncode == 0, installed.stderr
    assert installed.stdout.startswith("installed mycc as mycc:0123abcd\nNext: start")
    assert json.loads(again.stdout) == {"package_id": "mycc:0123abcd", "name": "mycc"}
    assert chaincodes.installed == [package.read_bytes()] * 2


async def test_package_is_removed_by_the_administrator(home: Home, chaincodes: Chaincodes) -> None:
    async with serving(home, chaincodes.add_to) as address:
        removed = await run(home, address, "remove", "mycc:0123abcd")
    assert (removed.returncode, removed.stdout) == (0, "removed mycc:0123abcd\n")
    assert chaincodes.removed == ["mycc:0123abcd"]


async def test_another_user_may_not(home: Home, chaincodes: Chaincodes) -> None:
    async with serving(home, chaincodes.add_to) as address:
        refused = await run(home, address, "remove", "mycc:0123abcd", "--user", "user1")
    assert refused.returncode == 1
    assert "PERMISSION_DENIED: CN=user1,OU=client of Org1MSP is no administrator" in refused.stderr
    assert chaincodes.removed == []


async def test_refusal_of_the_peer_is_one_sentence(home: Home, chaincodes: Chaincodes) -> None:
    chaincodes.refusal = StatusError(grpc.StatusCode.NOT_FOUND, "there is no package a:b")
    async with serving(home, chaincodes.add_to) as address:
        refused = await run(home, address, "remove", "a:b", "--json")
    assert refused.returncode == 1
    assert refused.stderr == (
        f"selvedge: the peer at {address} refused: NOT_FOUND: there is no package a:b\n"
    )
    assert json.loads(refused.stdout).keys() == {"error"}


async def test_peer_that_does_not_tell_of_chaincodes_is_told(home: Home) -> None:
    async with serving(home) as address:
        refused = await run(home, address, "list")
    assert refused.returncode == 1
    assert "does not tell of its chaincodes: it is another one than Selvedge's" in refused.stderr


async def test_nobody_to_ask_is_one_sentence(home: Home) -> None:
    done = await run(home, NOBODY, "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("selvedge: the peer at localhost:1 does not answer")


async def test_peer_that_stops_is_heard(home: Home, chaincodes: Chaincodes) -> None:
    chaincodes.refusal = StatusError(grpc.StatusCode.UNAVAILABLE, "the peer is stopping: try again")
    async with serving(home, chaincodes.add_to) as address:
        done = await run(home, address, "list")
    assert (done.returncode, done.stderr) == (
        1,
        f"selvedge: the peer at {address} answered: the peer is stopping: try again\n",
    )


async def test_peer_that_hangs_up_does_not_answer(home: Home, tmp_path: Path) -> None:
    hanging_up = secured(home.tls.issue("service"), tmp_path, talk=lambda _: None)
    with listening(hanging_up) as address:
        done = await run(home, address, "list")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"selvedge: the peer at {address} does not answer (it ended the connection): see"
    )


@pytest.mark.parametrize("command", ["list", "install", "remove"])
def test_help_gives_an_example_and_the_exit_statuses(command: str) -> None:
    shown = CliRunner().invoke(cli, ["chaincode", command, "--help"])
    assert shown.exit_code == 0, shown.output
    assert f"Example: selvedge chaincode {command}" in shown.output
    assert "Exit status:" in shown.output
