"""Identities, organisations, and the policies over their signatures."""

from selvedge_common.msp.errors import (
    BadSignature,
    IdentityError,
    IdentityExpired,
    IdentityNotYetValid,
    IdentityRevoked,
    MalformedIdentity,
    MalformedPolicy,
    MSPConfigurationError,
    NotACertificate,
    PolicyError,
    PolicyNotSatisfied,
    UnfitCertificate,
    UnknownMSP,
    UntrustedIdentity,
)
from selvedge_common.msp.identity import (
    Identity,
    SigningIdentity,
    load_signing_identity,
    parse_identity,
    serialize,
)
from selvedge_common.msp.msp import MSP, identify
from selvedge_common.msp.roles import ADMIN, CLIENT, MEMBER, ORDERER, PEER, NodeOU, NodeOUs, Role

__all__ = [
    "ADMIN",
    "CLIENT",
    "MEMBER",
    "MSP",
    "ORDERER",
    "PEER",
    "BadSignature",
    "Identity",
    "IdentityError",
    "IdentityExpired",
    "IdentityNotYetValid",
    "IdentityRevoked",
    "MSPConfigurationError",
    "MalformedIdentity",
    "MalformedPolicy",
    "NodeOU",
    "NodeOUs",
    "NotACertificate",
    "PolicyError",
    "PolicyNotSatisfied",
    "Role",
    "SigningIdentity",
    "UnfitCertificate",
    "UnknownMSP",
    "UntrustedIdentity",
    "identify",
    "load_signing_identity",
    "parse_identity",
    "serialize",
]
