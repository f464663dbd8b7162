"""A ledger made again is what it was, whatever was damaged, as long as one file has each block."""

import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from testchannel import CHANNEL, Network, Service, code_names, writes
from volumes import (
    BLOCKS,
    SETTINGS,
    changing,
    contents,
    damage_block,
    fill,
    fingerprints,
    order,
    quiet,
)

from chaincode_support.ledger import LedgerInUse, LedgerUnusable
from chaincode_support.maintenance.errors import BlockLost, NothingThere, TwoChains
from chaincode_support.maintenance.rebuilding import Rebuilt, rebuild
from chaincode_support.maintenance.verification import verify
from chaincode_support.volume import ChannelFiles, Claim, channels_on
from selvedge_common.protoutil import blocks, metadata
from selvedge_common.protoutil.errors import ValidationCode
from selvedge_protos.peer import transaction_pb2

VALID = transaction_pb2.VALID


@pytest.fixture
def before(sound: Path) -> dict[str, object]:
    """What the sound channel holds."""
    return holdings(ChannelFiles.on(sound, CHANNEL))


def holdings(files: ChannelFiles) -> dict[str, object]:
    return {
        "ledger": contents(files.ledger),
        "ordering": contents(files.ordering),
        "fingerprints": fingerprints(files.ledger),
    }


def drop_state(files: ChannelFiles) -> None:
    with changing(files.ledger) as connection:
        connection.execute("DELETE FROM state")
        connection.execute("DELETE FROM history")
        connection.execute("DROP INDEX block_hash")


def drop_index(files: ChannelFiles) -> None:
    with changing(files.ledger) as connection:
        connection.execute("DELETE FROM tx WHERE block = 1")


def change_a_verdict(files: ChannelFiles) -> None:
    with changing(files.ledger) as connection:
        (marshalled,) = connection.execute("SELECT bytes FROM block WHERE number = 2").fetchone()
    codes = metadata.validation_codes(blocks.parse_block(marshalled))
    assert codes[0] == VALID
    set_codes(files, 2, [transaction_pb2.MVCC_READ_CONFLICT, *codes[1:]])


def set_codes(files: ChannelFiles, number: int, codes: Sequence[ValidationCode]) -> None:
    """Change the verdicts in a block, and not those in the index."""
    with changing(files.ledger) as connection:
        query = "SELECT bytes FROM block WHERE number = ?"
        block = blocks.parse_block(connection.execute(query, (number,)).fetchone()[0])
        metadata.set_validation_codes(block, list(codes))
        connection.execute(
            "UPDATE block SET bytes = ? WHERE number = ?", (block.SerializeToString(), number)
        )


def cut_the_log(files: ChannelFiles) -> None:
    with changing(files.ordering) as connection:
        connection.execute("DELETE FROM block WHERE number >= 4")


def cut_the_ledger(files: ChannelFiles) -> None:
    with changing(files.ledger) as connection:
        connection.execute("DELETE FROM block WHERE number >= 4")


@pytest.mark.parametrize(
    ("harm", "judged", "recovered"),
    [
        (lambda files: None, 0, 0),
        (drop_state, 0, 0),
        # The first transaction's block, and the one that repeats it.
        (drop_index, 2, 0),
        (change_a_verdict, 1, 0),
        (lambda files: files.ledger.unlink(), BLOCKS, 0),
        (lambda files: files.ledger.write_bytes(b"no database" * 1000), BLOCKS, 0),
        (lambda files: damage_block(files.ledger, 2), 1, 0),
        (lambda files: damage_block(files.ordering, 0), 0, 1),
        (lambda files: damage_block(files.ordering, 3), 0, 1),
        (cut_the_log, 0, 2),
        (cut_the_ledger, 2, 0),
    ],
    ids=[
        "nothing",
        "state",
        "index",
        "verdict",
        "no ledger",
        "no database",
        "a block of the ledger",
        "the first block of the log",
        "a block of the log",
        "the end of the log",
        "the end of the ledger",
    ],
)
def test_what_was_damaged_is_as_it_was(
    files: ChannelFiles,
    before: dict[str, object],
    harm: Callable[[ChannelFiles], None],
    judged: int,
    recovered: int,
) -> None:
    harm(files)
    rebuilt = rebuild(files, quiet, force=False)
    assert rebuilt == Rebuilt(CHANNEL, BLOCKS, judged, recovered, 0)
    assert holdings(files) == before
    assert verify(files, quiet).findings == []


