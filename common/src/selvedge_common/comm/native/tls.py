"""TLS of the native transport: contexts for handshakes, and who a client is."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from selvedge_common.comm.credentials import ServerCredentials
from selvedge_common.comm.errors import CertificateError
from selvedge_common.comm.native.frames import ConnectionFault, ErrorCode
from selvedge_common.comm.openssl_file import openssl_file
from selvedge_common.quoting import printable

# What HTTP/2 leaves of TLS 1.2 (RFC 9113, section 9.2.2); TLS 1.3 has its own.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def context(credentials: ServerCredentials) -> ssl.SSLContext:
    """What handshakes use that begin from now on.

    Raises:
        CertificateError: OpenSSL does not take the certificates.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(_CIPHERS)
    made.set_alpn_protocols(["h2"])
    # No tickets: nobody needs them. TLS 1.2 keeps sessions all the same; see NativeServer.
    made.options |= ssl.OP_NO_TICKET
    made.num_tickets = 0
    made.verify_mode = {
        (True, True): ssl.CERT_REQUIRED,
        (True, False): ssl.CERT_REQUIRED,
        (False, True): ssl.CERT_OPTIONAL,
        (False, False): ssl.CERT_NONE,
    }[credentials.required, credentials.requested]
    try:
        with openssl_file(credentials.certificate + b"\n" + credentials.key) as path:
            made.load_cert_chain(path)
        if credentials.client_root_cas:
            made.load_verify_locations(cadata=b"".join(credentials.client_root_cas).decode())
    except (OSError, ValueError) as error:  # OpenSSL's errors are OSErrors, as is having no file
        raise CertificateError(
            f"The certificates of this listener cannot be taken up: {error}."
        ) from error
    return made


@dataclass(slots=True)
class PeerIdentity:
    """The client of a connection.

    Attributes:
        address: in gRPC's form.
        remote, local: the two ends of its socket.
        cipher: what TLS agreed on; empty without TLS.
        speaks_http2: whether ALPN chose h2; without TLS it does not matter.
        chain: its certificates as they were verified, leaf first, as DER; none if it showed none.
    """

    address: str = ""
    remote: Sequence[Any] = ()
    local: Sequence[Any] = ()
    cipher: str = ""
    speaks_http2: bool = False
    chain: Sequence[bytes] = ()
    _context: dict[str, list[bytes]] = field(
        default_factory=lambda: _PLAIN_CONTEXT.copy(), repr=False
    )

    @classmethod
    def of(cls, transport: asyncio.Transport) -> "PeerIdentity":
        """Ask a transport, once its handshake is over."""
        remote = transport.get_extra_info("peername") or ()
        local = transport.get_extra_info("sockname") or ()
        identity = cls(address(remote), remote, local)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None:
            identity.speaks_http2 = tls.selected_alpn_protocol() == "h2"
            identity.chain = _verified_chain(tls)
            identity.cipher = (tls.cipher() or ("",))[0]
            version = tls.version() or ""
            identity._context = _TLS_CONTEXT | {"ssl_tls_version": [version.encode()]}
        return identity

    def describe(self) -> str:
        """The client's certificate in a line of the log."""
        if not self.chain:
            return "none"
        try:
            leaf = x509.load_der_x509_certificate(self.chain[0])
            return f"{printable(leaf.subject.rfc4514_string())}, serial {leaf.serial_number:x}"
        except ValueError:
            return "unreadable"

    def auth_context(self) -> dict[str, list[bytes]]:
        """What TLS knows of the client, under grpcio's keys."""
        known = self._context
        if self.chain and "x509_pem_cert" not in known:
            known |= _describe([x509.load_der_x509_certificate(der) for der in self.chain])
        return {key: list(values) for key, values in known.items()}


_PLAIN_CONTEXT: dict[str, list[bytes]] = {
    "transport_security_type": [b"insecure"],
    "security_level": [b"TSI_SECURITY_NONE"],
}
_TLS_CONTEXT: dict[str, list[bytes]] = {
    "transport_security_type": [b"ssl"],
    "security_level": [b"TSI_PRIVACY_AND_INTEGRITY"],
    "ssl_session_reused": [b"false"],
}


NO_LONGER_TRUSTED = ConnectionFault(
    ErrorCode.NO_ERROR,
    "The client's certificate is revoked, or its root is not trusted any more; get a new one.",
    reason="not_trusted",
)


