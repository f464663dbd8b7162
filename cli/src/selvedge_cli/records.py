"""What is told of blocks and events: one dictionary each, as `--json` prints it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf.message import DecodeError

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

if TYPE_CHECKING:
    from selvedge_client import Event

Record: TypeAlias = dict[str, Any]
UNREADABLE = "UNREADABLE"
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


def event_record(event: chaincode_event_pb2.ChaincodeEvent) -> Record:
    """One chaincode event."""
    return {
        "type": "chaincode",
        "chaincode": event.chaincode_id,
        "name": event.event_name,
        "txid": event.tx_id,
        **content("payload", event.payload),
    }


def told_record(kind: str, told: Event) -> Record:
    """What the client package tells of a transaction.

    Args:
        kind: "chaincode" for its event; "transaction" or "rejection" for what came of it.
        told: the transaction.
    """
    place = {"block": told.block, "type": kind}
    origin: Record = {"creator": told.creator}
    if told.time is not None:
        origin["time"] = told.time.isoformat()
    if kind == "chaincode":
        event = {"chaincode": told.chaincode, "name": told.name, "txid": told.txid}
        return {**place, **event, **content("payload", told.payload), **origin}
    verdict: Record = {"txid": told.txid, "kind": told.kind, "code": told.code}
    if told.error:
        return {**place, **verdict, "kind": UNREADABLE, "error": told.error}
    if told.chaincode:
        verdict |= {"chaincode": told.chaincode, "function": told.function}
    if told.name is not None:
        verdict["event"] = told.name
    return {**place, **verdict, **origin}


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
    txids = [_txid(action.header) for action in rejection.tx.actions]
    txid = txids[-1] if txids else ""
    return {"type": "rejection", "txid": txid, "error": rejection.error_msg}


def _txid(header: bytes) -> str:
    """The id that a transaction's signature header makes; empty where it makes none."""
    try:
        read = common_pb2.SignatureHeader.FromString(header)
    except DecodeError:
        return ""
    return transaction_id(read.nonce, read.creator) if read.nonce and read.creator else ""


def _transaction(envelope: bytes, code: _Code.ValueType) -> Record:
    verdict = {"code": _Code.Name(code)}
    try:
        opened = open_transaction(envelope)
        action = opened.open_action()
    except MalformedMessage as error:
        return {"txid": "", "kind": UNREADABLE, **verdict, "error": str(error)}
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
