"""What the hub dials and signs with, besides the certificates that every service has."""

import hashlib
import ssl

import grpc

from event_hub.sources.deliver import Credentials
from selvedge_common import comm, material
from selvedge_common.msp import load_signing_identity


class Material(material.Material):
    """The certificates and keys of this hub."""

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
        signer = load_signing_identity(self._folder / "msp", self._mspid)
        if not tls:
            return Credentials(signer, None)
        der = ssl.PEM_cert_to_DER_cert((self._tls / "client.crt").read_text())
        return Credentials(signer, hashlib.sha256(der).digest())
