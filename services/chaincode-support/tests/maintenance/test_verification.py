"""What verifying finds, in sound channels and in others; nothing is changed by it."""

import asyncio
import datetime
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from testchannel import CHAINCODE, CHANNEL, Network, Service, writes
from volumes import (
    BLOCKS,
    PAGE,
    SETTINGS,
    changing,
    contents,
    damage_block,
    damage_page,
    fill,
    fingerprints,
    leave_room,
    order,
    quiet,
)

from chaincode_support.ledger import Ledger, LedgerUnusable
from chaincode_support.maintenance import stored_blocks
from chaincode_support.maintenance.errors import MaintenanceError, NoRoom, NothingThere, NotNow
from chaincode_support.maintenance.rebuilding import rebuild
from chaincode_support.maintenance.report import Report
from chaincode_support.maintenance.verification import verify
from chaincode_support.volume import ChannelFiles
from selvedge_common.protoutil import blocks, metadata
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2


def findings(files: ChannelFiles) -> list[tuple[str, str]]:
    """(folder of the file, what is wrong) of all that is found; the files stay as they are."""
    before = {file: file.read_bytes() for file in (files.ledger, files.ordering) if file.exists()}
    report = verify(files, quiet)
    assert {file: file.read_bytes() for file in before} == before
    assert report.sound == (not report.findings)
    return [(Path(finding.file).parent.name, finding.what) for finding in report.findings]


def test_a_sound_channel_is_sound(files: ChannelFiles) -> None:
    report = verify(files, quiet)
    assert report.findings == []
    assert (report.channel, report.blocks, report.ordered) == (CHANNEL, BLOCKS, BLOCKS)
    ledger = Ledger.open(files.ledger.parent, CHANNEL)
    assert report.last_block_hash == ledger.last_hash.hex()
    ledger.close()
    assert report.state_hash == fingerprints(files.ledger)["state"]
    # Its own folder is gone; SQLite may leave what lies beside a file that is open.
    assert {file.name for file in files.ledger.parent.iterdir()} <= {
        f"{CHANNEL}.sqlite{suffix}" for suffix in ("", "-wal", "-shm")
    }


def test_the_sound_channel_has_transactions_of_every_kind(files: ChannelFiles) -> None:
    codes = {
        transaction_pb2.TxValidationCode.Name(code)
        for _, _, marshalled in contents(files.ledger)["block"]
        if isinstance(marshalled, bytes)
        for code in metadata.validation_codes(blocks.parse_block(marshalled))
    }
    assert codes == {
        "VALID",
        "MVCC_READ_CONFLICT",
        "PHANTOM_READ_CONFLICT",
        "DUPLICATE_TXID",
        "BAD_CREATOR_SIGNATURE",
        "INVALID_OTHER_REASON",
    }


def test_progress_is_told_block_by_block(files: ChannelFiles) -> None:
    told: list[tuple[str, int, int]] = []
    verify(files, lambda *step: told.append(step))
    for what in ("ordering log", "ledger"):
        steps = [step[1:] for step in told if step[0] == f"{CHANNEL}: blocks of the {what}"]
        assert steps == [(done, BLOCKS) for done in range(1, BLOCKS + 1)]


async def test_a_channel_is_sound_while_a_service_works_on_it(
    network: Network, tmp_path: Path
) -> None:
    files = ChannelFiles.on(tmp_path, CHANNEL)
    async with Service(network, tmp_path, SETTINGS) as service:
        await fill(service)

        async def write() -> None:
            while True:
                await order(service, network.transaction(writes(a=b"on", z=b"and on"))[1])

        writing = asyncio.create_task(write())
        reports: list[Report] = []
        while len(reports) < 8 or reports[-1].blocks < BLOCKS + 8:
            reports.append(await asyncio.to_thread(verify, files, quiet))
            assert not writing.done()
        writing.cancel()
    assert [report.findings for report in reports if report.findings] == []
    assert reports[0].blocks < reports[-1].blocks


