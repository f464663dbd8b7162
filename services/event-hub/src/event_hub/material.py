"""What the hub dials its sources and signs with, besides the material that every service has."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from event_hub.config import Source, SourceMSP, SourceTLS
from event_hub.sources.connection import Dialled
from selvedge_common import comm, material
from selvedge_common.msp import SigningIdentity, load_signing_identity

_T = TypeVar("_T")


class Material(material.Material):
    """The certificates and keys of this hub."""

    def dial(self, address: str, source: Source, key: str) -> Dialled:
        """Open a channel to an address of a source, with what is to be shown there.

        All files are read now, so that a renewed certificate is used from the next connection on.

        Args:
            address: host:port.
            source: the source.
            key: its key in the settings, for sentences.

        Raises:
            OSError: a file cannot be read.
            ValueError: a certificate or key cannot be used.
        """
        signer = self._signer(source.msp)
        tls, max_bytes = source.tls, source.max_recv_msg_size
        if not tls.enabled:
            return Dialled(comm.channel(address, root_cas=None, max_bytes=max_bytes), signer, None)
        certificate, private_key, digest = self._pair(tls, f"{key}.tls")
        opened = comm.channel(
            address,
            root_cas=self._roots(tls, f"{key}.tls"),
            certificate=certificate,
            key=private_key,
            max_bytes=max_bytes,
            server_name=tls.server_name_override or None,
        )
        return Dialled(opened, signer, digest)

    def _signer(self, msp: SourceMSP) -> SigningIdentity:
        if msp.folder is None:
            return load_signing_identity(self._folder / "msp", self._mspid)
        return load_signing_identity(msp.folder, msp.id)

    def _roots(self, tls: SourceTLS, key: str) -> Sequence[bytes]:
        files = tls.root_cas or [self._tls / "ca.crt"]
        found = (
            _load(file, f"{key}.rootCAs", "certificate", x509.load_pem_x509_certificates)[1]
            for file in files
        )
        # Anew in PEM, since a file may lack its last line break.
        return [
            certificate.public_bytes(Encoding.PEM)
            for certificates in found
            for certificate in certificates
        ]

    def _pair(self, tls: SourceTLS, key: str) -> tuple[bytes, bytes, bytes]:
        """Certificate and private key, and the hash of the certificate, which requests repeat."""
        file = tls.certificate or self._tls / "client.crt"
        key_file = tls.key or self._tls / "client.key"
        pem, certificate = _load(
            file, f"{key}.certificate", "certificate", x509.load_pem_x509_certificate
        )
        key_pem, private_key = _load(
            key_file, f"{key}.key", "private key", lambda data: load_pem_private_key(data, None)
        )
        if private_key.public_key() != certificate.public_key():
            raise ValueError(
                f"{key}.key: {key_file} is not the key of the certificate {file}; give the pair "
                "that was made together"
            )
        return pem, key_pem, hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def _load(file: Path, key: str, what: str, parse: Callable[[bytes], _T]) -> tuple[bytes, _T]:
    """Read and parse a file that a setting names. Raises OSError or ValueError saying which."""
    try:
        content = file.read_bytes()
        return content, parse(content)
    except OSError as error:
        raise OSError(
            f"{key}: {file} cannot be read: {error.strerror}; make it readable"
        ) from error
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{key}: {file} holds no {what} that can be read; give one in PEM"
        ) from error
