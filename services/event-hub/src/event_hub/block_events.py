"""The events of a block, each type by itself.

Fabric's hub only ever fed BLOCK and FILTEREDBLOCK (events/producer/eventhelper.go of 1.2).
"""

from collections.abc import Callable, Iterator, Mapping

from event_hub.events import BLOCK, CHAINCODE, FILTEREDBLOCK, REJECTION, HubEvent, Kind
from selvedge_common.protoutil.block_events import (
    chaincode_events,
    filtered_block,
    open_actions,
    open_layers,
    strip_read_write_sets,
)
from selvedge_common.protoutil.errors import MalformedMessage, ValidationCode
from selvedge_common.protoutil.metadata import validation_codes
from selvedge_common.protoutil.wire import length_delimited
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import events_pb2, transaction_pb2

_CHAINCODE_EVENT = events_pb2.Event.CHAINCODE_EVENT_FIELD_NUMBER


def whole_block(block: common_pb2.Block, channel: str) -> Iterator[HubEvent]:
    """The BLOCK event, without read-write sets."""
    whole = events_pb2.Event(block=strip_read_write_sets(block))
    yield HubEvent(BLOCK, channel, whole.SerializeToString())


def filtered(block: common_pb2.Block, channel: str) -> Iterator[HubEvent]:
    """The FILTEREDBLOCK event."""
    event = events_pb2.Event(filtered_block=filtered_block(block))
    # A block whose transactions cannot be read does not name its channel itself.
    event.filtered_block.channel_id = channel
    yield HubEvent(FILTEREDBLOCK, channel, event.SerializeToString())


def chaincode(block: common_pb2.Block, channel: str) -> Iterator[HubEvent]:
    """The CHAINCODE events of the valid transactions."""
    for envelope, code in zip(block.data.data, validation_codes(block), strict=True):
        if code != transaction_pb2.VALID:
            continue
        for event, marshalled in chaincode_events(envelope):
            message = length_delimited(_CHAINCODE_EVENT, marshalled)
            yield HubEvent(CHAINCODE, channel, message, event.chaincode_id, event.event_name)


def rejections(block: common_pb2.Block, channel: str) -> Iterator[HubEvent]:
    """A REJECTION event for each transaction that is not valid."""
    codes = validation_codes(block)
    told = (transaction_pb2.VALID, transaction_pb2.NOT_VALIDATED)
    if all(code in told for code in codes):
        return
    stripped = strip_read_write_sets(block)
    for envelope, code in zip(stripped.data.data, codes, strict=True):
        if code not in told:
            rejection = _rejection(envelope, code, block.header.number)
            message = events_pb2.Event(rejection=rejection).SerializeToString()
            yield HubEvent(REJECTION, channel, message)


def _rejection(envelope: bytes, code: ValidationCode, number: int) -> events_pb2.Rejection:
    """Say of a transaction why it has no effect; with the transaction, where it can be read."""
    rejection = events_pb2.Rejection()
    txid = "(unreadable)"
    try:
        payload, header = open_layers(envelope)
        txid = header.tx_id or txid
        if header.type == common_pb2.ENDORSER_TRANSACTION:
            rejection.tx.CopyFrom(open_actions(payload.data))
    except MalformedMessage as error:
        reason = f"{_name(code)} ({error})"
    else:
        reason = _name(code)
    rejection.error_msg = f"transaction {txid} in block {number} was rejected: {reason}"
    return rejection


def _name(code: ValidationCode) -> str:
    known = transaction_pb2.TxValidationCode.values()
    return transaction_pb2.TxValidationCode.Name(code) if code in known else f"code {code}"


# Each takes a block as a peer has committed it, with its validation codes, and its channel.
MAKERS: Mapping[Kind, Callable[[common_pb2.Block, str], Iterator[HubEvent]]] = {
    CHAINCODE: chaincode,
    REJECTION: rejections,
    FILTEREDBLOCK: filtered,
    BLOCK: whole_block,
}