async def test_a_ledger_may_be_behind_its_log(network: Network, tmp_path: Path) -> None:
    files = ChannelFiles.on(tmp_path, CHANNEL)
    async with Service(network, tmp_path, SETTINGS) as service:
        await fill(service)
        service.committing.cancel()
        await service.ordering.order(network.transaction(writes(a=b"later"))[1])
    report = verify(files, quiet)
    assert report.findings == []
    assert (report.blocks, report.ordered) == (BLOCKS, BLOCKS + 1)


async def test_blocks_stay_good_when_the_certificate_of_who_signed_them_expires(
    tmp_path: Path,
) -> None:
    network = Network()
    network.orderer = network.organisation.issue(
        "orderer", "orderer0", valid=-datetime.timedelta(minutes=1)
    )
    async with Service(network, tmp_path, SETTINGS) as service:
        await fill(service)
    assert findings(ChannelFiles.on(tmp_path, CHANNEL)) == []


@pytest.mark.parametrize("part", ["ledger", "ordering"])
def test_a_changed_block_is_named(files: ChannelFiles, part: str) -> None:
    damage_block(getattr(files, part), 2)
    found = findings(files)
    assert (part, "the data of block 2 does not fit its header") in found
    assert {where for where, _ in found} == {part}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            f"UPDATE state SET value = x'00' WHERE namespace = '{CHAINCODE}' AND key = 'a'",
            f"its state at {CHAINCODE}, a is not what its blocks say",
        ),
        (
            "UPDATE state SET block = 1 WHERE key = 'bb'",
            f"its state at {CHAINCODE}, bb is not what its blocks say",
        ),
        (
            "UPDATE state SET metadata = NULL",
            f"its state at {CHAINCODE}, a is not what its blocks say",
        ),
        (
            "INSERT INTO state (namespace, key, value, block, tx) "
            f"VALUES ('{CHAINCODE}', 'more', x'00', 1, 0)",
            f"its state at {CHAINCODE}, more is not what its blocks say",
        ),
        (
            "DELETE FROM history WHERE key = 'c' AND block = 1",
            f"its history at {CHAINCODE}, c, 1, 0 is not what its blocks say",
        ),
    ],
)
def test_what_does_not_follow_from_the_blocks_is_named(
    files: ChannelFiles, change: str, what: str
) -> None:
    with changing(files.ledger) as connection:
        connection.execute(change)
    assert findings(files) == [("ledger", what)]


def test_a_lost_transaction_id_is_named(files: ChannelFiles) -> None:
    with changing(files.ledger) as connection:
        (txid,) = connection.execute("SELECT txid FROM tx WHERE block = 1 LIMIT 1").fetchone()
        connection.execute("DELETE FROM tx WHERE txid = ?", (txid,))
    what = f"its index of transactions at {txid} is not what its blocks say"
    assert findings(files) == [("ledger", what)]


def test_a_changed_verdict_is_found(files: ChannelFiles) -> None:
    with changing(files.ledger) as connection:
        (marshalled,) = connection.execute("SELECT bytes FROM block WHERE number = 2").fetchone()
        block = blocks.parse_block(marshalled)
        codes = metadata.validation_codes(block)
        assert codes[0] == transaction_pb2.VALID
        metadata.set_validation_codes(block, [transaction_pb2.MVCC_READ_CONFLICT, *codes[1:]])
        connection.execute(
            "UPDATE block SET bytes = ? WHERE number = 2", (block.SerializeToString(),)
        )
    assert ("ledger", f"its state at {CHAINCODE}, a is not what its blocks say") in findings(files)


def test_a_block_without_verdicts_is_named(files: ChannelFiles) -> None:
    with changing(files.ledger) as connection:
        (marshalled,) = connection.execute("SELECT bytes FROM block WHERE number = 2").fetchone()
        block = blocks.parse_block(marshalled)
        block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER] = b""
        connection.execute(
            "UPDATE block SET bytes = ? WHERE number = 2", (block.SerializeToString(),)
        )
    assert findings(files) == [
        ("ledger", "block 2 has not one verdict for each of its transactions")
    ]


