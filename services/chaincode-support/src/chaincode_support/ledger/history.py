"""What a key was over time, from the blocks themselves.

Follows release 2.5, core/ledger/kvledger/history/query_executer.go.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence

from google.protobuf.message import DecodeError

from chaincode_support.ledger.errors import LedgerError, LedgerUnusable
from chaincode_support.ledger.read_write_set import Version
from chaincode_support.ledger.stored_block import read_envelope
from selvedge_common.quoting import quoted
from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.queryresult.kv_query_result_pb2 import KeyModification
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2

_OLDER = (
    "SELECT block, tx FROM history WHERE namespace = ? AND key = ? AND (block, tx) < (?, ?) "
    "ORDER BY block DESC, tx DESC LIMIT 1"
)
_ABOVE_ALL = Version(2**63 - 1, 0)


def modifications(
    snapshot: Callable[[], sqlite3.Connection],
    failed: Callable[[sqlite3.Error], LedgerError],
    namespace: str,
    key: str,
) -> Generator[KeyModification, None, None]:
    """Each valid transaction that wrote or deleted the key, the newest first, one at a time.

    Between two of them nothing is held or open. `snapshot` gives the connection to read on and
    raises when there is none any more, `failed` makes what is raised when it cannot be read. Raises
    LedgerUnusable when the ledger's file is damaged.
    """
    height = _ABOVE_ALL
    while True:
        connection = snapshot()
        try:
            row = connection.execute(_OLDER, (namespace, key, *height)).fetchone()
            if row is None:
                return
            height = Version(*row)
            envelope = read_envelope(connection, *height)
        except sqlite3.Error as error:
            raise failed(error) from error
        modification = _find(envelope, namespace, key)
        if modification is None:
            raise LedgerUnusable(
                f"Transaction {height.tx} of block {height.block} does not write the key "
                f"{quoted(key)} of {namespace!r}, as the ledger's history says: restore the "
                "ledger's file from a backup."
            )
        yield modification


def _find(envelope: bytes, namespace: str, key: str) -> KeyModification | None:
    """What the transaction did to the key. It was checked when it was committed."""
    try:
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
        header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        rwsets = rwset_pb2.TxReadWriteSet.FromString(_results(payload.data)).ns_rwset
        for part in rwsets:
            if part.namespace == namespace:
                write = _last_write(kv_rwset_pb2.KVRWSet.FromString(part.rwset).writes, key)
                if write is not None:
                    return KeyModification(
                        tx_id=header.tx_id,
                        value=write.value,
                        timestamp=header.timestamp if header.HasField("timestamp") else None,
                        is_delete=write.is_delete or not write.value,
                    )
    except (DecodeError, IndexError):
        return None
    return None


def _last_write(writes: Sequence[kv_rwset_pb2.KVWrite], key: str) -> kv_rwset_pb2.KVWrite | None:
    """Of several writes to a key the last counts, as it did for the state."""
    # In key order, as every endorser of ours and of Fabric's writes them.
    found = bisect_right(writes, key, key=_key_of) - 1
    if found >= 0 and writes[found].key == key:
        return writes[found]
    return next((write for write in reversed(writes) if write.key == key), None)


def _key_of(write: kv_rwset_pb2.KVWrite) -> str:
    return write.key


def _results(data: bytes) -> bytes:
    action = transaction_pb2.Transaction.FromString(data).actions[0]
    payload = transaction_pb2.ChaincodeActionPayload.FromString(action.payload)
    endorsed = proposal_response_pb2.ProposalResponsePayload.FromString(
        payload.action.proposal_response_payload
    )
    return proposal_pb2.ChaincodeAction.FromString(endorsed.extension).results
