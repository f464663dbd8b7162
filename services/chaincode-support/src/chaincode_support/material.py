"""What this peer signs with, besides the certificates that every service has."""

from __future__ import annotations

from selvedge_common import material
from selvedge_common.msp import SigningIdentity, load_signing_identity


class Material(material.Material):
    """The certificates and keys of this peer."""

    def peer(self) -> SigningIdentity:
        """What endorsements are signed with. Raises MSPConfigurationError."""
        return load_signing_identity(self._folder / "msp", self._mspid)

    def orderer(self) -> SigningIdentity:
        """What blocks are signed with. Raises MSPConfigurationError."""
        return load_signing_identity(self._folder / "orderer-msp", self._mspid)
