"""An organisation's membership: which identities belong to it, and as what.

Follows Fabric's msp/mspimpl.go, with one difference: a certificate that has expired is refused
here, where Fabric leaves that to its callers. Whoever judges the past passes `at`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from google.protobuf.message import DecodeError
from selvedge_common.msp.certificates import (
    build_chain,
    check_extensions,
    is_authority,
    may_sign_certificates,
    pem_of,
    read_certificates,
    subject_key_identifier,
    subject_of,
    validity,
)
from selvedge_common.msp.errors import (
    IdentityError,
    IdentityExpired,
    IdentityNotYetValid,
    IdentityRevoked,
    MalformedIdentity,
    MalformedPolicy,
    MSPConfigurationError,
    NotACertificate,
    UnfitCertificate,
    UnknownMSP,
    UntrustedIdentity,
)
from selvedge_common.msp.identity import Identity, parse_identity, parse_serialized
from selvedge_common.msp.revocation import RevocationLists
from selvedge_common.msp.roles import ADMIN, MEMBER, NodeOU, NodeOUs, Role, role_of
from selvedge_protos.msp import msp_config_pb2, msp_principal_pb2

CACHED_IDENTITIES = 1024
MAX_IDENTITY_BYTES = 64 * 1024


@dataclass(frozen=True)
class _Standing:
    """What was found out about an identity, true whatever the time is."""

    identity: Identity
    not_before: datetime
    not_after: datetime
    role: Role | None
    issuer: x509.Certificate


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
        node_ous: NodeOUs | None = NodeOUs(),  # noqa: B008  (frozen)
        cached_identities: int = CACHED_IDENTITIES,
        max_identity_bytes: int = MAX_IDENTITY_BYTES,
    ) -> None:
        """Make the membership of `mspid`.

        Args:
            root_certificates: the CAs that every chain must end in.
            intermediate: CAs that a chain may pass through.
            tls_root_certificates, tls_intermediate: told to others in `config`, not used here.
            admins: identities that are administrators whatever their OU.
            revocation_lists: CRLs in PEM or DER, of any of the CAs above.
            node_ous: the OUs that give roles; None for an organisation without them.
            cached_identities: how many validated identities are remembered.
            max_identity_bytes: the longest serialized identity that is read.

        Raises MSPConfigurationError.
        """
        if not mspid or not root_certificates:
            raise MSPConfigurationError(
                f"The MSP {mspid!r} needs an id and at least one root certificate:"
                " give it the organisation's CA certificate."
            )
        for authority in (*root_certificates, *intermediate):
            _check_authority(mspid, authority)
        self.mspid = mspid
        self._roots = tuple(root_certificates)
        self._intermediates = tuple(intermediate)
        self._tls_roots = tuple(tls_root_certificates)
        self._tls_intermediates = tuple(tls_intermediate)
        self._admins = tuple(admins)
        self._revocations = RevocationLists(mspid, revocation_lists)
        self._node_ous = node_ous
        self._roles = node_ous.by_name() if node_ous is not None else {}
        self._standings: OrderedDict[bytes, _Standing] = OrderedDict()
        self._cached_identities = cached_identities
        self._max_identity_bytes = max_identity_bytes
        self._lock = threading.Lock()

    @classmethod
    def load(cls, folder: Path, mspid: str) -> MSP:
        """Load an MSP folder in Fabric's layout; only cacerts/ is required.

        Read are cacerts, intermediatecerts, tlscacerts, tlsintermediatecerts, admincerts and crls.
        NodeOUs are on with Fabric's usual names, so config.yaml is neither needed nor read.
        Raises MSPConfigurationError naming the file.
        """
        roots = _read_folder(folder / "cacerts")
        if not roots:
            raise MSPConfigurationError(
                f"{folder / 'cacerts'} holds no certificate: enrol, or point to another MSP folder."
            )
        crls = folder / "crls"
        return cls(
            mspid,
            roots,
            intermediate=_read_folder(folder / "intermediatecerts"),
            tls_root_certificates=_read_folder(folder / "tlscacerts"),
            tls_intermediate=_read_folder(folder / "tlsintermediatecerts"),
            admins=_read_folder(folder / "admincerts"),
            revocation_lists=[
                path.read_bytes() for path in (sorted(crls.iterdir()) if crls.is_dir() else ())
            ],
        )

    @classmethod
    def from_config(cls, config: msp_config_pb2.MSPConfig) -> MSP:
        """Make the MSP that a channel configuration describes. Raises MSPConfigurationError."""
        if config.type != 0:
            raise MSPConfigurationError(
                f"The channel configuration has an MSP of type {config.type}:"
                " only type 0 (X.509 certificates) is known here."
            )
        try:
            fabric = msp_config_pb2.FabricMSPConfig.FromString(config.config)
        except DecodeError as error:
            raise MSPConfigurationError(
                "The channel configuration holds an MSP that is not a FabricMSPConfig:"
                " take the configuration from an intact block."
            ) from error
        if fabric.organizational_unit_identifiers:
            raise MSPConfigurationError(
                f"The MSP {fabric.name!r} restricts its members by organizational_unit_identifiers,"
                " which are not supported here: use NodeOUs."
            )
        return cls(
            fabric.name,
            _read_all(fabric.name, fabric.root_certs),
            intermediate=_read_all(fabric.name, fabric.intermediate_certs),
            tls_root_certificates=_read_all(fabric.name, fabric.tls_root_certs),
            tls_intermediate=_read_all(fabric.name, fabric.tls_intermediate_certs),
            admins=_read_all(fabric.name, fabric.admins),
            revocation_lists=tuple(fabric.revocation_list),
            node_ous=_node_ous_of(fabric.fabric_node_ous),
        )

    def config(self) -> msp_config_pb2.MSPConfig:
        """Give this MSP as a channel configuration carries it; no private key is in it."""
        fabric = msp_config_pb2.FabricMSPConfig(
            name=self.mspid,
            root_certs=map(pem_of, self._roots),
            intermediate_certs=map(pem_of, self._intermediates),
            admins=map(pem_of, self._admins),
            revocation_list=self._revocations.pem(),
            crypto_config=msp_config_pb2.FabricCryptoConfig(
                signature_hash_family="SHA2", identity_identifier_hash_function="SHA256"
            ),
            tls_root_certs=map(pem_of, self._tls_roots),
            tls_intermediate_certs=map(pem_of, self._tls_intermediates),
        )
        if self._node_ous is not None:
            fabric.fabric_node_ous.enable = True
            for field in ("client", "peer", "admin", "orderer"):
                unit: NodeOU | None = getattr(self._node_ous, field)
                if unit is not None:
                    identifier = getattr(fabric.fabric_node_ous, f"{field}_ou_identifier")
                    identifier.organizational_unit_identifier = unit.name
                    identifier.certificate = unit.issuer
        return msp_config_pb2.MSPConfig(type=0, config=fabric.SerializeToString())

    def deserialize(self, serialized: bytes) -> Identity:
        """Read an identity of this organisation; whether to trust it is `validate`'s question.

        Raises MalformedIdentity, NotACertificate, UnfitCertificate or UnknownMSP.
        """
        standing = self._remembered(serialized)
        if standing is not None:
            return standing.identity
        if len(serialized) > self._max_identity_bytes:
            raise MalformedIdentity(
                f"The identity has {len(serialized)} bytes, more than the"
                f" {self._max_identity_bytes} that are read: send one certificate only."
            )
        if (mspid := parse_serialized(serialized).mspid) != self.mspid:
            raise UnknownMSP(
                f"The identity is of {mspid!r} and not of {self.mspid!r}:"
                " use an identity of this organisation."
            )
        return parse_identity(serialized)

    def validate(self, identity: Identity, at: datetime | None = None) -> None:
        """Return when `identity` is a member in good standing at the time `at` (default: now).

        Checked are chain, validity in time, CA flags, revocation and the role. What does not
        depend on the time is remembered for valid identities until they expire.
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
        """Tell whether a valid `identity` has `role` here; every valid identity is a MEMBER."""
        try:
            self.validate(identity)
            standing = self._standing(identity)
        except IdentityError:
            return False
        if role == MEMBER or standing.role == role:
            return True
        return role == ADMIN and identity.certificate in self._admins

    def satisfies(self, identity: Identity, principal: msp_principal_pb2.MSPPrincipal) -> bool:
        """Tell whether a valid `identity` is what `principal` asks for.

        Raises MalformedPolicy when the principal does not parse or is of an unknown kind.
        """
        kind = principal.principal_classification
        try:
            if kind == msp_principal_pb2.MSPPrincipal.ROLE:
                wanted = msp_principal_pb2.MSPRole.FromString(principal.principal)
                return wanted.msp_identifier == self.mspid and any(
                    int(wanted.role) == role and self.has_role(identity, role) for role in Role
                )
            if kind == msp_principal_pb2.MSPPrincipal.ORGANIZATION_UNIT:
                unit = msp_principal_pb2.OrganizationUnit.FromString(principal.principal)
                return (
                    unit.msp_identifier == self.mspid
                    and unit.organizational_unit_identifier in identity.organizational_units
                    and not unit.certifiers_identifier
                    and self.has_role(identity, MEMBER)
                )
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
        chain = build_chain(identity.certificate, self._roots, self._intermediates)
        if self._revocations.revoked(chain):
            raise IdentityRevoked(
                f"The certificate of {identity}, or one that issued it, has been revoked: enrol"
                " again."
            )
        not_before, not_after = validity(chain)
        return _Standing(identity, not_before, not_after, self._role(identity, chain[1]), chain[1])

    def _role(self, identity: Identity, issuer: x509.Certificate) -> Role | None:
        if self._node_ous is None:
            return None
        role, unit = role_of(identity.organizational_units, self._roles, str(identity))
        if unit.issuer and issuer not in read_certificates(unit.issuer):
            raise UnfitCertificate(
                f"The OU {unit.name!r} of {identity} was not certified by the CA that"
                f" {self.mspid} requires for it: enrol with that CA."
            )
        return role

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


