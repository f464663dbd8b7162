"""The certificates and keys of a service, as enrolment lays them out in its folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509

from selvedge_common.comm import SecureServerConfig
from selvedge_common.config.sections import TLS
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

    def server(self, tls: TLS) -> SecureServerConfig:
        """TLS of the listeners.

        Args:
            tls: ``peer.tls``; its client roots come beside the one that enrolment brought.

        Raises:
            MaterialError: a file cannot be read, or one of the further roots is no certificate.
        """
        root = self._own("ca.crt")
        return SecureServerConfig(
            use_tls=True,
            certificate=self._own("server.crt"),
            key=self._own("server.key"),
            server_root_cas=(root,),
            client_root_cas=(root, *map(_roots, tls.client_root_cas.files)),
            require_client_certificate=tls.client_auth_required,
            request_client_certificate=tls.client_auth_requested,
            revocation_lists=tuple(map(_revocations, tls.revocation_lists.files)),
        )

    def server_files(self, tls: TLS) -> Sequence[Path]:
        """The files that `server` reads."""
        own = (self._tls / name for name in ("ca.crt", "server.crt", "server.key"))
        return *own, *tls.client_root_cas.files, *tls.revocation_lists.files

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
    return _listed(
        file, "peer.tls.clientRootCAs.files", "certificate", x509.load_pem_x509_certificates
    )


def _revocations(file: Path) -> bytes:
    return _listed(
        file, "peer.tls.revocationLists.files", "revocation list", x509.load_pem_x509_crl
    )


def _listed(file: Path, key: str, what: str, parse: Callable[[bytes], object]) -> bytes:
    """Read a file of a list of settings, which no part of the server can name."""
    remedy = f"give a readable file with a PEM {what}, or take it off the list"
    try:
        content = file.read_bytes()
        parse(content)
    except OSError as error:
        raise MaterialError(f"{key}: {file} cannot be read: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise MaterialError(f"{key}: {file} holds no {what} that can be read; {remedy}") from error
    return content
