"""A channel: its ledger, its organisations and its policies, shared by all services of the peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaincode_support.ledger import Ledger
from selvedge_common.msp import MSP, Identity, PolicyNotSatisfied, identify
from selvedge_common.msp.policies import PolicyGroup

# Who may propose and submit, and who may read, by the names of Fabric's default ACLs.
WRITERS = "Writers"
READERS = "Readers"


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel.

    Attributes:
        name: as proposals and envelopes name it.
        ledger: its blocks and state.
        msps: its organisations by MSP id.
        application: the policies of its Application group.
    """

    name: str
    ledger: Ledger
    msps: Mapping[str, MSP]
    application: PolicyGroup

    def identify(self, serialized: bytes) -> Identity:
        """Read and validate an identity of any of the organisations. Raises IdentityError."""
        return identify(serialized, self.msps)

    def require(self, policy: str, identities: Sequence[Identity]) -> None:
        """Return when valid `identities` satisfy the application's `policy` (WRITERS, READERS).

        Raises PolicyNotSatisfied.
        """
        if not self.application.satisfied(policy, identities, self.msps):
            names = ", ".join(map(str, identities))
            raise PolicyNotSatisfied(
                f"{names} does not satisfy the policy /Channel/Application/{policy} of channel "
                f"{self.name}: use an identity of an organisation that the policy names"
            )
