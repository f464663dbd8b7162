"""Issue and Roots over the wire: what is granted, and what is refused with which status."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import REGISTRY
from services.ca.tests.running import RunningCa, running_ca, signing_request

from certificate_authority import serving
from certificate_authority.rate import Rate, RateByClient
from certificate_authority.tokens import TokenStore
from selvedge_common.enrolment import Enrolment
from selvedge_protos.selvedge.ca.v1 import certificate_authority_pb2 as ca_pb2

USER = ca_pb2.PROFILE_USER
CLIENT = ca_pb2.PROFILE_TLS_CLIENT


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("ca_requests_refused_total", {"reason": reason}) or 0.0


async def status(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code(), caught.value.details() or ""


async def test_a_token_gives_one_certificate(ca: RunningCa) -> None:
    token, before = ca.mint("alice", "user"), refused("spent_token")
    certificate = await ca.issue(token, USER)
    assert certificate.subject.rfc4514_string() == "CN=alice,OU=client,O=Org1MSP"
    code, details = await status(ca.issue(token, USER))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "used before" in details
    assert refused("spent_token") == before + 1


async def test_a_certificate_is_issued_also_where_no_fresh_token_can_be_stored(
    tmp_path: Path,
) -> None:
    async with running_ca(tmp_path) as ca:
        token = Enrolment.load(ca.member_file("event-hub")).tokens["peer"]
        with closing(sqlite3.connect(tmp_path / "ca" / "tokens.db")) as database:
            database.execute(
                "CREATE TRIGGER full BEFORE INSERT ON tokens "
                "BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
            )
            certificate = await ca.issue(token, ca_pb2.PROFILE_PEER)
            assert certificate.subject.rfc4514_string() == "CN=event-hub,OU=peer,O=Org1MSP"
            assert Enrolment.load(ca.member_file("event-hub")).tokens["peer"] == token
            database.execute("DROP TRIGGER full")
    async with running_ca(tmp_path) as ca:
        fresh = Enrolment.load(ca.member_file("event-hub")).tokens["peer"]
        assert fresh != token
        await ca.issue(fresh, ca_pb2.PROFILE_PEER)


async def test_health_waits_for_the_token_store_off_the_loop(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "tokens.db")
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:  # as a thread that issues does while another process writes
        with store._lock:
            held.set()
            let_go.wait(5)

    holding = asyncio.create_task(asyncio.to_thread(hold))
    await asyncio.to_thread(held.wait)
    checking = asyncio.ensure_future(serving.check_tokens(store))
    await asyncio.sleep(0)
    assert not checking.done()
    assert not holding.done()
    let_go.set()
    await checking
    await holding


async def test_the_request_decides_nothing_but_the_key(ca: RunningCa) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    wishes = signing_request(
        key,
        x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, "admin"),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "admin"),
            ]
        ),
        x509.SubjectAlternativeName([x509.DNSName("evil.example.com")]),
        x509.BasicConstraints(ca=True, path_length=None),
    )
    token = ca.mint("event-hub", "tls-server")
    certificate = await ca.issue(token, ca_pb2.PROFILE_TLS_SERVER, wishes)
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=event-hub,O=Org1MSP"
    get = certificate.extensions.get_extension_for_class
    names = get(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert "event-hub" in names
    assert "evil.example.com" not in names
    assert not get(x509.BasicConstraints).value.ca


async def test_a_chaincodes_hosts_are_those_of_its_token_whatever_it_asks_for(
    ca: RunningCa,
) -> None:
    wish = x509.SubjectAlternativeName([x509.DNSName("chaincode-support")])
    wishes = signing_request(None, None, wish)
    for hosts in ((), ("mycc", "mycc.example.com")):
        token = ca.mint("mycc", "chaincode", *hosts)
        certificate = await ca.issue(token, ca_pb2.PROFILE_CHAINCODE, wishes)
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert tuple(sans.get_values_for_type(x509.DNSName)) == hosts
        uris = sans.get_values_for_type(x509.UniformResourceIdentifier)
        assert uris == ["selvedge://chaincode/mycc"]


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("mycc", "chaincode-support"),
        ("mycc", "Event-Hub.selvedge.svc"),
        ("mycc", "ca"),
        ("mycc", "*.selvedge.svc"),
        ("event-hub", "localhost"),
    ],
)
async def test_no_chaincode_can_stand_in_for_a_service(ca: RunningCa, name: str, host: str) -> None:
    token, before = ca.mint(name, "chaincode", host), refused("service_host")
    code, details = await status(ca.issue(token, ca_pb2.PROFILE_CHAINCODE))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert details.startswith(f"{name if host == 'localhost' else host} ")
    assert f"chaincode {name}" in details
    assert refused("service_host") == before + 1


async def test_a_token_is_for_one_profile(ca: RunningCa) -> None:
    token = ca.mint("alice", "user")
    code, details = await status(ca.issue(token, ca_pb2.PROFILE_ADMIN))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "for profile user, not for admin" in details
    await ca.issue(token, USER)


async def test_expired_and_unknown_tokens_are_told_apart(ca: RunningCa) -> None:
    code, details = await status(ca.issue(ca.mint("alice", "user", seconds=-1), USER))
    assert (code, "expired" in details) == (grpc.StatusCode.PERMISSION_DENIED, True)
    code, details = await status(ca.issue("made-up-by-a-stranger-1234", USER))
    assert (code, "unknown" in details) == (grpc.StatusCode.PERMISSION_DENIED, True)


@pytest.mark.parametrize("csr", [b"", b"junk", b"\x00\xff" * 500])
async def test_an_unreadable_request_leaves_the_token_live(ca: RunningCa, csr: bytes) -> None:
    token = ca.mint("alice", "user")
    code, details = await status(ca.issue(token, USER, csr))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "PKCS #10" in details
    await ca.issue(token, USER)


@pytest.mark.parametrize(("profile", "words"), [(0, "has no profile"), (99, "number 99")])
async def test_a_profile_is_needed(ca: RunningCa, profile: int, words: str) -> None:
    code, details = await status(ca.issue(ca.mint("alice", "user"), profile))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in details


async def test_of_many_at_once_one_gets_the_certificate(ca: RunningCa) -> None:
    token = ca.mint("alice", "tls-client")
    answers = await asyncio.gather(
        *(ca.issue(token, CLIENT) for _ in range(16)), return_exceptions=True
    )
    assert sum(isinstance(answer, x509.Certificate) for answer in answers) == 1
    codes = {answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
    assert codes == {grpc.StatusCode.PERMISSION_DENIED}


async def test_a_restart_keeps_roots_and_spent_tokens(tmp_path: Path) -> None:
    async with running_ca(tmp_path) as ca:
        before = await ca.stub.Roots(ca_pb2.RootsRequest())
        token = ca.mint("alice", "user")
        await ca.issue(token, USER)
    async with running_ca(tmp_path) as ca:
        assert await ca.stub.Roots(ca_pb2.RootsRequest()) == before
        code, _ = await status(ca.issue(token, USER))
        assert code is grpc.StatusCode.PERMISSION_DENIED


async def test_roots_are_both_roots(ca: RunningCa) -> None:
    roots = await ca.stub.Roots(ca_pb2.RootsRequest())
    assert roots.msp_id == "Org1MSP"
    assert roots.tls_root != roots.identity_root
    identity = await ca.issue(ca.mint("alice", "user"), USER)
    identity.verify_directly_issued_by(x509.load_pem_x509_certificate(roots.identity_root))


async def test_failures_beyond_the_rate_are_named_and_never_shut_out_a_live_token(
    tmp_path: Path,
) -> None:
    async with running_ca(
        tmp_path, CORE_CA_LIMITS_REQUESTSPERSECOND="0.001", CORE_CA_LIMITS_BURST="1"
    ) as ca:
        codes = [(await status(ca.issue("x" * 43, USER)))[0] for _ in range(3)]
        assert codes == [
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ]
        _, details = await status(ca.issue("x" * 43, USER))
        assert "this address sends more requests that fail than ca.limits allows" in details
        for name in ("alice", "bob"):
            await ca.issue(ca.mint(name, "user"), USER)


async def test_an_oversized_request_is_refused(tmp_path: Path) -> None:
    async with running_ca(tmp_path, CORE_CA_LIMITS_MAXREQUESTBYTES="4KB") as ca:
        token = ca.mint("alice", "user")
        code, _ = await status(ca.issue(token, USER, b"x" * 5000))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await ca.issue(token, USER)


def test_each_address_has_a_rate_of_its_own_whatever_its_port() -> None:
    rate = RateByClient(per_second=1, burst=1, clock=lambda: 0.0)
    peers = ["ipv4:10.0.0.1:1", "ipv4:10.0.0.1:2", "ipv4:10.0.0.2:1", "ipv6:%5B::1%5D:1"]
    assert [rate.take(peer) for peer in peers] == [True, False, True, True]
    for number in range(20_000):
        rate.take(f"ipv4:{number}:1")
    assert len(rate._rates) == 10_000


def test_the_rate_allows_a_burst_and_recovers() -> None:
    ticks = itertools.chain([0.0, 0.0, 0.0, 0.0, 0.5, 1.0])
    rate = Rate(per_second=1, burst=2, clock=lambda: next(ticks))
    assert [rate.take() for _ in range(5)] == [True, True, False, False, True]
