"""A transaction of a block after the checks that need no ledger, ready to be committed."""

from dataclasses import dataclass, field

from chaincode_support.ledger.endorsements import Endorsements
from selvedge_common.protoutil.errors import ValidationCode
from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2

UNKNOWN_TYPE = -1


@dataclass(frozen=True, slots=True)
class CheckedTransaction:
    """What the commit needs to know of one envelope.

    `txid` is empty unless the creator's signature proved it. `chaincode`, as
    "name:version", and `rwsets`, the parsed read-write set of each namespace, are empty unless
    `code` is VALID: before that nobody vouches for them. Whether `endorsements` suffice is judged
    by the state, during the commit; None when there is nothing to judge, as for a CONFIG.
    """

    code: ValidationCode
    txid: str = ""
    type: int = UNKNOWN_TYPE
    chaincode: str = ""
    rwsets: list[tuple[str, kv_rwset_pb2.KVRWSet]] = field(default_factory=list)
    endorsements: Endorsements | None = None

    @property
    def type_name(self) -> str:
        """Fabric's name of the header type, for metrics; "unknown" when it could not be read."""
        if self.type not in common_pb2.HeaderType.values():
            return "unknown"
        return common_pb2.HeaderType.Name(common_pb2.HeaderType.ValueType(self.type))