def test_a_verdict_that_a_transaction_cannot_have_is_named(files: ChannelFiles) -> None:
    with changing(files.ledger) as connection:
        (marshalled,) = connection.execute("SELECT bytes FROM block WHERE number = 2").fetchone()
        block = blocks.parse_block(marshalled)
        codes = metadata.validation_codes(block)
        assert codes[3] == transaction_pb2.INVALID_OTHER_REASON  # it has no id, and is in no index
        metadata.set_validation_codes(block, [*codes[:3], transaction_pb2.BAD_PAYLOAD])
        connection.execute(
            "UPDATE block SET bytes = ? WHERE number = 2", (block.SerializeToString(),)
        )
    what = "block 2 has a verdict on its transaction 3 that it cannot have"
    assert findings(files) == [("ledger", what)]


def test_a_signature_of_somebody_else_is_named(files: ChannelFiles, network: Network) -> None:
    with changing(files.ordering) as connection:
        (marshalled,) = connection.execute("SELECT bytes FROM block WHERE number = 3").fetchone()
        block = blocks.parse_block(marshalled)
        blocks.sign_block(block, network.stranger, 0)
        connection.execute(
            "UPDATE block SET bytes = ? WHERE number = 3", (block.SerializeToString(),)
        )
    [(where, what)] = findings(files)
    assert where == "ordering"
    assert what.startswith("block 3 has no signature of an orderer that holds, in its metadata SIG")


def test_a_first_block_needs_no_signature_as_none_has_in_fabric(files: ChannelFiles) -> None:
    for file in (files.ledger, files.ordering):
        with changing(file) as connection:
            query = "SELECT bytes FROM block WHERE number = 0"
            block = blocks.parse_block(connection.execute(query).fetchone()[0])
            for index in (common_pb2.SIGNATURES, common_pb2.LAST_CONFIG):
                unsigned = metadata.get_metadata(block, index)
                assert unsigned.signatures
                unsigned.ClearField("signatures")
                metadata.set_metadata(block, index, unsigned.SerializeToString())
            connection.execute(
                "UPDATE block SET bytes = ? WHERE number = 0", (block.SerializeToString(),)
            )
    assert findings(files) == []


def test_a_missing_block_is_named(files: ChannelFiles) -> None:
    with changing(files.ordering) as connection:
        connection.execute("DELETE FROM block WHERE number = 3")
    assert findings(files) == [("ordering", "block 3 is missing")]


def test_a_damaged_number_does_not_keep_anybody_waiting(files: ChannelFiles) -> None:
    for file in (files.ledger, files.ordering):
        with changing(file) as connection:
            connection.execute("UPDATE block SET number = ? WHERE number = 5", (1 << 60,))
    found = findings(files)
    for part in ("ledger", "ordering"):
        assert [what for where, what in found if where == part][:2] == [
            "block 5 is missing",
            "block 6 is missing",
        ]


def test_a_log_that_ends_before_its_ledger_is_named(files: ChannelFiles) -> None:
    with changing(files.ordering) as connection:
        connection.execute("DELETE FROM block WHERE number >= 4")
    what = f"it ends before block 4, and the ledger has {BLOCKS} blocks"
    assert findings(files) == [("ordering", what)]


async def test_a_ledger_of_another_chain_is_named(
    files: ChannelFiles, network: Network, tmp_path: Path
) -> None:
    async with Service(network, tmp_path / "other", SETTINGS) as service:
        await fill(service)
    (tmp_path / "other" / "ledger" / f"{CHANNEL}.sqlite").replace(files.ledger)
    found = findings(files)
    assert found[0] == ("ledger", "block 0 is not that of the ordering log")
    assert {where for where, _ in found} == {"ledger"}


@pytest.mark.parametrize("part", ["ledger", "ordering"])
def test_a_block_that_is_none_is_named(files: ChannelFiles, part: str) -> None:
    with changing(getattr(files, part)) as connection:
        connection.execute("UPDATE block SET bytes = x'ff' WHERE number = 2")
    what = "block 2 is damaged: its bytes are not those of a block"
    assert (part, what) in findings(files)


@pytest.mark.parametrize("part", ["ledger", "ordering"])
def test_a_missing_file_is_named(files: ChannelFiles, part: str) -> None:
    getattr(files, part).unlink()
    assert findings(files) == [(part, "it is missing")]