def test_different_blocks_damaged_in_both_files_are_all_there_again(
    files: ChannelFiles, before: dict[str, object]
) -> None:
    for number in (1, 4):
        damage_block(files.ledger, number)
    for number in (0, 2, 5):
        damage_block(files.ordering, number)
    assert rebuild(files, quiet, force=False) == Rebuilt(CHANNEL, BLOCKS, 2, 3, 0)
    assert holdings(files) == before


async def test_what_was_ordered_and_not_committed_is_committed(
    network: Network, tmp_path: Path
) -> None:
    files = ChannelFiles.on(tmp_path, CHANNEL)
    async with Service(network, tmp_path, SETTINGS) as service:
        await fill(service)
        service.committing.cancel()
        await service.ordering.order(network.transaction(writes(later=b"1"))[1])
    assert rebuild(files, quiet, force=False) == Rebuilt(CHANNEL, BLOCKS + 1, 1, 0, 0)
    assert verify(files, quiet).findings == []


async def test_a_transaction_that_is_valid_after_it_was_refused_keeps_its_verdicts(
    network: Network, tmp_path: Path
) -> None:
    """Of the two, which have one id, the index has the first."""
    files = ChannelFiles.on(tmp_path, CHANNEL)
    proposed = network.propose(b"x")
    refused, valid = (
        network.endorse(proposed, writes(a=value), endorsers=[endorser]).SerializeToString()
        for value, endorser in ((b"stolen", network.stranger), (b"1", network.peer))
    )
    async with Service(network, tmp_path, SETTINGS) as service:
        await order(service, refused, valid, valid)
        block = blocks.parse_block(service.ledger.block(1))
    assert code_names(bytes(metadata.validation_codes(block))) == [
        "ENDORSEMENT_POLICY_FAILURE",
        "VALID",
        "DUPLICATE_TXID",
    ]
    before = holdings(files)
    assert rebuild(files, quiet, force=False) == Rebuilt(CHANNEL, 2, 0, 0, 0)
    assert holdings(files) == before
    assert verify(files, quiet).findings == []


@pytest.mark.parametrize(
    ("codes", "in_index"),
    [
        # What had its endorsements makes each later one with its id a duplicate.
        ((transaction_pb2.MVCC_READ_CONFLICT, VALID), transaction_pb2.MVCC_READ_CONFLICT),
        ((VALID, VALID), VALID),
        # And these are not two that agree.
        ((transaction_pb2.INVALID_OTHER_REASON, VALID), transaction_pb2.BAD_PAYLOAD),
    ],
)
async def test_a_later_transaction_is_not_called_valid_against_the_index(
    network: Network,
    tmp_path: Path,
    codes: tuple[ValidationCode, ValidationCode],
    in_index: ValidationCode,
) -> None:
    files = ChannelFiles.on(tmp_path, CHANNEL)
    twice = network.transaction(writes(a=b"1"))[1]
    async with Service(network, tmp_path, SETTINGS) as service:
        await order(service, twice, twice)
    before = holdings(files)
    set_codes(files, 1, codes)
    with changing(files.ledger) as connection:
        connection.execute("UPDATE tx SET code = ? WHERE block = 1", (in_index,))
    assert rebuild(files, quiet, force=False) == Rebuilt(CHANNEL, 2, 1, 0, 0)
    assert holdings(files) == before


async def test_a_service_goes_on_with_it(
    files: ChannelFiles, network: Network, tmp_path: Path
) -> None:
    damage_block(files.ordering, 3)
    rebuild(files, quiet, force=False)
    async with Service(network, tmp_path / "volume", SETTINGS) as service:
        await order(service, network.transaction(writes(a=b"again"))[1])
    assert verify(files, quiet).blocks == BLOCKS + 1


def test_a_block_that_is_lost_in_both_is_given_up_only_if_that_is_said(
    files: ChannelFiles, tmp_path: Path
) -> None:
    damage_block(files.ledger, 4)
    damage_block(files.ordering, 4)
    damaged = [file.read_bytes() for file in (files.ledger, files.ordering)]
    with pytest.raises(
        BlockLost,
        match=r"Block 4 of channel mychannel is lost in both files: "
        rf"{files.ordering}: .*; {files.ledger}: .*\. Restore a backup, or give up",
    ):
        rebuild(files, quiet, force=False)
    assert [file.read_bytes() for file in (files.ledger, files.ordering)] == damaged
    rebuilt = rebuild(files, quiet, force=True)
    assert rebuilt == Rebuilt(CHANNEL, 4, 0, 0, BLOCKS - 4, rebuilt.kept)
    for file, kept, old in zip(
        (files.ordering, files.ledger), rebuilt.kept, reversed(damaged), strict=True
    ):
        assert re.fullmatch(rf"{file}\.damaged-\d{{8}}T\d{{6}}\.\d{{6}}Z", kept)
        assert Path(kept).read_bytes() == old
    assert channels_on(tmp_path / "volume") == [CHANNEL]
    report = verify(files, quiet)
    assert (report.findings, report.blocks, report.ordered) == ([], 4, 4)