def handshake_failure(error: BaseException) -> tuple[str, str]:
    """Why a handshake failed: a word for the metric, and a sentence for the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            "certificate",
            f"The client's certificate was refused: {error.verify_message}; get one from this "
            "network's ca, or add its root to the client roots.",
        )
    reason = (getattr(error, "reason", None) or "").upper() if isinstance(error, OSError) else ""
    for words, word, sentence in _HANDSHAKE_FAILURES:
        if any(each in reason for each in words):
            return word, sentence
    if "handshake is taking longer" in str(error):
        return "timeout", "The client did not finish its TLS handshake in time."
    if isinstance(error, OSError):
        return "lost", "The client left during the TLS handshake."
    return "unreadable", f"The client's certificate cannot be read: {printable(str(error))}."


_HANDSHAKE_FAILURES = (
    (
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE",),
        "no_certificate",
        "The client showed no certificate, and one is required; give it a client pair.",
    ),
    (
        ("HTTP_REQUEST", "WRONG_VERSION_NUMBER", "PACKET_LENGTH", "RECORD_LAYER", "UNEXPECTED"),
        "plaintext",
        "The client speaks plaintext, and this port is TLS; switch one of them.",
    ),
    (
        ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "CERTIFICATE_EXPIRED"),
        "server_not_trusted",
        "The client does not trust this server's certificate; give it the ca's root.",
    ),
    (
        ("UNSUPPORTED_PROTOCOL", "NO_SHARED_CIPHER", "NO_PROTOCOLS", "VERSION"),
        "version",
        "The client offers no TLS that is served here: 1.2 with ECDHE and AES-GCM or ChaCha20, or "
        "1.3.",
    ),
)


def _verified_chain(tls: ssl.SSLObject) -> Sequence[bytes]:
    leaf = tls.getpeercert(binary_form=True)
    if leaf is None:
        return ()
    # Public from Python 3.13 on, as SSLObject.get_verified_chain.
    chain = tls._sslobj.get_verified_chain()  # type: ignore[attr-defined]
    if not chain:
        # A session that TLS 1.2 took up again remembers no more than the certificate itself.
        return [leaf]
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain]


def _describe(chain: Sequence[x509.Certificate]) -> dict[str, list[bytes]]:
    leaf = chain[0]
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    found = {
        "x509_subject": [_subject(leaf.subject)],
        "x509_common_name": [_text(names[0].value) if names else b""],
    }
    alternatives = _alternatives(leaf)
    if alternatives:
        found["x509_subject_alternative_name"] = [value for _, value in alternatives]
    for kind, value in alternatives:
        if kind:
            found.setdefault(f"peer_{kind}", []).append(value)
    uris = found.get("peer_uri", [])
    if len(uris) == 1 and uris[0].startswith(b"spiffe://"):
        found["peer_spiffe_id"] = uris
    found["x509_pem_cert"] = [leaf.public_bytes(Encoding.PEM)]
    found["x509_pem_cert_chain"] = [b"".join(each.public_bytes(Encoding.PEM) for each in chain)]
    return found


def _subject(name: x509.Name) -> bytes:
    """A name as OpenSSL prints it by RFC 2253, which is what gRPC shows."""
    text = ",".join(
        "+".join(each.rfc4514_string(_SHORT_NAMES) for each in reversed(list(part)))
        for part in reversed(name.rdns)
    )
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:02X}" for byte in text.encode()
    ).encode()


_SHORT_NAMES = {
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.TITLE: "title",
    NameOID.GIVEN_NAME: "GN",
    NameOID.SURNAME: "SN",
    NameOID.STREET_ADDRESS: "street",
}


def _alternatives(leaf: x509.Certificate) -> list[tuple[str, bytes]]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    kinds = {x509.DNSName: "dns", x509.UniformResourceIdentifier: "uri", x509.RFC822Name: "email"}
    found = []
    for name in names:
        if isinstance(name, x509.IPAddress):
            found.append(("ip", str(name.value).encode()))
        elif type(name) in kinds:
            found.append((kinds[type(name)], _text(name.value)))
        else:
            found.append(("", b"other types of SAN"))
    return found


def _text(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def address(name: Sequence[object]) -> str:
    """A socket's name for its other end, in gRPC's form."""
    if not name:
        return "unknown"
    host, port = str(name[0]), name[1]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