@pytest.mark.parametrize("part", ["ledger", "ordering"])
@pytest.mark.parametrize("content", [b"", b"no database" * 1000])
def test_a_file_of_something_else_is_named(files: ChannelFiles, part: str, content: bytes) -> None:
    getattr(files, part).write_bytes(content)
    what = (
        "it is no database, or its first page is damaged (SQLite says: file is not a database)"
        if content
        else "it holds no blocks"
    )
    assert findings(files) == [(part, what)]


def test_the_ledger_of_another_channel_is_named(files: ChannelFiles) -> None:
    with changing(files.ledger) as connection:
        connection.execute("UPDATE channel SET name = 'another'")
    [(where, what)] = findings(files)
    assert where == "ledger"
    assert "it says that it is of channel" in what
    assert "another" in what


def test_many_findings_are_cut_short(files: ChannelFiles) -> None:
    with changing(files.ledger) as connection:
        connection.execute("DELETE FROM history")
        connection.execute("DELETE FROM tx")
    found = findings(files)
    assert len(found) == 11
    assert found[-1] == ("ledger", "there is more, which is not told")


def test_no_channel_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(NothingThere, match=r"no channel mychannel: .* are missing"):
        verify(ChannelFiles.on(tmp_path, CHANNEL), quiet)


@pytest.mark.parametrize("part", ["ledger", "ordering"])
def test_a_file_of_a_later_release_is_no_damage(files: ChannelFiles, part: str) -> None:
    with changing(getattr(files, part)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(MaintenanceError, match=r"has schema 99; .*use the release that wrote it"):
        verify(files, quiet)


def test_a_locked_file_is_no_damage(files: ChannelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_blocks, "BUSY_TIMEOUT_MS", 0)
    with closing(sqlite3.connect(files.ledger, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(NotNow, match=r"cannot be read now: database is locked"):
            verify(files, quiet)


def test_a_disk_without_room_for_the_comparison_is_said(
    files: ChannelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_room(monkeypatch, 10_000)
    told: list[str] = []
    with pytest.raises(NoRoom, match=rf"The disk of {tmp_path} has 0 MB left, and 1 MB are needed"):
        verify(files, lambda what, *_: told.append(what), tmp_path)
    assert told == [], "what takes long was done before"


def test_a_small_ledger_needs_a_small_disk(
    files: ChannelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_room(monkeypatch, 1 << 20)
    assert verify(files, quiet).sound
    assert rebuild(files, quiet, force=False).blocks == BLOCKS


@pytest.mark.parametrize("part", ["ledger", "ordering"])
def test_what_sqlite_says_comes_after_a_sentence_and_is_cut(files: ChannelFiles, part: str) -> None:
    file: Path = getattr(files, part)
    with changing(file) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'block'"
        ).fetchone()
    # Each entry of its list of cells leads out of the page.
    damage_page(file, root - 1, b"\x0d\x00\x00\x00\x40" + bytes(PAGE - 5))
    report = verify(files, quiet)
    told = [finding.what for finding in report.findings if finding.file == str(file)]
    assert told[0].startswith("its pages, indexes or types are damaged (SQLite says: ")
    assert "***" not in told[0]
    assert len(told[0]) < 260
    assert told[0].endswith("…)")


@pytest.mark.parametrize("part", ["ledger", "ordering"])
def test_a_file_without_its_tables_is_named(files: ChannelFiles, part: str) -> None:
    with changing(getattr(files, part)) as connection:
        connection.execute("DROP TABLE block")
    what = "it does not hold the tables that it should (SQLite says: no such table: block)"
    assert set(findings(files)) == {(part, what)}


@pytest.mark.parametrize("part", ["ledger", "ordering"])
def test_a_link_to_nothing_is_no_damage(files: ChannelFiles, tmp_path: Path, part: str) -> None:
    file: Path = getattr(files, part)
    file.unlink()
    file.symlink_to(tmp_path / "disk")
    with pytest.raises(LedgerUnusable, match=rf"{file} is a link to {tmp_path}/disk, where"):
        verify(files, quiet)
