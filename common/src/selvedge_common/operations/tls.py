"""TLS of the operations endpoint: probes need no certificate, changes do."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class OperationsError(ValueError):
    """The operations endpoint cannot be made as asked; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class OperationsTLS:
    """Files, all PEM.

    Attributes:
        certificate: the server's certificate, its intermediates after it.
        key: its private key.
        client_root_cas: roots that verify client certificates; a client may come without one.
    """

    certificate: Path
    key: Path
    client_root_cas: Sequence[Path] = ()

    def context(self) -> ssl.SSLContext:
        """The server's side of TLS. Raises OperationsError naming the file."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise OperationsError(
                f"The operations certificate {self.certificate} with the key {self.key} cannot "
                f"be used: {error.strerror or error}; give a matching pair of PEM files."
            ) from error
        for file in self.client_root_cas:
            try:
                context.load_verify_locations(cafile=file)
            except (OSError, ssl.SSLError) as error:
                raise OperationsError(
                    f"The operations client root {file} cannot be used: "
                    f"{error.strerror or error}; give a PEM file of certificates."
                ) from error
        if self.client_root_cas:
            context.verify_mode = ssl.CERT_OPTIONAL
        return context
