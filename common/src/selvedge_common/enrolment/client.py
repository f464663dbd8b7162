"""From an enrolment file to certificates on disk, waiting for whatever is not there yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from selvedge_common.enrolment import layout, material
from selvedge_common.enrolment.document import Enrolment, EnrolmentError
from selvedge_common.enrolment.layout import Credential
from selvedge_common.enrolment.metrics import CERTIFICATE_EXPIRY
from selvedge_common.logs import get_logger

if TYPE_CHECKING:
    import grpc.aio

DEFAULT_PATIENCE = 60.0
"""Seconds to wait for an enrolment file and for the ca behind it."""
RENEWAL_PATIENCE = 5.0
"""Seconds to wait for the ca where the certificates are good, and just not for long any more."""

# Everything starts at the same moment, so the first looks are close together.
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5
_DIAL_TIMEOUT = 2.0
_CALL_TIMEOUT = 10.0
_ASKED = "it was asked for"
_MAX_ANSWER_BYTES = 256 * 1024

_Why = Callable[[Credential, Enrolment | None], str | None]
"""Why a certificate is wanted anew, given the enrolment file's content; None where it is not."""

_log = get_logger("enrolment")


class _NotYet(Exception):
    """Something is missing that may appear: worth another look."""


async def enrol_service(
    folder: Path,
    enrolment: Path,
    *,
    identities: Sequence[str] = ("peer",),
    ca_address: str | None = None,
    patience: float = DEFAULT_PATIENCE,
) -> None:
    """A service's certificates: `tls/{server,client}.{crt,key}`, `tls/ca.crt`, `msp/`,
    `orderer-msp/`.

    Args:
        folder: the service's volume.
        enrolment: its enrolment file; need not be there if the certificates are, and are good.
        identities: `peer` (into `msp/`) and `orderer` (into `orderer-msp/`).
        ca_address: host:port, where it is not the one in the enrolment file.
        patience: seconds to wait for the file and for the ca.

    Raises:
        EnrolmentError: see `ensure_enrolled`.
    """
    await ensure_enrolled(
        folder, layout.service(identities), enrolment, ca_address=ca_address, patience=patience
    )


async def enrol_user(
    folder: Path,
    enrolment: Path | Enrolment,
    *,
    profile: str = "user",
    ca_address: str | None = None,
    patience: float = DEFAULT_PATIENCE,
    renew: bool = False,
) -> None:
    """A user's certificates: `msp/` in Fabric's layout and `tls/{ca.crt,client.crt,client.key}`.

    Args:
        profile: `user` or `admin`; the others as for `enrol_service`.

    Raises:
        EnrolmentError: see `ensure_enrolled`.
    """
    await ensure_enrolled(
        folder,
        layout.user(profile),
        enrolment,
        ca_address=ca_address,
        patience=patience,
        renew=renew,
    )


async def enrol_chaincode(
    folder: Path,
    enrolment: Path | Enrolment,
    *,
    name: str,
    ca_address: str | None = None,
    patience: float = DEFAULT_PATIENCE,
    renew: bool = False,
) -> None:
    """A chaincode's certificate: `ca.crt`, `client.crt`, `client.key` and the last two as `.b64`.

    Args:
        name: the chaincode's name; the others as for `enrol_service`.

    Raises:
        EnrolmentError: see `ensure_enrolled`.
    """
    await ensure_enrolled(
        folder,
        layout.chaincode(name),
        enrolment,
        ca_address=ca_address,
        patience=patience,
        renew=renew,
    )


async def enrol_producer(
    folder: Path,
    enrolment: Path | Enrolment,
    *,
    name: str,
    ca_address: str | None = None,
    patience: float = DEFAULT_PATIENCE,
    renew: bool = False,
) -> None:
    """A producer's certificate for the event hub: `ca.crt`, `client.crt` and `client.key`.

    Args:
        name: the producer's name; the others as for `enrol_service`.

    Raises:
        EnrolmentError: see `ensure_enrolled`.
    """
    await ensure_enrolled(
        folder,
        layout.producer(name),
        enrolment,
        ca_address=ca_address,
        patience=patience,
        renew=renew,
    )


async def ensure_enrolled(
    folder: Path,
    credentials: Sequence[Credential],
    enrolment: Path | Enrolment,
    *,
    ca_address: str | None = None,
    patience: float = DEFAULT_PATIENCE,
    renew: bool = False,
) -> None:
    """Sees to it that a folder holds good certificates; does nothing, and calls nobody, where it
    does and they have more than a third of their lives before them.

    Keys are made here and stay here. A certificate is renewed when it or its key is missing, when
    the two do not match, when it has expired, and when the enrolment file names another root. When
    it only has less than a third of its life left, a renewal that fails is logged and left to the
    next start.

    Args:
        folder: where the certificates lie.
        credentials: which ones, from `layout`.
        enrolment: the enrolment file, read again before every try, or its content.
        ca_address: host:port, where it is not the one in the enrolment file.
        patience: seconds to wait for the file and for the ca.
        renew: replace good certificates too.

    Raises:
        EnrolmentError: the ca refused, a file is unfit, or the time is over: the sentence says what
            was waited for.
    """

    def unfit(credential: Credential, present: Enrolment | None) -> str | None:
        return _ASKED if renew else material.defect(folder, credential, present)

    def ageing(credential: Credential, _: Enrolment | None) -> str | None:
        return material.ageing(folder, credential)

    await _enrol_within(patience, folder, credentials, enrolment, ca_address, unfit)
    try:
        # Nobody needs to wait for a file that is only missed for renewing.
        patience = min(patience, RENEWAL_PATIENCE) if _read(enrolment) else 0
        await _enrol_within(patience, folder, credentials, enrolment, ca_address, ageing)
    except EnrolmentError as error:
        if any(material.defect(folder, credential, None) for credential in credentials):
            raise
        _log.warning(
            "not renewed, and good until it expires", folder=str(folder), reason=str(error)
        )
    for credential in credentials:
        until = material.expiry(folder, credential)
        CERTIFICATE_EXPIRY.labels(credential.profile).set(until.timestamp())


