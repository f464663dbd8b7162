"""What a certificate can be for: the root that signs it, its names, usages and unit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certificate_authority.errors import InvalidRequest
from certificate_authority.hosts import HOST_LABEL, LOOPBACK, alternative_name, service_hosts

TLS_SERVER, CHAINCODE = "tls-server", "chaincode"
"""Names of the profiles whose certificates serve."""

_SERVER = ExtendedKeyUsageOID.SERVER_AUTH
_CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH

# A common name has 64 characters at most (X.520). Names become folders, so none begins with a dot
# and none holds a separator.
_ANY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# Fabric's rule for chaincode names (core/common/ccprovider and the lifecycle).
_CHAINCODE_NAME = re.compile(r"(?=.{1,64}$)[A-Za-z0-9]+([-_][A-Za-z0-9]+)*")


class Signer(Enum):
    """Which of the two roots signs."""

    TLS = "tls"
    IDENTITY = "identity"


@dataclass(frozen=True)
class Holder:
    """Whom a certificate is for, as far as the authority and not the request decides it.

    Attributes:
        name: the common name; the chaincode's name for chaincodes.
        namespace: the Kubernetes namespace whose service names a server may also be dialled by.
        hosts: host names and IP addresses that it serves under, beside those that its name gives.
    """

    name: str
    namespace: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """One purpose.

    Attributes:
        name: as in tokens, enrolment files and on the command line, e.g. `tls-server`.
        signer: the root that signs.
        unit: organisational unit by which an MSP with NodeOUs recognises the role, or None.
        usages: extended key usages; none for identities, which only sign.
        names: what a holder's name must look like, and that in words.
        alternative_names: the subject alternative names of a holder.
    """

    name: str
    signer: Signer
    unit: str | None
    usages: tuple[x509.ObjectIdentifier, ...]
    names: tuple[re.Pattern[str], str]
    alternative_names: Callable[[Holder], list[x509.GeneralName]]

    def check_name(self, name: str) -> None:
        """Raises `InvalidRequest` where this profile does not take `name`."""
        pattern, words = self.names
        if not pattern.fullmatch(name):
            raise InvalidRequest(
                "bad_name", f"{name!r} is no name for profile {self.name}: {words}"
            )


def _server_names(holder: Holder) -> list[x509.GeneralName]:
    hosts = (
        *(holder.name, *LOOPBACK),
        *service_hosts(holder.name, holder.namespace, holder.hosts),
    )
    return [alternative_name(host) for host in dict.fromkeys(hosts)]


def _chaincode_names(holder: Holder) -> list[x509.GeneralName]:
    uri = x509.UniformResourceIdentifier(f"selvedge://chaincode/{holder.name}")
    return [uri, *(alternative_name(host) for host in dict.fromkeys(holder.hosts))]


def _producer_names(holder: Holder) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(f"selvedge://producer/{holder.name}")]


def _no_names(_: Holder) -> list[x509.GeneralName]:
    return []


_ANY = (_ANY_NAME, "1 to 64 letters, digits and ._@-, beginning with a letter or digit")
_HOST = (HOST_LABEL, "1 to 63 letters, digits and dashes, as in a host name")
_CHAINCODE = (_CHAINCODE_NAME, "1 to 64 letters and digits, parted by single dashes or underscores")


def _identity(name: str, unit: str) -> Profile:
    return Profile(name, Signer.IDENTITY, unit, (), _ANY, _no_names)


_PROFILES = (
    Profile(TLS_SERVER, Signer.TLS, None, (_SERVER,), _HOST, _server_names),
    Profile("tls-client", Signer.TLS, None, (_CLIENT,), _ANY, _no_names),
    _identity("peer", "peer"),
    _identity("orderer", "orderer"),
    _identity("user", "client"),
    _identity("admin", "admin"),
    Profile(CHAINCODE, Signer.TLS, None, (_CLIENT, _SERVER), _CHAINCODE, _chaincode_names),
    # A producer's events are told like those of a chaincode of its name.
    Profile("producer", Signer.TLS, None, (_CLIENT,), _CHAINCODE, _producer_names),
)
PROFILES = {profile.name: profile for profile in _PROFILES}


def profile_named(name: str) -> Profile:
    """The profile of that name.

    Raises:
        InvalidRequest: there is none; the sentence lists those there are.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise InvalidRequest(
            "unknown_profile", f"there is no profile {name!r}: take one of {_listed(PROFILES)}"
        ) from None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
