"""Which hosts a chaincode's certificate may hold, however they are spelled."""

from __future__ import annotations

import pytest

from certificate_authority.errors import AuthorityError, NotAllowed
from certificate_authority.hosts import LOOPBACK, ServiceHosts, alternative_name, service_hosts

SERVICES = ServiceHosts(
    [*service_hosts("peer0", "fabric", ["db.example.com", "10.1.2.3", "2001:db8::7"]), *LOOPBACK]
)


@pytest.mark.parametrize(
    "host",
    [
        "peer0",
        "PEER0.",
        "peer0.fabric",
        "peer0.fabric.svc",
        "peer0.fabric.svc.cluster.local",
        "DB.example.com",
        "10.1.2.3",
        "::ffff:10.1.2.3",
        "2001:0db8:0:0::7",
        "2001:db8::7%eth0",
    ],
)
def test_a_services_host_is_kept_from_chaincodes_as_host_and_as_name(host: str) -> None:
    for name, hosts in (("mycc", ["localhost", host]), (host, [])):
        with pytest.raises(NotAllowed, match="is a host of one of the services"):
            SERVICES.check_chaincode(name, hosts)


@pytest.mark.parametrize("host", [*LOOPBACK, "peer1", "mycc.fabric.svc", "10.1.2.4", "peer0.other"])
def test_other_hosts_and_the_loopback_are_free(host: str) -> None:
    SERVICES.check_chaincode("mycc", [host])


def test_a_wildcard_is_no_host_of_a_chaincode() -> None:
    with pytest.raises(NotAllowed, match=r"\*\.example\.com stands for many hosts"):
        SERVICES.check_chaincode("mycc", ["*.example.com"])


@pytest.mark.parametrize(
    "text", ["", "mycc:9999", "a b", "a..b", "-a", "a_b", "*", "https://a", "peer\u017f", "a" * 64]
)
def test_what_is_no_host_is_shown(text: str) -> None:
    with pytest.raises(AuthorityError, match="is neither a host name nor an IP address"):
        alternative_name(text)