async def _enrol_within(
    patience: float,
    folder: Path,
    credentials: Sequence[Credential],
    enrolment: Path | Enrolment,
    ca_address: str | None,
    why: _Why,
) -> None:
    """Gets those certificates anew for which `why` gives a reason, each once."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + patience
    pause, reason = _FIRST_PAUSE, ""
    left = list(credentials)
    while True:
        try:
            return await _enrol(folder, left, enrolment, ca_address, why)
        except _NotYet as error:
            if str(error) != reason:
                reason = str(error)
                _log.info("waiting to enrol", folder=str(folder), reason=reason)
        if clock() + pause > deadline:
            raise EnrolmentError(f"not enrolled within {patience:g} s: {reason}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


async def _enrol(
    folder: Path,
    left: list[Credential],
    source: Path | Enrolment,
    ca_address: str | None,
    why: _Why,
) -> None:
    enrolment = _read(source)
    needed = {credential: reason for credential in left if (reason := why(credential, enrolment))}
    if not needed:
        return
    if enrolment is None:
        raise _NotYet(f"there is no enrolment file {source}; start the ca, which writes it")
    address = ca_address or enrolment.ca_address
    _check_tokens(enrolment, needed, source)
    await _dial(address)

    from selvedge_common import comm  # costs 100 ms: not for those who have all they need

    channel = comm.channel(address, root_cas=enrolment.tls_root, max_bytes=_MAX_ANSWER_BYTES)
    async with channel:
        for credential, reason in needed.items():
            _log.info("enrolling", folder=str(folder), profile=credential.profile, reason=reason)
            await _issue(channel, folder, credential, enrolment, source, address)
            left.remove(credential)


def _read(source: Path | Enrolment) -> Enrolment | None:
    if isinstance(source, Enrolment):
        return source
    try:
        return Enrolment.load(source)
    except FileNotFoundError:
        return None


def _check_tokens(
    enrolment: Enrolment, needed: Mapping[Credential, str], source: Path | Enrolment
) -> None:
    for credential in needed:
        if credential.profile not in enrolment.tokens:
            raise EnrolmentError(
                f"{_where(source)} has no token for profile {credential.profile}, only for "
                f"{', '.join(enrolment.tokens) or 'none'}: add the profile to this member in the "
                "ca's configuration, or make tokens with `certificate-authority token`"
            )


def _where(source: Path | Enrolment) -> str:
    return str(source) if isinstance(source, Path) else "the enrolment"


async def _dial(address: str) -> None:
    """Finds out cheaply whether anything listens: gRPC's own reconnecting starts at a second."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise EnrolmentError(
            f"{address!r} is no address of a ca: give host:port, e.g. localhost:7055"
        )
    try:
        async with asyncio.timeout(_DIAL_TIMEOUT):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError, UnicodeError) as error:
        raise _NotYet(f"no ca answers at {address}; start it, or correct the address") from error
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _issue(
    channel: grpc.aio.Channel,
    folder: Path,
    credential: Credential,
    enrolment: Enrolment,
    source: Path | Enrolment,
    address: str,
) -> None:
    import grpc

    from selvedge_protos.selvedge.ca.v1 import certificate_authority_pb2 as ca_pb2
    from selvedge_protos.selvedge.ca.v1.certificate_authority_pb2_grpc import (
        CertificateAuthorityStub,
    )

    key = material.new_key()
    csr = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    request = ca_pb2.IssueRequest(
        certificate_signing_request=csr.public_bytes(serialization.Encoding.PEM),
        token=enrolment.tokens[credential.profile],
        profile=ca_pb2.Profile.Value("PROFILE_" + credential.profile.upper().replace("-", "_")),
    )
    try:
        response = await CertificateAuthorityStub(channel).Issue(request, timeout=_CALL_TIMEOUT)
    except grpc.aio.AioRpcError as error:
        raise _explained(error, credential, enrolment, source, address) from error
    root = response.chain[-1] if response.chain else b""
    until = material.store(folder, credential, key, response.certificate, root, enrolment)
    _log.info(
        "enrolled",
        folder=str(folder),
        profile=credential.profile,
        certificate=str(folder / credential.certificate),
        until=until.isoformat(),
    )


def _explained(
    error: grpc.aio.AioRpcError,
    credential: Credential,
    enrolment: Enrolment,
    source: Path | Enrolment,
    address: str,
) -> Exception:
    import grpc

    code, details = error.code(), error.details() or ""
    passing = (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
    if code in passing:
        hint = ""
        if "CERTIFICATE_VERIFY_FAILED" in details:
            hint = f" (it is not the ca whose root is in {_where(source)})"
        return _NotYet(f"the ca at {address} does not serve yet{hint}: {details}")
    # The ca puts a fresh token where one was spent: another one in the file is worth a try.
    fresh = _read(source)
    if fresh is not None and fresh.tokens.get(credential.profile) != enrolment.tokens.get(
        credential.profile
    ):
        return _NotYet(f"{_where(source)} has a fresh token for profile {credential.profile}")
    return EnrolmentError(
        f"the ca at {address} refused the certificate for profile {credential.profile} "
        f"({code.name}): {details}"
    )
