"""What subscribers are told of a block's transactions, each notice made once for all of them."""

from selvedge_common.protoutil.block_events import transaction_notice
from selvedge_common.protoutil.event_filter import Kind
from selvedge_common.protoutil.metadata import validation_codes
from selvedge_common.protoutil.wire import length_delimited, marshal
from selvedge_protos.common import common_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2

# Of each notice there are the message, and what is sent, with and without payload.
_FORMS = 3

_POSITION = event_hub_pb2.Notice.POSITION_FIELD_NUMBER
_TRANSACTION = event_hub_pb2.Notice.TRANSACTION_FIELD_NUMBER


class BlockNotices:
    """The notices of one block.

    Args:
        block: the block.
        block_hash: the hash of its header.

    Attributes:
        kinds: of each transaction, in order, what filters look at.
        held_bytes: about what all notices take in memory, once they have been sent.
        end: the notice that the position moves past the block, marshalled.
    """

    __slots__ = ("_block_hash", "_made", "_number", "_transactions", "end", "held_bytes", "kinds")

    def __init__(self, block: common_pb2.Block, block_hash: bytes) -> None:
        self._number = block.header.number
        self._block_hash = block_hash
        self._made: dict[tuple[int, bool, bool], bytes] = {}
        self._transactions = [
            transaction_notice(envelope, code)
            for envelope, code in zip(block.data.data, validation_codes(block), strict=True)
        ]
        self.kinds = tuple(map(Kind.of, self._transactions))
        self.end = self._position(None)
        self.held_bytes = _FORMS * sum(notice.ByteSize() for notice in self._transactions)

    def notice(self, index: int, *, payload: bool, last: bool) -> bytes:
        """A transaction's notice, marshalled.

        Args:
            index: which one.
            payload: whether its event has its payload.
            last: whether it is the last one of the block that the subscriber is told of, so that
                the position moves past the block.
        """
        made = self._made.get((index, payload, last))
        if made is None:
            transaction = self._transactions[index]
            if not payload and transaction.event.payload:
                stripped = event_hub_pb2.TransactionNotice()
                stripped.CopyFrom(transaction)
                stripped.event.ClearField("payload")
                transaction = stripped
            made = self._position(None if last else index) + length_delimited(
                _TRANSACTION, marshal(transaction)
            )
            self._made[index, payload, last] = made
        return made

    def _position(self, transaction: int | None) -> bytes:
        position = event_hub_pb2.Position(
            block=self._number, transaction=transaction, block_hash=self._block_hash
        )
        return length_delimited(_POSITION, marshal(position))
