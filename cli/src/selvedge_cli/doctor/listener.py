"""Who listens at an address: found out by dialling it, and by what its handshakes tell.

Three steps, each of which can fail for reasons of its own: a connection, TLS, and the first frame
of HTTP/2, which a listener that refuses a client's certificate never sends: TLS 1.3 refuses only
after its handshake.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509

from selvedge_cli.addresses import port_of
from selvedge_common.quoting import quoted

TIMEOUT = 3.0
"""Seconds for each step."""
HTTP2 = "h2"

_SETTINGS = 4
_FRAME_HEAD = 9
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0))
_GREETING = 64  # bytes of what a listener says without TLS
# OpenSSL's X509_V_ERR_*.
_NOT_YET_VALID, _EXPIRED = 9, 10
# The first is a bad signature: all roots of ours have the same name.
_OTHER_ROOT = {7, 2, 18, 19, 20, 21}
_OTHER_NAME = {62, 64}

_OTHER_PROGRAM = (
    "another program has this port: stop it, or move the services (`selvedge up --port-offset`) "
    "and give their addresses"
)
_RENEW_SERVER = "start that service again, which then gets a new certificate"
# What a listener's alert says of our certificate, and what to do.
_REFUSALS = {
    "UNKNOWN_CA": (
        "does not trust the root of our certificate",
        "get a new one, or start the service again on the ca's present root",
    ),
    "CERTIFICATE_EXPIRED": (
        "finds our certificate expired",
        "get a new one, or set the clocks of both machines right",
    ),
    "CERTIFICATE_REVOKED": ("finds our certificate revoked", "get a new one"),
    "CERTIFICATE_REQUIRED": (
        "demands a client certificate",
        "get one for this user from the ca",
    ),
}
_REFUSED = ("refuses our certificate", "its log says why; get a new one")


class Fault(Exception):
    """Something is wrong with who listens.

    Attributes:
        what: the verb and what follows, as in "presents ..."
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}")
        self.what = what
        self.remedy = remedy


class NothingListens(Fault):
    """Nobody is there."""


def dial(
    address: str,
    root: Path | None,
    pair: tuple[Path, Path] | None,
    *,
    protocol: str | None = HTTP2,
) -> x509.Certificate:
    """Dial a listener of ours; gives the certificate that it presents.

    Args:
        address: host:port.
        root: the file of the root that it should be of; None where that is not known.
        pair: files of the certificate and key to dial with, which are good; None for none.
        protocol: what it has to speak on top of TLS; None for anything.

    Raises:
        Fault: what is wrong, the first that is.
    """
    context = _context(root, pair, protocol)
    try:
        secured = _secured(address, context)
    except ssl.SSLCertVerificationError as failure:
        raise _untrusted(failure, address, root, pair) from failure
    except OSError as failure:
        raise _refusal(failure) or _without_tls(address) from failure
    with secured:
        if protocol is not None and secured.selected_alpn_protocol() != protocol:
            raise Fault("speaks TLS, but not gRPC", _OTHER_PROGRAM)
        if protocol == HTTP2 and pair is not None:
            try:
                _greet(secured)
            except OSError as failure:
                raise _refusal(failure) or _why_it_ended(address, context) from failure
        return _presented(secured)


