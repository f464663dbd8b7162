"""A channel: its ledger, its organisations and its policies, shared by all services of the peer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chaincode_support.ledger import Ledger
from selvedge_common.msp import MSP, Identity, PolicyNotSatisfied, identify
from selvedge_common.msp.policies import PolicyGroup

# Verdicts remembered, as many as an MSP remembers identities.
_MAX_VERDICTS = 1024


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel.

    Attributes:
        name: as proposals and envelopes name it.
        ledger: its blocks and state.
        msps: its organisations by MSP id.
        policies: its policies, as a tree from /Channel down.
    """

    name: str
    ledger: Ledger
    msps: Mapping[str, MSP]
    policies: PolicyGroup
    # (policy, serialized identity); the channel's configuration never changes.
    _satisfied: set[tuple[str, bytes]] = field(
        default_factory=set, init=False, repr=False, compare=False
    )

    def identify(self, serialized: bytes) -> Identity:
        """Read and validate an identity of any of the organisations. Raises IdentityError."""
        return identify(serialized, self.msps)

    def require(self, policy: str, identity: Identity) -> None:
        """Return when `identity` satisfies the application's `policy`, one of config_block's.

        The identity is one that `identify` has just found valid: the verdict is remembered, and
        would outlive it. Raises PolicyNotSatisfied.
        """
        verdict = (policy, identity.serialized)
        if verdict in self._satisfied:
            return
        application = self.policies.groups["Application"]
        if not application.satisfied(policy, [identity], self.msps):
            raise PolicyNotSatisfied(
                f"{identity} does not satisfy the policy /Channel/Application/{policy} of channel "
                f"{self.name}: use an identity of an organisation that the policy names"
            )
        if len(self._satisfied) >= _MAX_VERDICTS:
            self._satisfied.clear()
        self._satisfied.add(verdict)
