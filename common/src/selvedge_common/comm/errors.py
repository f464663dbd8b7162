"""What can go wrong in comm, one type for each cause."""

import grpc

from selvedge_common.quoting import printable

DETAILS_CHARACTERS = 1000
"""The longest details of a status: a stranger's text in them does not travel whole."""


class CommError(ValueError):
    """A server or a channel cannot be made as asked; the text is one sentence."""


class AddressError(CommError):
    """The address is missing, malformed, or cannot be bound."""


class CertificateError(CommError):
    """A certificate or a key cannot be used."""


class NoClientRootCertificates(CertificateError):
    """PEM given as client roots holds no certificate."""

    def __init__(self) -> None:
        super().__init__("No client root certificates found")


class StatusError(Exception):
    """Ends a call with a status of the handler's choice.

    Args:
        code: any status but OK.
        details: one sentence for the client, of which DETAILS_CHARACTERS travel.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        details = printable(details, DETAILS_CHARACTERS)
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details
