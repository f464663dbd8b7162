"""Host names and IP addresses in certificates: what they look like, and which are the services'."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from cryptography import x509

from certificate_authority.errors import AuthorityError, NotAllowed

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Hosts of every service, and of any chaincode: by them one trusts one's own machine."""
HOST_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE | re.ASCII)

_IPV4_IN_IPV6 = bytes(10) + b"\xff\xff"


def alternative_name(host: str) -> x509.GeneralName:
    """A host name or an IP address as a subject alternative name.

    Raises:
        AuthorityError: it is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    labels = host.removeprefix("*.").rstrip(".").split(".")
    if not all(HOST_LABEL.fullmatch(label) for label in labels):
        raise AuthorityError(f"{host!r} is neither a host name nor an IP address")
    return x509.DNSName(host)


def service_hosts(name: str, namespace: str, extra: Iterable[str]) -> list[str]:
    """What a service is dialled by from other machines.

    Args:
        name: its host name.
        namespace: the Kubernetes namespace in which it has that name.
        extra: more of them, from the configuration.
    """
    in_cluster = f"{name}.{namespace}"
    return [name, in_cluster, f"{in_cluster}.svc", f"{in_cluster}.svc.cluster.local", *extra]


class ServiceHosts:
    """The hosts of the services, which are kept from chaincodes.

    A client believes whoever shows a certificate of the TLS root for the host that it dialled, so
    a chaincode with the host of a service could stand in for it.

    Args:
        hosts: of all services; those of `LOOPBACK` are left out.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = {_same(host) for host in hosts} - {_same(host) for host in LOOPBACK}

    def check_chaincode(self, name: str, hosts: Iterable[str]) -> None:
        """Return where a chaincode's certificate may hold these.

        Args:
            name: the chaincode's, which becomes the common name: where a certificate has no DNS
                name, some verifiers (Node's) take that for one.
            hosts: names and addresses to serve under.

        Raises:
            NotAllowed: one of them is a service's, or stands for more than one host.
        """
        for host in (name, *hosts):
            if _same(host) in self._hosts:
                raise NotAllowed(
                    "service_host",
                    f"{host} is a host of one of the services, and clients would take chaincode "
                    f"{name} for it: give the chaincode a name and hosts of its own",
                )
            if host.startswith("*"):
                raise NotAllowed(
                    "service_host",
                    f"{host} stands for many hosts, those of services perhaps: name the ones that "
                    f"chaincode {name} is dialled by",
                )


def _same(host: str) -> str | bytes:
    """Equal for what verifiers take for the same host."""
    try:
        return ipaddress.ip_address(host).packed.removeprefix(_IPV4_IN_IPV6)
    except ValueError:
        return host.lower().rstrip(".")
