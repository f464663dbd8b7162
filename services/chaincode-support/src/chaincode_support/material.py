"""The certificates and keys of this peer, as enrolment lays them out on its volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selvedge_common.comm import SecureServerConfig
from selvedge_common.msp import MSP, SigningIdentity, load_signing_identity
from selvedge_common.operations import OperationsTLS


class Material:
    """Reads the files when they are asked for.

    Args:
        folder: the volume (`peer.fileSystemPath`).
        mspid: the peer's organisation.
    """

    def __init__(self, folder: Path, mspid: str) -> None:
        self._folder = folder
        self._tls = folder / "tls"
        self._mspid = mspid

    def peer(self) -> SigningIdentity:
        """What endorsements are signed with. Raises MSPConfigurationError."""
        return load_signing_identity(self._folder / "msp", self._mspid)

    def orderer(self) -> SigningIdentity:
        """What blocks are signed with. Raises MSPConfigurationError."""
        return load_signing_identity(self._folder / "orderer-msp", self._mspid)

    def msp(self) -> MSP:
        """The organisation, by the root that enrolment brought. Raises MSPConfigurationError."""
        return MSP.load(self._folder / "msp", self._mspid)

    def server(
        self, *, require_client: bool, more_client_roots: Sequence[Path]
    ) -> SecureServerConfig:
        """TLS of the listeners. Raises OSError for a file that cannot be read."""
        root = (self._tls / "ca.crt").read_bytes()
        return SecureServerConfig(
            use_tls=True,
            certificate=(self._tls / "server.crt").read_bytes(),
            key=(self._tls / "server.key").read_bytes(),
            server_root_cas=(root,),
            client_root_cas=(root, *(file.read_bytes() for file in more_client_roots)),
            require_client_certificate=require_client,
        )

    def operations(self) -> OperationsTLS:
        """TLS of the operations endpoint."""
        return OperationsTLS(
            certificate=self._tls / "server.crt",
            key=self._tls / "server.key",
            client_root_cas=[self._tls / "ca.crt"],
        )
