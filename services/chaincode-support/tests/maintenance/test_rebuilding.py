"""A ledger made again is what it was, whatever was damaged, as long as one file has each block."""

from collections.abc import Callable
from pathlib import Path

import pytest
from testchannel import CHANNEL, Network, Service, writes
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

from chaincode_support.ledger import LedgerInUse
from chaincode_support.maintenance.errors import BlockLost, NothingThere, TwoChains
from chaincode_support.maintenance.rebuilding import Rebuilt, rebuild
from chaincode_support.maintenance.verification import verify
from chaincode_support.volume import ChannelFiles, Claim
from selvedge_common.protoutil import blocks, metadata
from selvedge_protos.peer import transaction_pb2


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
        block = blocks.parse_block(marshalled)
        codes = metadata.validation_codes(block)
        assert codes[0] == transaction_pb2.VALID
        metadata.set_validation_codes(block, [transaction_pb2.MVCC_READ_CONFLICT, *codes[1:]])
        connection.execute(
            "UPDATE block SET bytes = ? WHERE number = 2", (block.SerializeToString(),)
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
async def test_what_was_damaged_is_as_it_was(
    files: ChannelFiles,
    before: dict[str, object],
    harm: Callable[[ChannelFiles], None],
    judged: int,
    recovered: int,
) -> None:
    harm(files)
    rebuilt = await rebuild(files, quiet, force=False)
    assert rebuilt == Rebuilt(CHANNEL, BLOCKS, judged, recovered, 0)
    assert holdings(files) == before
    assert verify(files, quiet).findings == []


async def test_different_blocks_damaged_in_both_files_are_all_there_again(
    files: ChannelFiles, before: dict[str, object]
) -> None:
    for number in (1, 4):
        damage_block(files.ledger, number)
    for number in (0, 2, 5):
        damage_block(files.ordering, number)
    assert await rebuild(files, quiet, force=False) == Rebuilt(CHANNEL, BLOCKS, 2, 3, 0)
    assert holdings(files) == before


async def test_what_was_ordered_and_not_committed_is_committed(
    network: Network, tmp_path: Path
) -> None:
    files = ChannelFiles.on(tmp_path, CHANNEL)
    async with Service(network, tmp_path, SETTINGS) as service:
        await fill(service)
        service.committing.cancel()
        await service.ordering.order(network.transaction(writes(later=b"1"))[1])
    assert await rebuild(files, quiet, force=False) == Rebuilt(CHANNEL, BLOCKS + 1, 1, 0, 0)
    assert verify(files, quiet).findings == []


async def test_a_service_goes_on_with_it(
    files: ChannelFiles, network: Network, tmp_path: Path
) -> None:
    damage_block(files.ordering, 3)
    await rebuild(files, quiet, force=False)
    async with Service(network, tmp_path / "volume", SETTINGS) as service:
        await order(service, network.transaction(writes(a=b"again"))[1])
    assert verify(files, quiet).blocks == BLOCKS + 1


async def test_a_block_that_is_lost_in_both_is_given_up_only_if_that_is_said(
    files: ChannelFiles,
) -> None:
    damage_block(files.ledger, 4)
    damage_block(files.ordering, 4)
    damaged = [file.read_bytes() for file in (files.ledger, files.ordering)]
    with pytest.raises(BlockLost, match=r"Block 4 of channel mychannel is damaged in its ordering"):
        await rebuild(files, quiet, force=False)
    assert [file.read_bytes() for file in (files.ledger, files.ordering)] == damaged
    assert await rebuild(files, quiet, force=True) == Rebuilt(CHANNEL, 4, 0, 0, BLOCKS - 4)
    report = verify(files, quiet)
    assert (report.findings, report.blocks, report.ordered) == ([], 4, 4)


@pytest.mark.parametrize("content", [None, b"no database" * 1000])
async def test_a_lost_log_may_have_held_more_than_the_ledger(
    files: ChannelFiles, before: dict[str, object], content: bytes | None
) -> None:
    files.ordering.unlink()
    if content is not None:
        files.ordering.write_bytes(content)
    with pytest.raises(BlockLost, match=r"cannot be read. The ledger has 6 blocks; what was order"):
        await rebuild(files, quiet, force=False)
    assert await rebuild(files, quiet, force=True) == Rebuilt(CHANNEL, BLOCKS, 0, BLOCKS, 0)
    assert holdings(files) == before


async def test_files_of_two_chains_are_not_mixed(
    files: ChannelFiles, network: Network, tmp_path: Path
) -> None:
    async with Service(network, tmp_path / "other", SETTINGS) as service:
        await fill(service)
    (tmp_path / "other" / "ledger" / f"{CHANNEL}.sqlite").replace(files.ledger)
    with pytest.raises(TwoChains, match=r"Block 0 of the ledger .* they are of two chains"):
        await rebuild(files, quiet, force=True)


async def test_a_channel_in_use_is_left_alone(files: ChannelFiles) -> None:
    claim = Claim(files, "a running chaincode-support")
    with pytest.raises(LedgerInUse, match="in use by a running chaincode-support"):
        await rebuild(files, quiet, force=False)
    claim.release()
    await rebuild(files, quiet, force=False)


async def test_no_channel_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(NothingThere, match=r"no channel mychannel: .* are missing"):
        await rebuild(ChannelFiles.on(tmp_path, CHANNEL), quiet, force=False)
