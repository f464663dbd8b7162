"""`selvedge.ca.v1.CertificateAuthority`: certificates for tokens, over gRPC."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from certificate_authority import metrics
from certificate_authority.authority import Authority, Issued, public_key_of
from certificate_authority.enrolments import Enrolments
from certificate_authority.errors import (
    AuthorityError,
    InvalidRequest,
    NotAllowed,
    Refused,
    TooManyRequests,
)
from certificate_authority.profiles import PROFILES, Profile, profile_named
from certificate_authority.rate import RateByClient
from certificate_authority.tokens import TokenStore
from selvedge_common.comm import StatusError
from selvedge_common.logs import get_logger
from selvedge_protos.selvedge.ca.v1 import certificate_authority_pb2 as ca_pb2
from selvedge_protos.selvedge.ca.v1.certificate_authority_pb2_grpc import (
    CertificateAuthorityServicer,
)

_STATUS = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    TooManyRequests: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

_log = get_logger("ca.service")


class CertificateAuthorityService(CertificateAuthorityServicer):
    """Answers Issue and Roots.

    Args:
        authority: signs.
        tokens: decides who may have what.
        enrolments: knows the hosts of a grant, and gets a fresh token for every spent one.
        failures: bound on each address's requests for Issue that fail. It is asked when one has
            failed, so that nobody is kept from using a live token by what others send.
    """

    def __init__(
        self,
        authority: Authority,
        tokens: TokenStore,
        enrolments: Enrolments,
        failures: RateByClient,
    ) -> None:
        self._authority = authority
        self._tokens = tokens
        self._enrolments = enrolments
        self._failures = failures
        for profile in PROFILES:  # there from the start, so that a rate has a beginning
            metrics.CERTIFICATES_ISSUED.labels(profile)

    async def Issue(  # noqa: N802 - the wire's name
        self,
        request: ca_pb2.IssueRequest,
        context: grpc.aio.ServicerContext[ca_pb2.IssueRequest, ca_pb2.IssueResponse],
    ) -> ca_pb2.IssueResponse:
        """A certificate for a signing request and a token; refusals say why."""
        try:
            # Off the loop: the token store waits for the disk.
            issued = await asyncio.to_thread(self._issue, request)
        except Refused as error:
            refusal = error
            if not self._failures.take(context.peer()):
                refusal = TooManyRequests(
                    "rate",
                    "this address sends more requests that fail than ca.limits allows: see that"
                    " token, profile and signing request are right and try again in a second",
                )
            metrics.REQUESTS_REFUSED.labels(refusal.cause).inc()
            _log.warning("refused", caller=context.peer(), cause=refusal.cause, reason=str(refusal))
            raise StatusError(_STATUS[type(refusal)], str(refusal)) from error
        except AuthorityError as error:
            metrics.REQUESTS_REFUSED.labels("unable").inc()
            _log.error("cannot issue", caller=context.peer(), reason=str(error))
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, str(error)) from error
        return ca_pb2.IssueResponse(certificate=issued.pem, chain=[issued.root.pem])

    async def Roots(  # noqa: N802 - the wire's name
        self,
        request: ca_pb2.RootsRequest,
        context: grpc.aio.ServicerContext[ca_pb2.RootsRequest, ca_pb2.RootsResponse],
    ) -> ca_pb2.RootsResponse:
        """Both roots; public knowledge."""
        authority = self._authority
        return ca_pb2.RootsResponse(
            tls_root=authority.tls_root.pem,
            identity_root=authority.identity_root.pem,
            tls_root_sha256=authority.tls_root.sha256,
            msp_id=authority.organization,
        )

    def _issue(self, request: ca_pb2.IssueRequest) -> Issued:
        """Checks, signs, spends, in that order: what fails leaves the token live."""
        profile = _profile(request.profile)
        grant = self._tokens.grant_of(request.token)
        if grant.profile != profile.name:
            raise NotAllowed(
                "other_profile",
                f"the token is for profile {grant.profile}, not for {profile.name}: ask for one "
                f"with `certificate-authority token --profile {profile.name}`",
            )
        key = public_key_of(request.certificate_signing_request)
        hosts = self._enrolments.hosts(grant)
        issued = self._authority.issue(key, profile, grant.name, hosts)
        self._tokens.spend(request.token)
        self._enrolments.replace(grant)
        metrics.CERTIFICATES_ISSUED.labels(profile.name).inc()
        _log.info(
            "issued",
            name=grant.name,
            profile=profile.name,
            hosts=hosts,
            serial=f"{issued.certificate.serial_number:x}",
            until=issued.certificate.not_valid_after_utc.isoformat(),
        )
        return issued


def _profile(number: int) -> Profile:
    if number == ca_pb2.PROFILE_UNSPECIFIED:
        raise InvalidRequest("missing_profile", "the request has no profile: say what it is for")
    if number not in ca_pb2.Profile.values():
        raise InvalidRequest("unknown_profile", f"there is no profile with number {number}")
    name = ca_pb2.Profile.Name(ca_pb2.Profile.ValueType(number))
    return profile_named(name.removeprefix("PROFILE_").lower().replace("_", "-"))
