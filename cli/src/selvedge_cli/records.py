"""What is told of blocks and events: one dictionary each, as `--json` prints it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from selvedge_common.protoutil.block_events import chaincode_events
from selvedge_common.protoutil.blocks import header_hash
from selvedge_common.protoutil.errors import MalformedMessage
from selvedge_common.protoutil.metadata import validation_codes
from selvedge_common.protoutil.transactions import EndorsedAction, open_transaction
from selvedge_common.protoutil.wire import transaction_id
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    events_pb2,
    proposal_pb2,
    transaction_pb2,
)

Record: TypeAlias = dict[str, Any]
_Code = transaction_pb2.TxValidationCode


def content(name: str, data: bytes) -> Record:
    """Bytes as text where they are, else as base64 under another name."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def block_record(block: common_pb2.Block) -> Record:
    """A whole block, its transactions opened."""
    codes = validation_codes(block)
    return {
        "type": "block",
        "number": block.header.number,
        "hash": header_hash(block.header).hex(),
        "previous_hash": block.header.previous_hash.hex(),
        "transactions": [
            _transaction(envelope, code)
            for envelope, code in zip(block.data.data, codes, strict=True)
        ],
    }


def filtered_record(block: events_pb2.FilteredBlock) -> Record:
    """What DeliverFiltered tells of a block."""
    return {
        "type": "filtered",
        "number": block.number,
        "channel": block.channel_id,
        "transactions": [
            {
                "txid": transaction.txid,
                "kind": _kind(transaction.type),
                "code": _Code.Name(transaction.tx_validation_code),
                "events": [
                    {
                        "chaincode": action.chaincode_event.chaincode_id,
                        "name": action.chaincode_event.event_name,
                    }
                    for action in transaction.transaction_actions.chaincode_actions
                ],
            }
            for transaction in block.filtered_transactions
        ],
    }


def chaincode_records(block: common_pb2.Block) -> Iterator[Record]:
    """The events of the valid transactions of a block."""
    for envelope, code in zip(block.data.data, validation_codes(block), strict=True):
        if code == transaction_pb2.VALID:
            for event in chaincode_events(envelope):
                yield {"block": block.header.number, **event_record(event)}


def event_record(event: chaincode_event_pb2.ChaincodeEvent) -> Record:
    """One chaincode event."""
    return {
        "type": "chaincode",
        "chaincode": event.chaincode_id,
        "name": event.event_name,
        "txid": event.tx_id,
        **content("payload", event.payload),
    }


def rejection_records(block: common_pb2.Block) -> Iterator[Record]:
    """The transactions of a block that were found invalid."""
    for transaction in block_record(block)["transactions"]:
        if transaction["code"] != _Code.Name(transaction_pb2.VALID):
            yield {"type": "rejection", "block": block.header.number, **transaction}


def hub_record(event: events_pb2.Event) -> Record | None:
    """What the event hub sent; None for an answer that is no event."""
    match event.WhichOneof("Event"):
        case "block":
            return block_record(event.block)
        case "filtered_block":
            return filtered_record(event.filtered_block)
        case "chaincode_event":
            return event_record(event.chaincode_event)
        case "rejection":
            return _hub_rejection(event.rejection)
        case _:
            return None


def _hub_rejection(rejection: events_pb2.Rejection) -> Record:
    # A Transaction carries no id, but the nonce and the creator that make it.
    txid = ""
    for action in rejection.tx.actions:
        header = common_pb2.SignatureHeader.FromString(action.header)
        txid = transaction_id(header.nonce, header.creator)
    return {"type": "rejection", "txid": txid, "error": rejection.error_msg}


def _transaction(envelope: bytes, code: _Code.ValueType) -> Record:
    verdict = {"code": _Code.Name(code)}
    try:
        opened = open_transaction(envelope)
        action = opened.open_action()
    except MalformedMessage as error:
        return {"txid": "", "kind": "UNREADABLE", **verdict, "error": str(error)}
    return {
        "txid": opened.txid,
        "kind": _kind(opened.channel_header.type),
        **verdict,
        **_call(action),
    }


def _call(action: EndorsedAction | None) -> Record:
    if action is None:
        return {}
    call = {"chaincode": action.chaincode, "function": _function(action.proposal_payload)}
    return call if action.event is None else {**call, "event": action.event.event_name}


def _function(proposal_payload: bytes) -> str:
    try:
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal_payload)
        call = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input)
    except DecodeError:
        return ""
    args = call.chaincode_spec.input.args
    return args[0].decode(errors="replace") if args else ""


def _kind(number: int) -> str:
    known = number in common_pb2.HeaderType.values()
    return (
        common_pb2.HeaderType.Name(common_pb2.HeaderType.ValueType(number))
        if known
        else str(number)
    )
