"""Verdicts are found again by judging the transactions once more."""

import datetime
from pathlib import Path

import pytest
from testchannel import CHAINCODE, CHANNEL, Network, Service, writes
from volumes import BLOCKS, SETTINGS, changing, damage_block, fill, order, quiet

from chaincode_support.ledger import Ledger
from chaincode_support.maintenance.rebuilding import rebuild
from chaincode_support.maintenance.report import Finding
from chaincode_support.maintenance.verification import verify
from chaincode_support.volume import ChannelFiles
from selvedge_common.protoutil import blocks, metadata
from selvedge_common.protoutil.errors import ValidationCode
from selvedge_protos.peer import transaction_pb2

VALID = transaction_pb2.VALID
UNENDORSED = transaction_pb2.ENDORSEMENT_POLICY_FAILURE


def set_verdict(files: ChannelFiles, number: int, position: int, code: ValidationCode) -> None:
    """Change a verdict in both its places."""
    with changing(files.ledger) as connection:
        query = "SELECT bytes FROM block WHERE number = ?"
        block = blocks.parse_block(connection.execute(query, (number,)).fetchone()[0])
        codes = metadata.validation_codes(block)
        codes[position] = code
        metadata.set_validation_codes(block, codes)
        connection.execute(
            "UPDATE block SET bytes = ? WHERE number = ?", (block.SerializeToString(), number)
        )
        connection.execute(
            "UPDATE tx SET code = ? WHERE block = ? AND position = ?", (code, number, position)
        )


@pytest.fixture
async def stolen(network: Network, tmp_path: Path) -> tuple[ChannelFiles, str]:
    """(files, txid) of a channel whose block 1 calls a transaction valid that nobody who counts
    has endorsed, and whose state, history and index say the same."""
    files = ChannelFiles.on(tmp_path / "stolen", CHANNEL)
    proposed = network.propose(b"x")
    envelope = network.endorse(proposed, writes(a=b"stolen"), endorsers=[network.stranger])
    async with Service(network, tmp_path / "stolen", SETTINGS) as service:
        await order(service, envelope.SerializeToString())
        await order(service, network.transaction(writes(b=b"sound"))[1])
        assert service.ledger.block_number_of(proposed[1]) == (1, UNENDORSED)
    set_verdict(files, 1, 0, VALID)
    with changing(files.ledger) as connection:
        connection.execute(
            "INSERT INTO state (namespace, key, value, block, tx) VALUES (?, 'a', ?, 1, 0)",
            (CHAINCODE, b"stolen"),
        )
        connection.execute(
            "INSERT INTO history (namespace, key, block, tx) VALUES (?, 'a', 1, 0)", (CHAINCODE,)
        )
    return files, proposed[1]


def test_each_block_of_a_sound_channel_is_judged_to_its_verdicts(files: ChannelFiles) -> None:
    assert verify(files, quiet).judged == BLOCKS
    unjudged = verify(files, quiet, judge=False)
    assert (unjudged.findings, unjudged.judged) == ([], 0)


def test_a_transaction_made_valid_with_all_that_follows_from_it_is_named(
    stolen: tuple[ChannelFiles, str],
) -> None:
    files, txid = stolen
    report = verify(files, quiet)
    what = (
        f"the verdict on transaction 0 ({txid}) of block 1 is VALID, and judged again it is "
        "ENDORSEMENT_POLICY_FAILURE"
    )
    assert report.findings == [Finding(str(files.ledger), what, verdict=True)]
    assert (report.blocks, report.judged) == (3, 1)
    assert verify(files, quiet, judge=False).findings == []


def test_a_file_made_anew_from_the_ordering_log_has_the_verdicts_of_the_service(
    stolen: tuple[ChannelFiles, str],
) -> None:
    files, txid = stolen
    files.ledger.unlink()
    assert rebuild(files, quiet, force=False).judged == 3
    assert verify(files, quiet).findings == []
    ledger = Ledger.open(files.ledger.parent, CHANNEL)
    assert ledger.block_number_of(txid) == (1, UNENDORSED)
    ledger.close()


def test_of_verdicts_that_differ_the_first_is_named(files: ChannelFiles) -> None:
    for number in (2, 4):
        set_verdict(files, number, 0, transaction_pb2.MVCC_READ_CONFLICT)
    report = verify(files, quiet)
    [verdict] = [finding.what for finding in report.findings if finding.verdict]
    assert " of block 2 is MVCC_READ_CONFLICT, and judged again it is VALID" in verdict
    assert report.judged == 2
    # The state is compared with what the verdicts lead to, as they are.
    state = [finding.what for finding in report.findings if not finding.verdict]
    assert f"its state at {CHAINCODE}, a is not what its blocks say" in state


def test_beyond_a_damaged_block_nothing_is_judged(files: ChannelFiles) -> None:
    damage_block(files.ledger, 3)
    report = verify(files, quiet)
    assert report.judged == 3
    assert not any(finding.verdict for finding in report.findings)


async def test_verdicts_stay_when_the_certificates_of_clients_and_endorsers_expire(
    tmp_path: Path,
) -> None:
    network = Network()
    expired = -datetime.timedelta(minutes=1)
    network.client = network.organisation.issue("client", "user1", valid=expired)
    network.peer = network.organisation.issue("peer", "peer0", valid=expired)
    async with Service(network, tmp_path, SETTINGS) as service:
        await fill(service)
    report = verify(ChannelFiles.on(tmp_path, CHANNEL), quiet)
    assert (report.findings, report.judged) == ([], BLOCKS)