def identify(serialized: bytes, msps: Mapping[str, MSP], at: datetime | None = None) -> Identity:
    """Read and validate an identity of any of the organisations `msps`, by MSP id.

    Raises the IdentityError that says what is wrong.
    """
    mspid = parse_serialized(serialized).mspid
    msp = msps.get(mspid)
    if msp is None:
        known = ", ".join(sorted(msps)) or "none"
        raise UnknownMSP(
            f"The identity is of the organisation {mspid!r}, which is not known here"
            f" (known: {known}): use an identity of one of these."
        )
    identity = msp.deserialize(serialized)
    msp.validate(identity, at)
    return identity


def _check_authority(mspid: str, certificate: x509.Certificate) -> None:
    try:
        check_extensions(certificate)
        if not may_sign_certificates(certificate):
            raise UnfitCertificate(
                f"The certificate of {subject_of(certificate)} is not one of a CA that may sign."
            )
        if subject_key_identifier(certificate) is None:
            raise UnfitCertificate(
                f"The CA certificate of {subject_of(certificate)} has no subject key identifier."
            )
    except (UnfitCertificate, UntrustedIdentity) as error:
        raise MSPConfigurationError(
            f"The MSP {mspid!r} was given a certificate that cannot be an authority: {error}"
        ) from error


