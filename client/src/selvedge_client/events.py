"""What a channel's subscribers get: events, each with its position."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2


@dataclass(frozen=True)
class Position:
    """A place in a channel: everything up to it was told.

    Attributes:
        block: the number of the block.
        transaction: the transaction in it, counted from 0; None for all of the block.
        block_hash: the hash of the block, by which another ledger is noticed; may be empty.
    """

    block: int
    transaction: int | None = None
    block_hash: bytes = b""

    @classmethod
    def of(cls, message: event_hub_pb2.Position) -> Position:
        """The position in a message."""
        transaction = message.transaction if message.HasField("transaction") else None
        return cls(message.block, transaction, message.block_hash)

    def message(self) -> event_hub_pb2.Position:
        """The position as it travels."""
        return event_hub_pb2.Position(
            block=self.block, transaction=self.transaction, block_hash=self.block_hash
        )

    @property
    def next(self) -> tuple[int, int]:
        """The block and the transaction in it that come next. Of two positions the one with the
        lower one is passed first."""
        if self.transaction is None:
            return self.block + 1, 0
        return self.block, self.transaction + 1


@dataclass(frozen=True)
class Event:
    """A transaction that is told of, with its chaincode event if it set one.

    Attributes:
        position: to continue after it, once it is handled.
        channel: the channel.
        txid: the transaction.
        kind: the name of its header type, such as ENDORSER_TRANSACTION.
        time: when it was made, as its creator says (UTC); None where that is not said, or is no
            moment of the calendar.
        creator: the MSP id of who created it.
        chaincode: the chaincode that it called; empty for a configuration.
        function: the first argument of that call, cut after 100 characters.
        code: the name of its validation code, such as VALID or MVCC_READ_CONFLICT.
        error: what is wrong with one that cannot be read.
        name: the name of the chaincode event; None where there is none. Of a transaction that is
            not valid it has not happened.
        payload: the payload of the chaincode event, if it was asked for.
    """

    position: Position
    channel: str
    txid: str
    kind: str
    time: datetime | None
    creator: str
    chaincode: str
    function: str
    code: str
    error: str
    name: str | None
    payload: bytes

    @classmethod
    def of(cls, channel: str, position: Position, told: event_hub_pb2.TransactionNotice) -> Event:
        """The event in a notice."""
        return cls(
            position=position,
            channel=channel,
            txid=told.txid,
            kind=_name(common_pb2.HeaderType, told.type),
            time=_moment(told.timestamp) if told.HasField("timestamp") else None,
            creator=told.creator_msp_id,
            chaincode=told.chaincode,
            function=told.function,
            code=_name(transaction_pb2.TxValidationCode, told.code),
            error=told.error,
            name=told.event.event_name if told.HasField("event") else None,
            payload=told.event.payload,
        )

    @property
    def block(self) -> int:
        """The number of the block that the transaction is in."""
        return self.position.block

    @property
    def valid(self) -> bool:
        """Whether the transaction has taken effect."""
        return self.code == "VALID"


def _moment(stamp: Timestamp) -> datetime | None:
    # Nobody checks what the creator writes there.
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        return None


def _name(kind: Any, number: int) -> str:
    return str(kind.Name(number)) if number in kind.values() else str(number)
