"""What subscribers see of a block: filtered blocks, blocks without read-write sets, and notices of
its transactions.

Follows Fabric 2.5's core/peer/deliverevents.go (filtered blocks) and 1.2's
events/producer/eventhelper.go (what the event hub removed from a block). A transaction that cannot
be read is in a block all the same: here it is left out of a filtered block and passed on unchanged
in a whole one, instead of failing the block for everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError

from selvedge_common.protoutil.errors import MalformedMessage, ValidationCode
from selvedge_common.protoutil.field_count import has_more_fields
from selvedge_common.protoutil.metadata import validation_codes
from selvedge_common.protoutil.wire import marshal, parse
from selvedge_protos.common import common_pb2
from selvedge_protos.msp import identities_pb2
from selvedge_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    events_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2
from selvedge_protos.selvedge.nested.v1 import transaction_pb2 as nested_pb2

MAX_FUNCTION_CHARACTERS = 100

# No committer takes more than one action. What has more is on the ledger all the same, and none of
# its actions is told: a transaction of nothing but actions would hold up everybody.
MAX_ACTIONS = 16
# Parsing makes objects, of far more bytes, of endorsements and arguments. Where there may be many
# they are counted first, which takes longer than to parse a few.
MAX_FIELDS = 10_000
_COUNTED_BYTES = 1024 * 1024
_ENDORSEMENTS, _ARGUMENTS = (2,), (1, 1, 3)
# Parsed all at once, layers that are there twice become objects too.
_AT_ONCE_BYTES = 256 * 1024


def filtered_block(block: common_pb2.Block) -> events_pb2.FilteredBlock:
    """Give each transaction's id, type, validation code and chaincode events without payload."""
    filtered = events_pb2.FilteredBlock(number=block.header.number)
    for envelope, code in zip(block.data.data, validation_codes(block), strict=True):
        try:
            payload, channel_header = open_layers(envelope)
        except MalformedMessage:
            continue
        filtered.channel_id = channel_header.channel_id
        transaction = filtered.filtered_transactions.add(
            txid=channel_header.tx_id,
            type=common_pb2.HeaderType.ValueType(channel_header.type),
            tx_validation_code=code,
        )
        if channel_header.type == common_pb2.ENDORSER_TRANSACTION:
            transaction.transaction_actions.SetInParent()
            for event, _ in _events(payload.data):
                transaction.transaction_actions.chaincode_actions.add(
                    chaincode_event=chaincode_event_pb2.ChaincodeEvent(
                        chaincode_id=event.chaincode_id,
                        tx_id=event.tx_id,
                        event_name=event.event_name,
                    )
                )
    return filtered


def strip_read_write_sets(block: common_pb2.Block) -> common_pb2.Block:
    """Give a copy of the block whose transactions have lost their read-write sets.

    Nothing else changes; signatures and hashes over what was removed no longer fit, as they did
    not with Fabric's event hub.
    """
    stripped = common_pb2.Block(header=block.header, metadata=block.metadata)
    stripped.data.data.extend(_strip(envelope) for envelope in block.data.data)
    return stripped


def chaincode_events(
    envelope: bytes,
) -> Sequence[tuple[chaincode_event_pb2.ChaincodeEvent, bytes]]:
    """Give the chaincode events of a marshalled transaction, each with how it is marshalled in it;
    none if the way to them cannot be read."""
    if len(envelope) > _AT_ONCE_BYTES:
        return _events_by_layer(envelope)
    try:
        # All layers at once, which takes a third of the time.
        payload = nested_pb2.Envelope.FromString(envelope).payload[-1]
        if payload.header.channel_header[-1].type != common_pb2.ENDORSER_TRANSACTION:
            return ()
        actions = payload.data[-1].actions
        return _read_events(
            action.payload[-1].action.proposal_response_payload[-1].extension[-1].events
            for action in (actions if len(actions) <= MAX_ACTIONS else ())
        )
    except (DecodeError, RecursionError, IndexError):
        return _events_by_layer(envelope)


def _events_by_layer(
    envelope: bytes,
) -> Sequence[tuple[chaincode_event_pb2.ChaincodeEvent, bytes]]:
    """The same for a large one, or where a layer is left out, or one that does not count cannot be
    read."""
    try:
        payload, channel_header = open_layers(envelope)
    except MalformedMessage:
        return ()
    if channel_header.type != common_pb2.ENDORSER_TRANSACTION:
        return ()
    return _events(payload.data)


def open_layers(envelope: bytes) -> tuple[common_pb2.Payload, common_pb2.ChannelHeader]:
    """Give the payload of a marshalled transaction and its channel header.

    Raises MalformedMessage.
    """
    outer = parse(common_pb2.Envelope, envelope, "envelope")
    payload = parse(common_pb2.Payload, outer.payload, "payload")
    return payload, parse(common_pb2.ChannelHeader, payload.header.channel_header, "channel header")


