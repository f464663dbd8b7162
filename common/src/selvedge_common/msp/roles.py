"""NodeOUs: an identity's role is told by an organisational unit of its certificate.

Follows Fabric's msp/mspimplsetup.go and msp/mspimplvalidate.go (from release 1.4.3 on, where all
four roles have an OU).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

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
    """An OU that gives a role; `issuer` (PEM), if any, is the only CA allowed to certify it."""

    name: str
    issuer: bytes = b""


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


def role_of(units: Iterable[str], roles: dict[str, tuple[Role, NodeOU]], who: str) -> NodeOURole:
    """Give the one role that `units` name. Raises UnfitCertificate for none and for several."""
    found = [roles[unit] for unit in units if unit in roles]
    if len(found) != 1:
        raise UnfitCertificate(
            f"The certificate of {who} has {'no' if not found else 'more than one'} OU out of"
            f" {', '.join(roles)}: an identity needs exactly one of them as its role."
        )
    return found[0]


NodeOURole = tuple[Role, NodeOU]