def test_what_a_killed_service_had_not_moved_into_the_file_yet_is_kept_with_it(
    files: ChannelFiles,
) -> None:
    """What is kept can be read on: with the write-ahead log beside it."""
    damage_block(files.ledger, 4)
    with closing(sqlite3.connect(files.ordering, isolation_level=None)) as killed:
        killed.execute("PRAGMA wal_autocheckpoint = 0")
        killed.execute("UPDATE block SET bytes = x'00' WHERE number = 4")
        wal = files.ordering.with_name(f"{files.ordering.name}-wal")
        left = wal.read_bytes()
    wal.write_bytes(left)
    log, _ = rebuild(files, quiet, force=True).kept
    assert Path(f"{log}-wal").read_bytes() == left
    with closing(sqlite3.connect(log)) as kept:
        query = "SELECT count(*), length(min(bytes)) FROM block"
        assert kept.execute(query).fetchone() == (BLOCKS, 1)


def test_what_is_wrong_with_each_file_is_said_exactly(files: ChannelFiles) -> None:
    files.ledger.write_bytes(b"no database" * 1000)
    damage_block(files.ordering, 4)
    with pytest.raises(
        BlockLost, match=rf"Block 4 .*; {files.ledger}: it is no database.* Restore"
    ):
        rebuild(files, quiet, force=False)
    files.ordering.write_bytes(b"no database" * 1000)
    with pytest.raises(
        BlockLost, match=r"Neither file of channel mychannel can be read: .* the channel is empty"
    ):
        rebuild(files, quiet, force=False)
    rebuilt = rebuild(files, quiet, force=True)
    assert (rebuilt.blocks, len(rebuilt.kept)) == (0, 2)


@pytest.mark.parametrize("content", [None, b"no database" * 1000])
def test_a_lost_log_may_have_held_more_than_the_ledger(
    files: ChannelFiles, before: dict[str, object], content: bytes | None
) -> None:
    files.ordering.unlink()
    if content is not None:
        files.ordering.write_bytes(content)
    with pytest.raises(
        BlockLost, match=r"cannot be read: .* The ledger has 6 blocks; what was ord"
    ):
        rebuild(files, quiet, force=False)
    rebuilt = rebuild(files, quiet, force=True)
    assert rebuilt == Rebuilt(CHANNEL, BLOCKS, 0, BLOCKS, 0, rebuilt.kept)
    assert [Path(kept).read_bytes() for kept in rebuilt.kept] == ([content] if content else [])
    assert holdings(files) == before


async def test_files_of_two_chains_are_not_mixed(
    files: ChannelFiles, network: Network, tmp_path: Path
) -> None:
    async with Service(network, tmp_path / "other", SETTINGS) as service:
        await fill(service)
    (tmp_path / "other" / "ledger" / f"{CHANNEL}.sqlite").replace(files.ledger)
    with pytest.raises(TwoChains, match=r"Block 0 of the ledger .* they are of two chains"):
        rebuild(files, quiet, force=True)


def test_a_channel_in_use_is_left_alone(files: ChannelFiles) -> None:
    claim = Claim(files, "a running chaincode-support")
    with pytest.raises(LedgerInUse, match="in use by a running chaincode-support"):
        rebuild(files, quiet, force=False)
    claim.release()
    rebuild(files, quiet, force=False)


def test_no_channel_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(NothingThere, match=r"no channel mychannel: .* are missing"):
        rebuild(ChannelFiles.on(tmp_path, CHANNEL), quiet, force=False)


def test_a_link_to_nothing_is_not_replaced(files: ChannelFiles, tmp_path: Path) -> None:
    files.ledger.unlink()
    files.ledger.symlink_to(tmp_path / "disk" / "ledger.sqlite")
    with pytest.raises(LedgerUnusable, match=r"is a link to .*, where there is nothing: mount the"):
        rebuild(files, quiet, force=True)
    assert files.ledger.is_symlink()


def test_what_fails_leaves_no_lock_and_no_folder(files: ChannelFiles, tmp_path: Path) -> None:
    for folder in (files.ledger.parent, files.ordering.parent):
        shutil.rmtree(folder)
    files.ordering.parent.mkdir()
    files.ordering.write_bytes(b"no database" * 1000)
    with pytest.raises(BlockLost):
        rebuild(files, quiet, force=False)
    assert [each.name for each in (tmp_path / "volume").rglob("*")] == [
        "ordering",
        files.ordering.name,
    ]
