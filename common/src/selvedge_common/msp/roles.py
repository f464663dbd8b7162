"""NodeOUs: an identity's role is told by an organisational unit of its certificate.

Follows Fabric's msp/mspimplsetup.go and msp/mspimplvalidate.go (from release 1.4.3 on, where all
four roles have an OU).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from selvedge_common.msp.certificates import read_certificates
from selvedge_common.msp.errors import UnfitCertificate
from selvedge_protos.msp import msp_principal_pb2


class Role(enum.IntEnum):
    """What a member of an organisation is; numbered as msp.MSPRole."""

    MEMBER = msp_principal_pb2.MSPRole.MEMBER
    ADMIN = msp_principal_pb2.MSPRole.ADMIN
    CLIENT = msp_principal_pb2.MSPRole.CLIENT
    PEER = msp_principal_pb2.MSPRole.PEER
    ORDERER = msp_principal_pb2.MSPRole.ORDERER


MEMBER, ADMIN, CLIENT, PEER, ORDERER = Role


@dataclass(frozen=True)
class NodeOU:
    """An OU that means something; `issuer` (PEM), if any, is the only CA allowed to certify it."""

    name: str
    issuer: bytes = b""

    def certified_by(self, issuer: x509.Certificate) -> bool:
        """Tell whether `issuer` may certify this OU."""
        return not self.issuer or issuer in read_certificates(self.issuer)


@dataclass(frozen=True)
class NodeOUs:
    """The OU of each role. The names are those of Fabric's own tools."""

    client: NodeOU | None = field(default_factory=lambda: NodeOU("client"))
    peer: NodeOU | None = field(default_factory=lambda: NodeOU("peer"))
    admin: NodeOU | None = field(default_factory=lambda: NodeOU("admin"))
    orderer: NodeOU | None = field(default_factory=lambda: NodeOU("orderer"))

    def by_name(self) -> dict[str, tuple[Role, NodeOU]]:
        """Give role and OU by the OU's name, for those that are set."""
        pairs = (
            (CLIENT, self.client),
            (PEER, self.peer),
            (ADMIN, self.admin),
            (ORDERER, self.orderer),
        )
        return {ou.name: (role, ou) for role, ou in pairs if ou is not None}


def role_of(
    units: Iterable[str],
    roles: Mapping[str, tuple[Role, NodeOU]],
    issuer: x509.Certificate,
    who: str,
) -> Role:
    """Give the one role that `units` name. Raises UnfitCertificate for none and for several."""
    found = [roles[unit] for unit in units if unit in roles]
    if len(found) != 1:
        raise UnfitCertificate(
            f"The certificate of {who} has {'no' if not found else 'more than one'} OU out of"
            f" {', '.join(roles)}: an identity needs exactly one of them as its role."
        )
    role, unit = found[0]
    if not unit.certified_by(issuer):
        raise UnfitCertificate(
            f"The OU {unit.name!r} of {who} was not certified by the CA that its organisation"
            " requires for it: enrol with that CA."
        )
    return role


def check_required(
    units: Iterable[str], required: Sequence[NodeOU], issuer: x509.Certificate, who: str
) -> None:
    """Return when `units` hold one of the `required` ones. Raises UnfitCertificate."""
    held = set(units)
    if not any(unit.name in held and unit.certified_by(issuer) for unit in required):
        raise UnfitCertificate(
            f"The certificate of {who} has none of the OUs that its organisation requires"
            f" ({', '.join(unit.name for unit in required)}): enrol with one of them."
        )
