"""Who signs and dials."""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selvedge_client.errors import CredentialsError
from selvedge_common.msp import (
    IdentityError,
    MSPConfigurationError,
    SigningIdentity,
    load_signing_identity,
)


@dataclass(frozen=True)
class User:
    """An identity of an organisation, and what it shows in TLS.

    Attributes:
        signer: signs requests.
        tls_root: the root that servers' certificates come from, PEM; empty for plaintext.
        tls_certificate, tls_key: the pair to dial with, PEM; empty where servers want none.
    """

    signer: SigningIdentity
    tls_root: bytes
    tls_certificate: bytes = b""
    tls_key: bytes = b""

    @classmethod
    def read(cls, msp: Path | str, tls: Path | str | None, *, mspid: str = "Org1MSP") -> User:
        """Read a user's files.

        Args:
            msp: a folder in Fabric's layout: `signcerts` with the certificate, `keystore` with its
                key.
            tls: a folder with `ca.crt` and, where servers want a certificate, `client.crt` and
                `client.key`; None for plaintext.
            mspid: the organisation's MSP id.

        Raises:
            CredentialsError: a file is missing, or cannot be used.
        """
        try:
            signer = load_signing_identity(Path(msp), mspid)
            if tls is None:
                return cls(signer, b"")
            root, *pair = (Path(tls) / name for name in ("ca.crt", "client.crt", "client.key"))
            if not any(file.exists() for file in pair):
                return cls(signer, root.read_bytes())
            return cls(signer, root.read_bytes(), *(file.read_bytes() for file in pair))
        except (IdentityError, MSPConfigurationError) as error:
            raise CredentialsError(str(error)) from error
        except OSError as error:
            raise CredentialsError(
                f"{error.filename} cannot be read ({error.strerror}): enrol the user, or give the "
                "folder that it was enrolled into"
            ) from error

    @property
    def tls_hash(self) -> bytes:
        """SHA-256 of the TLS certificate in DER, which binds signed requests to the connection;
        empty without one."""
        if not self.tls_certificate:
            return b""
        der = ssl.PEM_cert_to_DER_cert(self.tls_certificate.decode("ascii"))
        return hashlib.sha256(der).digest()


def selvedge_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of certificates and local services: $SELVEDGE_HOME, or .selvedge here."""
    return Path(environ.get("SELVEDGE_HOME") or ".selvedge")
