"""`qscc`: asks a channel's ledger for blocks and transactions.

Follows core/scc/qscc/query.go of Fabric 2.5, and 1.x in that chaincodes may call it: nothing here
can wait for a lock that the caller's simulation holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chaincode_support.ledger import BlockNotFound, Ledger
from chaincode_support.system.channels import ReadableChannels
from chaincode_support.system.executor import Call, Function, Refused
from selvedge_common.quoting import printable
from selvedge_protos.common.common_pb2 import Envelope
from selvedge_protos.peer.transaction_pb2 import ProcessedTransaction

# In Fabric the largest number stands for the newest block.
_NEWEST = 2**64 - 1


class Qscc:
    """Query system chaincode. Every function's first argument is the channel."""

    name = "qscc"
    callable_by_chaincode = True

    def __init__(self, channels: ReadableChannels) -> None:
        self._channels = channels
        self.functions: Mapping[str, Function] = {
            "GetChainInfo": self._chain_info,
            "GetBlockByNumber": self._about("the block's number", _block_by_number),
            "GetBlockByHash": self._about("the hash of the block's header", _block_by_hash),
            "GetBlockByTxID": self._about("the transaction's id", _block_by_txid),
            "GetTransactionByID": self._about("the transaction's id", _transaction_by_id),
        }

    def _chain_info(self, call: Call) -> bytes:
        return self._channels.channel(call).ledger.chain_info().SerializeToString()

    def _about(self, what: str, read: Callable[[Ledger, bytes], bytes]) -> Function:
        def answer(call: Call) -> bytes:
            ledger = self._channels.channel(call).ledger
            if len(call.args) < 2 or not call.args[1]:
                raise Refused(f"{what} is missing: give it as the second argument")
            try:
                return read(ledger, call.args[1])
            except BlockNotFound as error:
                raise Refused(str(error)) from error

        return answer


def _block_by_number(ledger: Ledger, number: bytes) -> bytes:
    # int() would take signs, spaces and underscores too; 20 digits hold every block's number.
    if not number.isdigit() or len(number) > 20:
        raise Refused(f"{printable(number)} is no block number: give a decimal one")
    asked = int(number)
    return ledger.block(ledger.height - 1 if asked == _NEWEST else asked)


def _block_by_hash(ledger: Ledger, header_hash: bytes) -> bytes:
    return ledger.block_by_hash(header_hash)


def _block_by_txid(ledger: Ledger, txid: bytes) -> bytes:
    return ledger.block_by_txid(txid.decode(errors="replace"))


def _transaction_by_id(ledger: Ledger, txid: bytes) -> bytes:
    envelope, code = ledger.transaction(txid.decode(errors="replace"))
    return ProcessedTransaction(
        transactionEnvelope=Envelope.FromString(envelope), validationCode=code
    ).SerializeToString()