def expiry(certificate: x509.Certificate, now: datetime) -> Fault | None:
    """What is wrong with how long a listener's certificate lasts; None where nothing is."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= ends:
        return Fault(f"presents a certificate that expired on {ends:%Y-%m-%d}", _RENEW_SERVER)
    if ends - now < (ends - begins) / 3:
        return Fault(f"presents a certificate that expires on {ends:%Y-%m-%d}", _RENEW_SERVER)
    return None


def _connect(address: str) -> socket.socket:
    try:
        return socket.create_connection((_host(address), port_of(address)), TIMEOUT)
    except ConnectionRefusedError as failure:
        raise NothingListens(
            "nothing listens there", "start the services with `selvedge up` or `docker compose up`"
        ) from failure
    except TimeoutError as failure:
        raise Fault(
            f"does not answer within {TIMEOUT:g} s",
            "look for a firewall on the way, or give another address",
        ) from failure
    except (socket.gaierror, UnicodeError) as failure:
        raise Fault(
            "has a host name that is not known here", "give another address, or make the name known"
        ) from failure
    except OSError as failure:
        raise Fault(f"cannot be reached ({failure.strerror})", "give another address") from failure


def _secured(address: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(_connect(address), server_hostname=_host(address))


def _context(
    root: Path | None, pair: tuple[Path, Path] | None, protocol: str | None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if root is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(root)
    if pair is not None:
        context.load_cert_chain(*pair)
    if protocol is not None:
        context.set_alpn_protocols([protocol])
    return context


def _untrusted(
    failure: ssl.SSLCertVerificationError,
    address: str,
    root: Path | None,
    pair: tuple[Path, Path] | None,
) -> Fault:
    code = failure.verify_code
    if code == _EXPIRED:
        return Fault("presents a certificate that has expired", _RENEW_SERVER)
    if code == _NOT_YET_VALID:
        return Fault(
            "presents a certificate that is not valid yet",
            "this machine's clock and the ca's differ: set both right",
        )
    if code in _OTHER_NAME:
        certificate = dial(address, None, pair, protocol=None)
        return Fault(
            f"presents a certificate for {_names(certificate)}, and not for {_host(address)}",
            "dial it by one of its names, or add this one to the member's extraSans at the ca",
        )
    if code in _OTHER_ROOT:
        return Fault(
            f"presents a certificate of another root than {root}",
            "services of another home run there: give it with --home, or stop them",
        )
    return Fault(
        f"presents a certificate that cannot be trusted ({failure.verify_message})", _RENEW_SERVER
    )


def _greet(secured: ssl.SSLSocket) -> None:
    """Exchange HTTP/2's first frames; who refuses our certificate ends the connection instead."""
    secured.sendall(_PREFACE)
    head = _read(secured, _FRAME_HEAD)
    if len(head) < _FRAME_HEAD:
        raise ConnectionResetError
    if head[3] != _SETTINGS:
        raise Fault("speaks TLS, but not gRPC", _OTHER_PROGRAM)


def _refusal(failure: OSError) -> Fault | None:
    """What an alert of TLS says of our certificate; None for any other failure."""
    reason = getattr(failure, "reason", None) or ""
    if "ALERT" not in reason:
        return None
    known = next((said for sign, said in _REFUSALS.items() if reason.endswith(sign)), None)
    if known is not None:
        return Fault(*known)
    if "CERTIFICATE" in reason or reason.endswith("HANDSHAKE_FAILURE"):
        return Fault(*_REFUSED)
    return Fault(f"refuses the handshake of TLS ({reason.lower()})", _OTHER_PROGRAM)


def _why_it_ended(address: str, context: ssl.SSLContext) -> Fault:
    """Why it ends the connection, from one on which nothing is sent: what it has not read when it
    ends one can cost us its alert."""
    refusal = None
    try:
        with _secured(address, context) as secured:
            secured.recv(1)
    except OSError as failure:
        refusal = _refusal(failure)
    # Servers of grpcio and asyncio end it without a word.
    return refusal or Fault(
        "ends the connection once it has seen our certificate",
        "its log says why; most likely the certificate is of another root than the service trusts, "
        "or has expired: get a new one",
    )


def _without_tls(address: str) -> Fault:
    """What it speaks instead, by what it answers to HTTP/2's preface."""
    said = b""
    try:
        with _connect(address) as connection:
            connection.sendall(_PREFACE)
            said = connection.recv(_GREETING)
    except OSError:
        pass  # it says nothing
    if len(said) >= _FRAME_HEAD and said[3] == _SETTINGS and said[0] == 0:
        return Fault(
            "speaks gRPC without TLS",
            "start that service with peer.tls.enabled on, and with no CORE_PEER_TLS_ENABLED=false",
        )
    if said.startswith(b"HTTP/"):
        return Fault(
            "speaks HTTP without TLS",
            f"if it is a service of ours, set operations.tls.enabled; if not, {_OTHER_PROGRAM}",
        )
    shown = f" (it says {quoted(said)})" if said else ""
    return Fault(f"speaks neither TLS nor HTTP{shown}", _OTHER_PROGRAM)


def _read(connection: socket.socket, count: int) -> bytes:
    read = b""
    while len(read) < count and (more := connection.recv(count - len(read))):
        read += more
    return read


def _presented(secured: ssl.SSLSocket) -> x509.Certificate:
    der = secured.getpeercert(binary_form=True)
    assert der is not None  # a server has one
    return x509.load_der_x509_certificate(der)


def _names(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no name"
    said: Sequence[str] = [
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    ]
    return ", ".join(said) or "no name"


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")
