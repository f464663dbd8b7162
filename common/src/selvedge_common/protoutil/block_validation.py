"""Whether the orderers of a channel signed a block.

Follows Fabric 3.1's protoutil.BlockSignatureVerifier and common/deliverclient, which verify the
blocks of 1.x and 2.x alike.
"""

from __future__ import annotations

from contextlib import suppress

from selvedge_common.msp import (
    Identity,
    IdentityExpired,
    IdentityNotYetValid,
    UnknownMSP,
)
from selvedge_common.msp.identity import parse_serialized
from selvedge_common.msp.policies import not_satisfied, verified_identities
from selvedge_common.protoutil.blocks import block_signatures
from selvedge_common.protoutil.config_block import ChannelConfig
from selvedge_common.quoting import quoted
from selvedge_protos.common import common_pb2

POLICY = "/Channel/Orderer/BlockValidation"

# Far more than a channel has orderers; any member of its organisations may sign as well.
_REMEMBERED = 256


class BlockValidation:
    """Who may sign a channel's blocks, by one configuration of it.

    As in Fabric the time does not matter: the signature of an orderer whose certificate has expired
    since is as good as on the day it was made. One that is revoked is not.
    """

    def __init__(self, config: ChannelConfig) -> None:
        self._config = config
        self._signers: dict[bytes, Identity] = {}
        self._sufficient: set[frozenset[Identity]] = set()

    def check(self, block: common_pb2.Block) -> None:
        """Return when the block's signatures satisfy the policy. They cover its header only.

        Raises MalformedBlock, or msp.PolicyError.
        """
        signatures = block_signatures(block, consenters=self._config.consenters)
        identities, reasons = verified_identities(signatures, self._identify)
        signers = frozenset(identities)
        if signers in self._sufficient:
            return
        config = self._config
        if not config.policies.satisfied_at(POLICY, identities, config.msps):
            raise not_satisfied(f"The policy {POLICY}", identities, reasons)
        if len(self._sufficient) >= _REMEMBERED:
            self._sufficient.clear()
        self._sufficient.add(signers)

    def _identify(self, serialized: bytes) -> Identity:
        known = self._signers.get(serialized)
        if known is not None:
            return known
        mspid = parse_serialized(serialized).mspid
        msp = self._config.msps.get(mspid)
        if msp is None:
            raise UnknownMSP(f"The organisation {quoted(mspid)} of a signer is not in the channel.")
        identity = msp.deserialize(serialized)
        # These two mean that all else is well.
        with suppress(IdentityExpired, IdentityNotYetValid):
            msp.validate(identity)
        if len(self._signers) >= _REMEMBERED:
            self._signers.clear()
        self._signers[serialized] = identity
        return identity
