"""Tells the log why a transaction is not valid."""

from selvedge_common.logs import get_logger
from selvedge_common.protoutil.errors import ValidationCode
from selvedge_protos.peer import transaction_pb2

_log = get_logger("committer.validation")

# Reasons repeat what strangers wrote, as long as they please.
_LOGGED_CHARACTERS = 500


def log_rejection(
    channel: str, block: int, position: int, txid: str, code: ValidationCode, reason: str
) -> None:
    """One line for one transaction; `position` is its place in the block, from 0."""
    _log.warning(
        "transaction rejected",
        channel=channel,
        block=block,
        position=position,
        txid=txid,
        code=transaction_pb2.TxValidationCode.Name(code),
        reason=reason[:_LOGGED_CHARACTERS],
    )
