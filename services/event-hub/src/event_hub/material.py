"""The certificates and keys of this hub, as enrolment lays them out in its folder."""

import hashlib
import ssl
from collections.abc import Sequence
from pathlib import Path

import grpc
from cryptography import x509

from event_hub.sources.deliver import Credentials
from selvedge_common import comm
from selvedge_common.comm import SecureServerConfig
from selvedge_common.msp import MSP, load_signing_identity
from selvedge_common.operations import OperationsTLS


class MaterialError(Exception):
    """A file of certificates or keys cannot be used; the text is one sentence."""


class Material:
    """Reads the files when they are needed, so that a renewed certificate is used from then on.

    Args:
        folder: the folder of this service (``peer.fileSystemPath``).
        mspid: the hub's organisation.
    """

    def __init__(self, folder: Path, mspid: str) -> None:
        self._tls = folder / "tls"
        self._msp = folder / "msp"
        self._mspid = mspid

    def msp(self) -> MSP:
        """The organisation, by the root that enrolment brought."""
        return MSP.load(self._msp, self._mspid)

    def server(
        self, *, require_client_certificate: bool, more_client_roots: Sequence[Path]
    ) -> SecureServerConfig:
        """TLS of the event listener.

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

    def dial(self, address: str, *, tls: bool, max_bytes: int) -> grpc.aio.Channel:
        """Open a channel to a peer, over TLS with the hub's client certificate.

        Raises:
            OSError: a file cannot be read.
            ValueError: a certificate cannot be used.
        """
        if not tls:
            return comm.channel(address, root_cas=None, max_bytes=max_bytes)
        return comm.channel(
            address,
            root_cas=(self._tls / "ca.crt").read_bytes(),
            certificate=(self._tls / "client.crt").read_bytes(),
            key=(self._tls / "client.key").read_bytes(),
            max_bytes=max_bytes,
        )

    def credentials(self, *, tls: bool) -> Credentials:
        """What the hub signs its requests with, bound to the certificate of its connection.

        Raises:
            OSError: a file cannot be read.
            ValueError: a certificate or key cannot be used.
        """
        signer = load_signing_identity(self._msp, self._mspid)
        if not tls:
            return Credentials(signer, None)
        der = ssl.PEM_cert_to_DER_cert((self._tls / "client.crt").read_text())
        return Credentials(signer, hashlib.sha256(der).digest())

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
