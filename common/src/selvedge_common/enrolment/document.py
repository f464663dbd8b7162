"""`enrolment.json`: where the ca is, how to recognise it, and tokens that give certificates."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_MAX_BYTES = 64 * 1024
_TEXTS = ("caAddress", "tlsRoot", "tlsRootSha256", "mspId")


class EnrolmentError(Exception):
    """Enrolment failed and waiting does not help. One sentence: what, where, what to do."""


@dataclass(frozen=True)
class Enrolment:
    """The content of one enrolment file.

    Attributes:
        ca_address: host:port of the ca's gRPC service.
        tls_root: the TLS root in PEM, by which the ca is recognised.
        tls_root_sha256: SHA-256 of the root's DER, lower-case hex.
        msp_id: the organisation's MSP id.
        tokens: one-time tokens by profile name.
    """

    ca_address: str
    tls_root: bytes
    tls_root_sha256: str
    msp_id: str
    tokens: Mapping[str, str]

    def to_json(self) -> bytes:
        """The file's bytes; `parse` gives back an equal value."""
        content = {
            "caAddress": self.ca_address,
            "tlsRoot": self.tls_root.decode("ascii"),
            "tlsRootSha256": self.tls_root_sha256,
            "mspId": self.msp_id,
            "tokens": dict(self.tokens),
        }
        return json.dumps(content, indent=2).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes, source: str) -> Enrolment:
        """Reads an enrolment file's bytes.

        Args:
            data: the bytes.
            source: where they came from, for the error's sentence.

        Raises:
            EnrolmentError: not JSON of that form, or the root and its fingerprint disagree.
        """
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise EnrolmentError(f"{source} is not JSON ({error}): {_ASK_ANEW}") from None
        if not isinstance(content, dict):
            raise EnrolmentError(f"{source} is not a JSON object: {_ASK_ANEW}")
        for key in _TEXTS:
            if not isinstance(content.get(key), str) or not content[key]:
                raise EnrolmentError(f"{source} lacks the text {key!r}: {_ASK_ANEW}")
        tokens = content.get("tokens")
        if not isinstance(tokens, dict) or not all(
            isinstance(token, str) and token for token in tokens.values()
        ):
            raise EnrolmentError(f"{source} lacks 'tokens', profile names with tokens: {_ASK_ANEW}")
        enrolment = cls(
            content["caAddress"],
            content["tlsRoot"].encode(errors="replace"),
            content["tlsRootSha256"].lower(),
            content["mspId"],
            tokens,
        )
        if fingerprint(enrolment.tls_root, source) != enrolment.tls_root_sha256:
            raise EnrolmentError(
                f"{source} was altered: its tlsRoot has another fingerprint than its "
                f"tlsRootSha256; {_ASK_ANEW}"
            )
        return enrolment

    @classmethod
    def load(cls, path: Path) -> Enrolment:
        """Reads an enrolment file.

        Raises:
            FileNotFoundError: there is none (yet).
            EnrolmentError: it cannot be read or is not of that form.
        """
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise EnrolmentError(
                f"cannot read {path}: {error.strerror}; let this user read it"
            ) from error
        if len(data) > _MAX_BYTES:
            raise EnrolmentError(f"{path} has more than {_MAX_BYTES} bytes: {_ASK_ANEW}")
        return cls.parse(data, str(path))


_ASK_ANEW = "ask the ca for a new one with `certificate-authority token`"


def fingerprint(certificate: bytes, source: str) -> str:
    """SHA-256 of a PEM certificate's DER, lower-case hex.

    Raises:
        EnrolmentError: `certificate` is not PEM; the sentence names `source`.
    """
    try:
        der = ssl.PEM_cert_to_DER_cert(certificate.decode("ascii").strip())
    except ValueError:
        raise EnrolmentError(f"{source} holds no certificate in PEM: {_ASK_ANEW}") from None
    return hashlib.sha256(der).hexdigest()
