"""Who listens at an address: real listeners, each wrong in one way."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Literal

import pytest
from cli.tests.fake_services import Pair
from cli.tests.good_listeners import serving
from cli.tests.homes import AGEING, EARLY, EXPIRED, GOOD, NOW, Home, Root, Span
from cli.tests.wrong_listeners import SETTINGS, Conversation, listening, saying, secured

from selvedge_cli.doctor import listener
from selvedge_cli.doctor.listener import Fault, NothingListens, dial, expiry
from selvedge_common.comm import GRPCServer, ServerConfig

Files = tuple[Path, Path]
Transport = Literal["native", "grpcio"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    home.add_user("user1")
    return home


@pytest.fixture
def root(home: Home) -> Path:
    return home.path / "crypto/users/user1/tls/ca.crt"


@pytest.fixture
def pair(home: Home) -> Files:
    tls = home.path / "crypto/users/user1/tls"
    return tls / "client.crt", tls / "client.key"


def fault(address: str, root: Path | None, pair: Files | None = None) -> Fault:
    with pytest.raises(Fault) as found:
        dial(address, root, pair)
    return found.value


def files(pair: Pair, folder: Path) -> Files:
    certificate, key = folder / "client.crt", folder / "client.key"
    certificate.write_bytes(pair.certificate_pem)
    key.write_bytes(pair.key_pem)
    return certificate, key


@pytest.mark.parametrize("transport", ["native", "grpcio"])
@pytest.mark.parametrize("tls_pair", [True, False])
async def test_listener_of_ours_shows_its_certificate(
    home: Home, root: Path, pair: Files, transport: Transport, tls_pair: bool
) -> None:
    async with serving(home, transport=transport) as address:
        shown = await asyncio.to_thread(dial, address, root, pair if tls_pair else None)
    assert shown.subject.rfc4514_string() == "CN=service"
    assert expiry(shown, NOW) is None


def test_nothing_listens(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = fault(f"localhost:{port}", root)
    assert isinstance(found, NothingListens)
    assert "selvedge up" in found.remedy


def test_host_is_not_known(root: Path) -> None:
    assert "has a host name that is not known" in fault("no.such.host.invalid:7051", root).what


@pytest.mark.parametrize(
    ("greeting", "what"),
    [
        (SETTINGS, "speaks gRPC without TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP without TLS"),
        (b"SSH-2.0-OpenSSH\r\n", "speaks neither TLS nor HTTP (it says 'SSH-2.0-OpenSSH\\r\\n')"),
    ],
)
def test_listener_without_tls_is_told_by_what_it_speaks(
    root: Path, pair: Files, greeting: bytes, what: str
) -> None:
    with listening(saying(greeting)) as address:
        assert fault(address, root, pair).what == what


async def test_service_of_ours_in_plaintext_is_told(root: Path, pair: Files) -> None:
    server = GRPCServer("127.0.0.1:0", ServerConfig())
    await server.start()
    port = server.address.rpartition(":")[2]
    try:
        found = await asyncio.to_thread(fault, f"localhost:{port}", root, pair)
    finally:
        await server.stop(0)
    assert found.what == "speaks gRPC without TLS"
    assert "CORE_PEER_TLS_ENABLED" in found.remedy


def test_listener_that_says_nothing(
    root: Path, pair: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "TIMEOUT", 0.2)
    with listening(saying(b"")) as address:
        assert fault(address, root, pair).what == "speaks neither TLS nor HTTP"


@pytest.fixture
def wrong(home: Home, tmp_path: Path) -> dict[str, Conversation]:
    """Listeners over TLS by what is wrong with them."""
    good = home.tls.issue("service")

    def presenting(pair: Pair) -> Conversation:
        return secured(pair, tmp_path, talk=saying(SETTINGS))

    return {
        "other root": presenting(Root("other").issue("service")),
        "other root of the same name": presenting(Root("tls").issue("service")),
        "expired": presenting(home.tls.issue("service", span=EXPIRED)),
        "early": presenting(home.tls.issue("service", span=EARLY)),
        "other name": presenting(home.tls.issue("service", names=["peer0", "10.0.0.7"])),
        "no name": presenting(home.tls.issue("service", names=[])),
        "no alpn": secured(
            good, tmp_path, protocol=None, talk=saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        ),
        "no http2": secured(good, tmp_path, talk=saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    }


@pytest.mark.parametrize(
    ("wrong_in", "what", "remedy"),
    [
        ("other root", "presents a certificate of another root than", "--home"),
        ("other root of the same name", "presents a certificate of another root", "--home"),
        ("expired", "presents a certificate that has expired", "start that service again"),
        ("early", "presents a certificate that is not valid yet", "clock"),
        ("other name", "for peer0, 10.0.0.7, and not for localhost", "extraSans"),
        ("no name", "presents a certificate for no name, and not for localhost", "extraSans"),
        ("no alpn", "speaks TLS, but not gRPC", "another program has this port"),
        ("no http2", "speaks TLS, but not gRPC", "another program has this port"),
    ],
)
def test_listener_over_tls_is_wrong_in_one_way(
    wrong: dict[str, Conversation], root: Path, pair: Files, wrong_in: str, what: str, remedy: str
) -> None:
    with listening(wrong[wrong_in]) as address:
        found = fault(address, root, pair)
    assert what in found.what
    assert remedy in found.remedy


def test_other_root_is_no_matter_where_none_is_known(home: Home, tmp_path: Path) -> None:
    other = Root("other").issue("service")
    with listening(secured(other, tmp_path, talk=saying(SETTINGS))) as address:
        assert dial(address, None, None).issuer.rfc4514_string() == "CN=other"


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_our_certificate_of_another_root_is_refused(
    home: Home, root: Path, tmp_path: Path, transport: Transport
) -> None:
    stranger = files(Root("other").issue("user1"), tmp_path)
    async with serving(home, transport=transport) as address:
        found = await asyncio.to_thread(fault, address, root, stranger)
    assert found.what == "ends the connection once it has seen our certificate"
    assert "of another root than the service trusts" in found.remedy


@pytest.mark.parametrize(
    ("span", "what"),
    [(EXPIRED, "finds our certificate expired"), (EARLY, "refuses our certificate")],
)
def test_our_certificate_is_refused_for_its_time(
    home: Home, root: Path, tmp_path: Path, span: Span, what: str
) -> None:
    ours = files(home.tls.issue("user1", span=span), tmp_path)
    demanding = secured(
        home.tls.issue("service"), tmp_path, clients=home.tls.pem, talk=saying(SETTINGS)
    )
    with listening(demanding) as address:
        assert fault(address, root, ours).what == what


def test_our_certificate_of_another_root_is_refused_with_an_alert(
    home: Home, root: Path, tmp_path: Path
) -> None:
    stranger = files(Root("other").issue("user1"), tmp_path)
    issued = home.tls.issue("service")
    demanding = secured(issued, tmp_path, clients=home.tls.pem, talk=saying(SETTINGS))
    with listening(demanding) as address:
        assert fault(address, root, stranger).what == "does not trust the root of our certificate"


@pytest.mark.parametrize(
    ("span", "what"),
    [(AGEING, "presents a certificate that expires on"), (EXPIRED, "that expired on")],
)
def test_listeners_certificate_is_near_its_end(home: Home, span: Span, what: str) -> None:
    found = expiry(home.tls.issue("service", span=span).certificate, NOW)
    assert found is not None
    assert what in found.what
    assert "start that service again" in found.remedy


def test_listeners_certificate_is_fresh(home: Home) -> None:
    assert expiry(home.tls.issue("service", span=GOOD).certificate, NOW) is None
