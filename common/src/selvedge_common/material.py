"""The certificates and keys of a service, as enrolment lays them out in its folder."""

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from selvedge_common.comm import SecureServerConfig
from selvedge_common.msp import MSP
from selvedge_common.operations import OperationsTLS


class MaterialError(Exception):
    """A file of certificates or keys cannot be used; the text is one sentence."""


class Material:
    """Reads the files when they are needed, so that a renewed certificate is used from then on.

    Args:
        folder: the folder of the service (``peer.fileSystemPath``).
        mspid: its organisation.
    """

    def __init__(self, folder: Path, mspid: str) -> None:
        self._folder = folder
        self._tls = folder / "tls"
        self._mspid = mspid

    def msp(self) -> MSP:
        """The organisation, by the root that enrolment brought. Raises MSPConfigurationError."""
        return MSP.load(self._folder / "msp", self._mspid)

    def server(
        self, *, require_client_certificate: bool, more_client_roots: Sequence[Path]
    ) -> SecureServerConfig:
        """TLS of the listeners.

        Args:
            require_client_certificate: whether clients need a certificate of the client roots.
            more_client_roots: PEM files of roots beside the one that enrolment brought
                (``peer.tls.clientRootCAs.files``).

        Raises:
            MaterialError: a file cannot be read, or one of the further roots is no certificate.
        """
        root = self._own("ca.crt")
        return SecureServerConfig(
            use_tls=True,
            certificate=self._own("server.crt"),
            key=self._own("server.key"),
            server_root_cas=(root,),
            client_root_cas=(root, *map(_roots, more_client_roots)),
            require_client_certificate=require_client_certificate,
        )

    def operations(self) -> OperationsTLS:
        """TLS of the operations endpoint."""
        return OperationsTLS(
            certificate=self._tls / "server.crt",
            key=self._tls / "server.key",
            client_root_cas=[self._tls / "ca.crt"],
        )

    def _own(self, name: str) -> bytes:
        file = self._tls / name
        try:
            return file.read_bytes()
        except OSError as error:
            raise MaterialError(
                f"{file}, in the folder peer.fileSystemPath, cannot be read: {error.strerror}; "
                "make it readable, or delete it and start again, which enrols anew"
            ) from error


def _roots(file: Path) -> bytes:
    """Read a file of ``peer.tls.clientRootCAs.files``, which no part of the server can name."""
    remedy = "give a readable file of PEM certificates, or take it off the list"
    try:
        content = file.read_bytes()
        x509.load_pem_x509_certificates(content)
    except OSError as error:
        raise MaterialError(
            f"peer.tls.clientRootCAs.files: {file} cannot be read: {error.strerror}; {remedy}"
        ) from error
    except ValueError as error:
        raise MaterialError(
            f"peer.tls.clientRootCAs.files: {file} holds no certificate that can be read; {remedy}"
        ) from error
    return content
