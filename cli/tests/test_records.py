"""What is told of what the event hub sent."""

import pytest

from selvedge_cli.records import hub_record
from selvedge_common.protoutil.wire import transaction_id
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import events_pb2, transaction_pb2


def rejection(header: bytes) -> events_pb2.Event:
    action = transaction_pb2.TransactionAction(header=header)
    transaction = transaction_pb2.Transaction(actions=[action])
    return events_pb2.Event(
        rejection=events_pb2.Rejection(tx=transaction, error_msg="BAD_COMMON_HEADER")
    )


def test_rejection_has_the_id_that_its_header_makes() -> None:
    header = common_pb2.SignatureHeader(nonce=b"nonce", creator=b"creator").SerializeToString()
    assert hub_record(rejection(header)) == {
        "type": "rejection",
        "txid": transaction_id(b"nonce", b"creator"),
        "error": "BAD_COMMON_HEADER",
    }


@pytest.mark.parametrize(
    "header",
    [
        b"",
        common_pb2.SignatureHeader(creator=b"creator").SerializeToString(),
        common_pb2.SignatureHeader(nonce=b"nonce").SerializeToString(),
        b"no header",
    ],
)
def test_rejection_whose_header_makes_no_id_has_none(header: bytes) -> None:
    record = hub_record(rejection(header))
    assert record is not None
    assert record["txid"] == ""
