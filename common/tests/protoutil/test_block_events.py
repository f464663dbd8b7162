"""What subscribers are told of a transaction."""

from collections.abc import Callable

import pytest

from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil.block_events import transaction_notice
from selvedge_common.protoutil.endorsements import create_transaction
from selvedge_common.protoutil.proposals import create_proposal
from selvedge_common.protoutil.wire import marshal
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2

Transact = Callable[..., common_pb2.Envelope]


def test_transaction_is_told_with_its_event(transact: Transact) -> None:
    envelope = transact(event="Created")
    notice = transaction_notice(marshal(envelope), transaction_pb2.VALID)
    assert (notice.type, notice.code) == (common_pb2.ENDORSER_TRANSACTION, transaction_pb2.VALID)
    assert (notice.chaincode, notice.function, notice.creator_msp_id) == ("basic", "a", "Org1MSP")
    assert notice.timestamp.seconds > 0
    assert notice.event.event_name == "Created"
    assert notice.event.tx_id == notice.txid
    assert notice.event.payload == b"event payload"
    assert not notice.error


def test_transaction_without_event_has_none(transact: Transact) -> None:
    notice = transaction_notice(marshal(transact()), transaction_pb2.MVCC_READ_CONFLICT)
    assert notice.chaincode == "basic"
    assert notice.code == transaction_pb2.MVCC_READ_CONFLICT
    assert not notice.HasField("event")


def test_long_function_is_cut(
    client: SigningIdentity, endorse: Callable[..., tuple[common_pb2.Envelope, object]]
) -> None:
    function = 1000 * "ü" + "x"
    proposal, _ = create_proposal("mychannel", "basic", [function.encode()], client.serialized)
    _, response = endorse(proposal=proposal)
    envelope = create_transaction(proposal, [response], client)  # type: ignore[list-item]
    assert transaction_notice(marshal(envelope), transaction_pb2.VALID).function == 100 * "ü"


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"not a transaction"])
def test_what_cannot_be_read_says_so(garbage: bytes) -> None:
    notice = transaction_notice(garbage, transaction_pb2.BAD_PAYLOAD)
    assert notice.code == transaction_pb2.BAD_PAYLOAD
    assert notice.txid == ""


def test_transaction_is_told_as_far_as_it_can_be_read(transact: Transact) -> None:
    envelope = transact(event="Created")
    payload = common_pb2.Payload.FromString(envelope.payload)
    payload.data = b"\xff"
    envelope.payload = marshal(payload)
    notice = transaction_notice(marshal(envelope), transaction_pb2.BAD_PAYLOAD)
    assert (notice.chaincode, notice.creator_msp_id) == ("basic", "Org1MSP")
    assert "is not a marshalled protos.Transaction" in notice.error
    assert not notice.HasField("event")