def _read_folder(folder: Path) -> list[x509.Certificate]:
    certificates: list[x509.Certificate] = []
    if not folder.is_dir():
        return certificates
    for path in sorted(folder.iterdir()):
        if path.is_file():
            try:
                certificates += read_certificates(path.read_bytes())
            except (OSError, NotACertificate) as error:
                raise MSPConfigurationError(f"{path} cannot be used: {error}") from error
    return certificates


def _read_all(mspid: str, pems: Iterable[bytes]) -> list[x509.Certificate]:
    try:
        return [certificate for pem in pems for certificate in read_certificates(pem)]
    except NotACertificate as error:
        raise MSPConfigurationError(f"The MSP {mspid!r} cannot be used: {error}") from error


def _node_ous_of(config: msp_config_pb2.FabricNodeOUs) -> NodeOUs | None:
    if not config.enable:
        return None

    def unit(identifier: msp_config_pb2.FabricOUIdentifier) -> NodeOU | None:
        name = identifier.organizational_unit_identifier
        return NodeOU(name, identifier.certificate) if name else None

    return NodeOUs(
        client=unit(config.client_ou_identifier),
        peer=unit(config.peer_ou_identifier),
        admin=unit(config.admin_ou_identifier),
        orderer=unit(config.orderer_ou_identifier),
    )
