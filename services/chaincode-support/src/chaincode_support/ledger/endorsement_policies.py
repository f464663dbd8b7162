"""Which endorsements the writes of a chaincode need, and who satisfies that.

Follows release 2.5: core/chaincode/lifecycle (ValidationInfo: whose policy, and what a definition
falls back on) and core/policy/application.go.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from chaincode_support.system.names import SYSTEM_CHAINCODES
from selvedge_common.msp import MSP, Identity, PolicyError
from selvedge_common.msp.policies import PolicyGroup, endorsement_satisfied
from selvedge_common.protoutil.config_block import ENDORSEMENT
from selvedge_common.protoutil.errors import MalformedMessage
from selvedge_common.protoutil.wire import parse
from selvedge_protos.peer import policy_pb2

# A key's policy is read at every write to the key, and costs by its size. Not a setting: all who
# validate a block must come to the same codes.
MAX_POLICY_BYTES = 256 * 1024

_APPLICATION = "/Channel/Application/"
_LIFECYCLE = "_lifecycle"
_LIFECYCLE_ENDORSEMENT = "LifecycleEndorsement"


class ReadableState(Protocol):
    """The state of a channel at one moment; a Simulator is one too."""

    def get_state(self, namespace: str, key: str) -> bytes | None:
        """The key's value, or None when it does not exist."""


class ChaincodePolicies(Protocol):
    """What a channel's definitions of chaincodes say of endorsement."""

    def endorsement_policy(self, state: ReadableState, chaincode: str) -> bytes | None:
        """The marshalled protos.ApplicationPolicy of a chaincode; None when it is not defined.

        `state` is that before the block, so a definition counts from the next block on.
        """


class DefaultPolicies:
    """Every chaincode is defined, with the policy of a definition that names none of its own.

    Of the system chaincodes only _lifecycle can be written to, as in Fabric.
    """

    def endorsement_policy(self, state: ReadableState, chaincode: str) -> bytes | None:
        """Implements ChaincodePolicies."""
        if chaincode == _LIFECYCLE:
            return channel_policy(_LIFECYCLE_ENDORSEMENT)
        if not chaincode or chaincode in SYSTEM_CHAINCODES:
            return None
        return channel_policy(ENDORSEMENT)


def channel_policy(name: str) -> bytes:
    """The endorsement policy that refers to a policy of the channel's Application group."""
    return policy_pb2.ApplicationPolicy(
        channel_config_policy_reference=_APPLICATION + name
    ).SerializeToString()


class EndorsementPolicies:
    """The endorsement policies of a channel."""

    def __init__(
        self, chaincodes: ChaincodePolicies, policies: PolicyGroup, msps: Mapping[str, MSP]
    ) -> None:
        """`policies`: the channel's, from /Channel down; `msps`: its organisations by MSP id."""
        self._chaincodes = chaincodes
        self._policies = policies
        self._msps = msps

    def of_chaincode(self, state: ReadableState, chaincode: str) -> bytes | None:
        """See ChaincodePolicies.endorsement_policy."""
        return self._chaincodes.endorsement_policy(state, chaincode)

    def shortfall(self, policy: bytes, endorsers: Sequence[Identity]) -> str:
        """Why `endorsers`, distinct and verified, do not satisfy a marshalled ApplicationPolicy.

        Empty when they do. What is no policy is satisfied by nobody.
        """
        if len(policy) > MAX_POLICY_BYTES:
            return f"The policy has {len(policy)} bytes: at most {MAX_POLICY_BYTES} are read."
        try:
            parsed = parse(policy_pb2.ApplicationPolicy, policy, "endorsement policy")
            if endorsement_satisfied(parsed, self._policies, endorsers, self._msps):
                return ""
        except (MalformedMessage, PolicyError) as error:
            return str(error)
        return "The policy asks for others, or for more of them."