def open_actions(data: bytes) -> transaction_pb2.Transaction:
    """Parse the data of a transaction. Raises MalformedMessage, also for too many actions."""
    if has_more_fields(data, MAX_ACTIONS):
        raise MalformedMessage(
            f"The transaction has more than {MAX_ACTIONS} actions: make one of one action."
        )
    return parse(transaction_pb2.Transaction, data, "transaction")


def transaction_notice(envelope: bytes, code: ValidationCode) -> event_hub_pb2.TransactionNotice:
    """Tell of a marshalled transaction, with its event whole, as far as it can be read."""
    notice = event_hub_pb2.TransactionNotice(code=code)
    try:
        payload, header = open_layers(envelope)
        notice.txid = header.tx_id
        notice.type = common_pb2.HeaderType.ValueType(header.type)
        if header.HasField("timestamp"):
            notice.timestamp.CopyFrom(header.timestamp)
        signature_header = parse(
            common_pb2.SignatureHeader, payload.header.signature_header, "signature header"
        )
        creator = parse(identities_pb2.SerializedIdentity, signature_header.creator, "creator")
        notice.creator_msp_id = creator.mspid
        if header.type == common_pb2.ENDORSER_TRANSACTION:
            extension = parse(
                proposal_pb2.ChaincodeHeaderExtension, header.extension, "header extension"
            )
            notice.chaincode = extension.chaincode_id.name
            _tell_actions(payload.data, notice)
    except MalformedMessage as error:
        notice.error = str(error)
    return notice


def _tell_actions(data: bytes, notice: event_hub_pb2.TransactionNotice) -> None:
    # A transaction that any committer takes has one action.
    for action in open_actions(data).actions[:1]:
        payload, _, chaincode_action = _open_action(action)
        event = parse(
            chaincode_event_pb2.ChaincodeEvent, chaincode_action.events, "chaincode event"
        )
        if event.chaincode_id:
            notice.event.CopyFrom(event)
        notice.function = _function(payload.chaincode_proposal_payload)


def _function(proposal_payload: bytes) -> str:
    """The name of the function; none where it has very many arguments."""
    if _has_many(proposal_payload, _ARGUMENTS):
        return ""
    payload = parse(proposal_pb2.ChaincodeProposalPayload, proposal_payload, "proposal's payload")
    call = parse(chaincode_pb2.ChaincodeInvocationSpec, payload.input, "chaincode's input")
    args = call.chaincode_spec.input.args
    # A character has four bytes at most.
    start = args[0][: 4 * MAX_FUNCTION_CHARACTERS] if args else b""
    return start.decode(errors="replace")[:MAX_FUNCTION_CHARACTERS]


def _events(data: bytes) -> Sequence[tuple[chaincode_event_pb2.ChaincodeEvent, bytes]]:
    try:
        actions = [_open_action(action) for action in open_actions(data).actions]
    except MalformedMessage:
        return ()
    return _read_events(chaincode_action.events for _, _, chaincode_action in actions)


def _read_events(
    marshalled: Iterable[bytes],
) -> Sequence[tuple[chaincode_event_pb2.ChaincodeEvent, bytes]]:
    """What those that are none set is no event; if one cannot be read, there are none at all."""
    events = []
    try:
        for each in marshalled:
            event = chaincode_event_pb2.ChaincodeEvent.FromString(each)
            if event.chaincode_id:
                events.append((event, each))
    except DecodeError:
        return ()
    return events


def _open_action(
    action: transaction_pb2.TransactionAction,
) -> tuple[
    transaction_pb2.ChaincodeActionPayload,
    proposal_response_pb2.ProposalResponsePayload,
    proposal_pb2.ChaincodeAction,
]:
    if _has_many(action.payload, _ENDORSEMENTS):
        raise MalformedMessage(
            f"The transaction has more than {MAX_FIELDS} endorsements: no policy needs so many."
        )
    payload = parse(transaction_pb2.ChaincodeActionPayload, action.payload, "action")
    endorsed = parse(
        proposal_response_pb2.ProposalResponsePayload,
        payload.action.proposal_response_payload,
        "endorsed payload",
    )
    return (
        payload,
        endorsed,
        parse(proposal_pb2.ChaincodeAction, endorsed.extension, "chaincode action"),
    )


def _strip(envelope: bytes) -> bytes:
    try:
        payload, channel_header = open_layers(envelope)
        if channel_header.type != common_pb2.ENDORSER_TRANSACTION:
            return envelope
        transaction = open_actions(payload.data)
        for action in transaction.actions:
            action_payload, endorsed, chaincode_action = _open_action(action)
            if not action_payload.HasField("action"):
                continue
            chaincode_action.ClearField("results")
            endorsed.extension = marshal(chaincode_action)
            action_payload.action.proposal_response_payload = marshal(endorsed)
            action.payload = marshal(action_payload)
        payload.data = marshal(transaction)
        outer = parse(common_pb2.Envelope, envelope, "envelope")
    except MalformedMessage:
        return envelope
    outer.payload = marshal(payload)
    return marshal(outer)


def _has_many(data: bytes, path: Sequence[int]) -> bool:
    return len(data) > _COUNTED_BYTES and has_more_fields(data, MAX_FIELDS, path)
