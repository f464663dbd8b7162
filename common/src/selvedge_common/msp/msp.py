"""An organisation's membership: which identities belong to it, and as what.

Follows Fabric's msp/mspimpl.go, with one difference: a certificate that has expired is refused
here, where Fabric leaves that to its callers. Whoever judges the past passes `at`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import DecodeError

from selvedge_common.msp.certificates import (
    build_chain,
    is_authority,
    validity,
)
from selvedge_common.msp.errors import (
    IdentityError,
    IdentityExpired,
    IdentityNotYetValid,
    IdentityRevoked,
    MalformedPolicy,
    UnfitCertificate,
    UnknownMSP,
)
from selvedge_common.msp.identity import Identity, parse_identity, parse_serialized
from selvedge_common.msp.material import Material, read_config, read_folder, write_config
from selvedge_common.msp.revocation import RevocationLists
from selvedge_common.msp.roles import ADMIN, MEMBER, NodeOU, NodeOUs, Role, check_required, role_of
from selvedge_common.quoting import quoted
from selvedge_protos.msp import msp_config_pb2, msp_principal_pb2

CACHED_IDENTITIES = 1024

_ROLES: dict[int, Role] = {role: role for role in Role}


@dataclass(frozen=True)
class _Standing:
    """What was found out about an identity, true whatever the time is."""

    identity: Identity
    not_before: datetime
    not_after: datetime
    role: Role | None
    certifiers: bytes


class MSP:
    """One organisation's membership. Safe to use from several threads."""

    def __init__(
        self,
        mspid: str,
        root_certificates: Sequence[x509.Certificate],
        *,
        intermediate: Sequence[x509.Certificate] = (),
        tls_root_certificates: Sequence[x509.Certificate] = (),
        tls_intermediate: Sequence[x509.Certificate] = (),
        admins: Sequence[x509.Certificate] = (),
        revocation_lists: Sequence[bytes] = (),
        required_units: Sequence[NodeOU] = (),
        node_ous: NodeOUs | None = NodeOUs(),  # noqa: B008  (frozen)
        cached_identities: int = CACHED_IDENTITIES,
    ) -> None:
        """Make the membership of `mspid`.

        Args:
            root_certificates: the CAs that every chain must end in.
            intermediate: CAs that a chain may pass through.
            tls_root_certificates, tls_intermediate: told to others in `config`, not used here.
            admins: identities that are administrators whatever their OU.
            revocation_lists: CRLs in PEM or DER, of any of the CAs above.
            required_units: OUs of which every identity must have one, if there are any.
            node_ous: the OUs that give roles; None for an organisation without them.
            cached_identities: how many validated identities are remembered.

        Raises MSPConfigurationError.
        """
        self._material = Material(
            mspid,
            tuple(root_certificates),
            tuple(intermediate),
            tuple(tls_root_certificates),
            tuple(tls_intermediate),
            tuple(admins),
            tuple(revocation_lists),
            tuple(required_units),
            node_ous,
        )
        self._material.check()
        self.mspid = mspid
        self._revocations = RevocationLists(mspid, revocation_lists)
        self._roles = node_ous.by_name() if node_ous is not None else {}
        self._standings: OrderedDict[bytes, _Standing] = OrderedDict()
        self._cached_identities = cached_identities
        self._lock = threading.Lock()

    @classmethod
    def load(cls, folder: Path, mspid: str) -> MSP:
        """Load an MSP folder in Fabric's layout; only cacerts/ is required.

        Read are cacerts, intermediatecerts, tlscacerts, tlsintermediatecerts, admincerts and crls.
        NodeOUs are on with Fabric's usual names, so config.yaml is neither needed nor read.
        Raises MSPConfigurationError naming the file.
        """
        return cls._of(read_folder(folder, mspid))

    @classmethod
    def from_config(cls, config: msp_config_pb2.MSPConfig) -> MSP:
        """Make the MSP that a channel configuration describes. Raises MSPConfigurationError."""
        return cls._of(read_config(config))

    @classmethod
    def _of(cls, material: Material) -> MSP:
        return cls(
            material.mspid,
            material.root_certificates,
            intermediate=material.intermediate,
            tls_root_certificates=material.tls_root_certificates,
            tls_intermediate=material.tls_intermediate,
            admins=material.admins,
            revocation_lists=material.revocation_lists,
            required_units=material.required_units,
            node_ous=material.node_ous,
        )

    def config(self) -> msp_config_pb2.MSPConfig:
        """Give this MSP as a channel configuration carries it; no private key is in it."""
        return write_config(self._material)

    def deserialize(self, serialized: bytes) -> Identity:
        """Read an identity of this organisation; whether to trust it is `validate`'s question.

        Raises MalformedIdentity, NotACertificate, UnfitCertificate or UnknownMSP.
        """
        standing = self._remembered(serialized)
        if standing is not None:
            return standing.identity
        if (mspid := parse_serialized(serialized).mspid) != self.mspid:
            raise UnknownMSP(
                f"The identity is of {quoted(mspid)} and not of {self.mspid!r}:"
                " use an identity of this organisation."
            )
        return parse_identity(serialized)

    def validate(self, identity: Identity, at: datetime | None = None) -> None:
        """Return when `identity` is a member in good standing at the time `at` (default: now).

        Checked are chain, validity in time, CA flags, revocation and the role. What does not
        depend on the time is remembered for valid identities until they expire. The time is judged
        last: IdentityExpired and IdentityNotYetValid mean that all else is well.
        Raises the IdentityError that says what is wrong.
        """
        standing = self._standing(identity)
        now = at if at is not None else datetime.now(UTC)
        if now > standing.not_after:
            self._forget(identity)
            raise IdentityExpired(
                f"The certificate of {identity}, or one that issued it, expired at"
                f" {standing.not_after.isoformat()}: enrol again."
            )
        if now < standing.not_before:
            raise IdentityNotYetValid(
                f"The certificate of {identity}, or one that issued it, is only valid from"
                f" {standing.not_before.isoformat()}: compare the clocks of both machines."
            )
        self._remember(standing)

    def has_role(self, identity: Identity, role: Role) -> bool:
        """Tell whether `identity` has `role` here; every identity in good standing is a MEMBER.

        As in Fabric the time does not matter: that is `validate`'s question, and who judges a block
        of the past must get the same answer as on the day it was made.
        """
        try:
            standing = self._standing(identity)
        except IdentityError:
            return False
        if role == MEMBER or standing.role == role:
            return True
        return role == ADMIN and identity.certificate in self._material.admins

    def satisfies(self, identity: Identity, principal: msp_principal_pb2.MSPPrincipal) -> bool:
        """Tell whether `identity` is what `principal` asks for, whatever the time, as in has_role.

        Raises MalformedPolicy when the principal does not parse or is of an unknown kind.
        """
        kind = principal.principal_classification
        try:
            if kind == msp_principal_pb2.MSPPrincipal.ROLE:
                wanted = msp_principal_pb2.MSPRole.FromString(principal.principal)
                role = _ROLES.get(wanted.role)
                return (
                    wanted.msp_identifier == self.mspid
                    and role is not None
                    and self.has_role(identity, role)
                )
            if kind == msp_principal_pb2.MSPPrincipal.ORGANIZATION_UNIT:
                unit = msp_principal_pb2.OrganizationUnit.FromString(principal.principal)
                return (
                    unit.msp_identifier == self.mspid
                    and unit.organizational_unit_identifier in identity.organizational_units
                    and self.has_role(identity, MEMBER)
                    and self._standing(identity).certifiers == unit.certifiers_identifier
                )
            if kind == msp_principal_pb2.MSPPrincipal.ANONYMITY:
                anonymity = msp_principal_pb2.MSPIdentityAnonymity.FromString(principal.principal)
                nominal = msp_principal_pb2.MSPIdentityAnonymity.NOMINAL
                # A certificate always names its holder.
                return anonymity.anonymity_type == nominal and self.has_role(identity, MEMBER)
            if kind == msp_principal_pb2.MSPPrincipal.IDENTITY:
                wanted_identity = parse_identity(principal.principal)
                return wanted_identity == identity and self.has_role(identity, MEMBER)
            if kind == msp_principal_pb2.MSPPrincipal.COMBINED:
                combined = msp_principal_pb2.CombinedPrincipal.FromString(principal.principal)
                return bool(combined.principals) and all(
                    self.satisfies(identity, part) for part in combined.principals
                )
        except (DecodeError, IdentityError, RecursionError) as error:
            raise MalformedPolicy(
                f"A principal of the policy cannot be read ({error}): correct the policy."
            ) from error
        raise MalformedPolicy(
            f"A principal of the policy has the kind {kind}, which is not known here:"
            " use a role, an organisational unit or an identity."
        )

    def _standing(self, identity: Identity) -> _Standing:
        remembered = self._remembered(identity.serialized)
        if remembered is not None:
            return remembered
        if identity.mspid != self.mspid:
            raise UnknownMSP(
                f"{identity} is not of {self.mspid!r}: use an identity of this organisation."
            )
        if is_authority(identity.certificate):
            raise UnfitCertificate(
                f"The certificate of {identity} is a CA's, which cannot be an identity:"
                " enrol a user or a node."
            )
        material = self._material
        chain = build_chain(identity.certificate, material.root_certificates, material.intermediate)
        if self._revocations.revoked(chain):
            raise IdentityRevoked(
                f"The certificate of {identity}, or one that issued it, has been revoked: enrol"
                " again."
            )
        units = identity.organizational_units
        if material.required_units:
            check_required(units, material.required_units, chain[1], str(identity))
        role = role_of(units, self._roles, chain[1], str(identity)) if self._roles else None
        return _Standing(identity, *validity(chain), role, _certifiers(chain))

    def _remembered(self, serialized: bytes) -> _Standing | None:
        with self._lock:
            standing = self._standings.get(serialized)
            if standing is not None:
                self._standings.move_to_end(serialized)
            return standing

    def _remember(self, standing: _Standing) -> None:
        # Only valid identities are remembered, so that strangers cannot push members out.
        with self._lock:
            self._standings[standing.identity.serialized] = standing
            self._standings.move_to_end(standing.identity.serialized)
            while len(self._standings) > self._cached_identities:
                self._standings.popitem(last=False)

    def _forget(self, identity: Identity) -> None:
        with self._lock:
            self._standings.pop(identity.serialized, None)


def _certifiers(chain: Sequence[x509.Certificate]) -> bytes:
    """How Fabric's principals tell which CAs have certified an organisational unit."""
    issuers = (issuer.public_bytes(Encoding.DER) for issuer in chain[1:])
    return hashlib.sha256(b"".join(issuers)).digest()


def identify(serialized: bytes, msps: Mapping[str, MSP], at: datetime | None = None) -> Identity:
    """Read and validate an identity of any of the organisations `msps`, by MSP id.

    Raises the IdentityError that says what is wrong.
    """
    mspid = parse_serialized(serialized).mspid
    msp = msps.get(mspid)
    if msp is None:
        known = ", ".join(sorted(msps)) or "none"
        raise UnknownMSP(
            f"The identity is of the organisation {quoted(mspid)}, which is not known here"
            f" (known: {known}): use an identity of one of these."
        )
    identity = msp.deserialize(serialized)
    msp.validate(identity, at)
    return identity
