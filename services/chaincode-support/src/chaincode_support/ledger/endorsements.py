"""Who endorsed a transaction, and whether that suffices for each key that it writes.

Follows release 2.5: core/committer/txvalidator/v20/plugindispatcher/dispatcher.go (the policies of
which chaincodes) and core/common/validation/statebased (validator_keylevel.go, v20.go and
vpmanagerimpl.go: the policies of keys).

Where Fabric stops the channel, because a key's policy does not parse, nobody satisfies it here; and
where it waits for ever, for the verdict on an earlier transaction that never got as far as that,
here that transaction does not count.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from chaincode_support.ledger import state
from chaincode_support.ledger.endorsement_policies import EndorsementPolicies
from selvedge_common.msp import Identity
from selvedge_common.protoutil.errors import MalformedTransaction
from selvedge_common.protoutil.wire import length_delimited
from selvedge_common.quoting import quoted
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer import policy_pb2, transaction_pb2

# The name in a key's metadata under which its policy is.
VALIDATION_PARAMETER = transaction_pb2.MetaDataKeys.Name(transaction_pb2.VALIDATION_PARAMETER)

_NOTHING = kv_rwset_pb2.KVRWSet()


@dataclass(frozen=True, slots=True)
class Endorsements:
    """A transaction's endorsements once their signatures have been checked.

    Attributes:
        chaincode: the name of the chaincode that was called.
        endorsers: members of the channel whose signatures hold, each once, in their order.
        refused: why the other endorsements do not count.
        policies: by which it is judged whether these suffice.
    """

    chaincode: str
    endorsers: tuple[Identity, ...]
    refused: tuple[str, ...]
    policies: EndorsementPolicies


class EndorsementChecks:
    """Judges the transactions of one block, in their order, by the state before the block."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """`connection` must show that state as long as there are transactions to judge."""
        self._connection = connection
        self._state = state.CommittedState(connection)
        # Keys whose metadata an earlier transaction of the block is to change.
        self._changed: set[tuple[str, str]] = set()
        # By a policy's SHA-256: most of a block's transactions have the same, and one endorser.
        self._shortfalls: dict[tuple[bytes, tuple[Identity, ...]], str] = {}
        self._of_chaincodes: dict[str, bytes | None] = {}
        self._with_metadata: dict[str, bool] = {}

    def check(
        self, endorsements: Endorsements, rwsets: Sequence[tuple[str, kv_rwset_pb2.KVRWSet]]
    ) -> None:
        """Return when the endorsements suffice for the called chaincode and all that is written.

        A key whose metadata holds a policy may only be written, deleted or given other metadata by
        who satisfies it; other keys fall under the policy of their chaincode. As in Fabric nobody
        may write a key in the block in which its metadata is changed, once that change had the
        endorsements that its chaincode and its keys need: even if the transaction lacks those for
        another chaincode, or proves to be a duplicate or a conflict.
        Raises MalformedTransaction.
        """
        for namespace, rwset in _written(endorsements.chaincode, rwsets):
            self._check_namespace(endorsements, namespace, rwset)
            self._changed.update((namespace, write.key) for write in rwset.metadata_writes)

    def _check_namespace(
        self, endorsements: Endorsements, namespace: str, rwset: kv_rwset_pb2.KVRWSet
    ) -> None:
        of_chaincode = self._of_chaincode(endorsements.policies, namespace)
        whose = f"the chaincode {quoted(namespace)}"
        # First what one look-up tells: of writes without endorsement an envelope holds a million.
        judged = False
        if not (rwset.writes or rwset.metadata_writes) or not self._has_policies(namespace):
            self._require(endorsements, of_chaincode, whose)
            judged = True
        if judged and not self._has_changes(namespace):
            return
        keys = dict.fromkeys(write.key for write in rwset.writes)
        keys |= dict.fromkeys(write.key for write in rwset.metadata_writes)
        for key in keys:
            if (namespace, key) in self._changed:
                raise MalformedTransaction(
                    transaction_pb2.ENDORSEMENT_POLICY_FAILURE,
                    f"The metadata of the key {quoted(key)} of {whose}, which may hold a policy, is"
                    " changed earlier in the block: submit it again.",
                )
            of_key = self._of_key(namespace, key)
            if of_key is not None:
                self._require(endorsements, of_key, f"the key {quoted(key)} of {whose}")
            elif not judged:
                self._require(endorsements, of_chaincode, whose)
                judged = True

    def _has_policies(self, namespace: str) -> bool:
        """Whether any key of it has metadata, which may hold a policy, before the block."""
        if namespace not in self._with_metadata:
            self._with_metadata[namespace] = state.has_metadata(self._connection, namespace)
        return self._with_metadata[namespace]

    def _has_changes(self, namespace: str) -> bool:
        return any(changed == namespace for changed, _ in self._changed)

    def _of_chaincode(self, policies: EndorsementPolicies, chaincode: str) -> bytes:
        if chaincode not in self._of_chaincodes:
            self._of_chaincodes[chaincode] = policies.of_chaincode(self._state, chaincode)
        policy = self._of_chaincodes[chaincode]
        if not policy:
            raise MalformedTransaction(
                transaction_pb2.INVALID_CHAINCODE,
                f"No chaincode {quoted(chaincode)} that could be written to is defined.",
            )
        return policy

    def _of_key(self, namespace: str, key: str) -> bytes | None:
        row = state.get_metadata(self._connection, namespace, key)
        policy = row[0].get(VALIDATION_PARAMETER) if row is not None else None
        if not policy:
            return None
        # Unparsed: what is no policy is found when the endorsers are held against it.
        field = policy_pb2.ApplicationPolicy.SIGNATURE_POLICY_FIELD_NUMBER
        return length_delimited(field, policy)

    def _require(self, endorsements: Endorsements, policy: bytes, whose: str) -> None:
        endorsers = endorsements.endorsers
        # Not the policy itself: of large ones there may be more than fits in memory.
        question = (sha256(policy).digest(), endorsers)
        shortfall = self._shortfalls.get(question)
        if shortfall is None:
            shortfall = endorsements.policies.shortfall(policy, endorsers)
            self._shortfalls[question] = shortfall
        if shortfall:
            who = ", ".join(map(str, endorsers)) or "nobody who counts"
            raise MalformedTransaction(
                transaction_pb2.ENDORSEMENT_POLICY_FAILURE,
                f"Endorsed by {who}, which does not satisfy the policy of {whose}. "
                + " ".join((shortfall, *endorsements.refused)),
            )


def _written(
    called: str, rwsets: Sequence[tuple[str, kv_rwset_pb2.KVRWSet]]
) -> Iterator[tuple[str, kv_rwset_pb2.KVRWSet]]:
    """The called chaincode, whether it writes or not, and the others that do."""
    yield called, next((rwset for namespace, rwset in rwsets if namespace == called), _NOTHING)
    for namespace, rwset in rwsets:
        if namespace != called and (rwset.writes or rwset.metadata_writes):
            yield namespace, rwset
