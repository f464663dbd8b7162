"""The operations endpoint over real HTTP and TLS, client certificates optional."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from selvedge_common import logs
from selvedge_common.operations import Check, OperationsError, OperationsServer, OperationsTLS
from selvedge_common.operations.connections import ENDED

Start = Callable[..., Awaitable[OperationsServer]]


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    before = logs.get_spec()
    yield
    logs.set_spec(before)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    servers: list[OperationsServer] = []

    async def start(
        tls: OperationsTLS | None = None, health: dict[str, Check] | None = None
    ) -> OperationsServer:
        server = OperationsServer("127.0.0.1:0", tls, health or {}, "1.2.3")
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


class Files:
    """A server's and a client's TLS material on disk, and one of a stranger."""

    def __init__(self, folder: Path, make_tls_authority: Callable[[str], Any]) -> None:
        self._folder = folder
        self.authority, stranger = make_tls_authority("house"), make_tls_authority("stranger")
        self.server = self._write("server", self.authority)
        self.client = self._write("client", self.authority)
        self.stranger = self._write("stranger", stranger)
        self.chaincode = self._write(
            "chaincode",
            self.authority,
            x509.UniformResourceIdentifier("selvedge://chaincode/asset-transfer"),
        )
        self.root = folder / "root.crt"
        self.root.write_bytes(self.authority.root)

    def _write(self, name: str, authority: Any, *names: x509.GeneralName) -> tuple[Path, Path]:
        pair = authority.issue(name, *names)
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        certificate.write_bytes(pair.certificate)
        key.write_bytes(pair.key)
        return certificate, key

    @property
    def tls(self) -> OperationsTLS:
        return OperationsTLS(*self.server, client_root_cas=[self.root])

    def trust(self, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.root))
        if client is not None:
            context.load_cert_chain(*client)
        return context


@pytest.fixture
def files(tmp_path: Path, make_tls_authority: Callable[[str], Any]) -> Files:
    return Files(tmp_path, make_tls_authority)


async def _ask(
    server: OperationsServer,
    path: str,
    method: str = "GET",
    trust: ssl.SSLContext | None = None,
    **arguments: Any,
) -> tuple[int, Any]:
    """The status, and the body as JSON or text."""
    scheme = "http" if trust is None else "https"
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, f"{scheme}://{server.address}{path}", ssl=trust or True, **arguments
        ) as response,
    ):
        if response.content_type == "application/json":
            return response.status, await response.json()
        return response.status, await response.text()


async def test_probes_metrics_and_version_need_no_certificate(start: Start, files: Files) -> None:
    server = await start(files.tls)
    trust = files.trust()
    assert (await _ask(server, "/healthz", trust=trust))[0] == 200
    assert await _ask(server, "/version", trust=trust) == (200, {"Version": "1.2.3"})
    assert await _ask(server, "/logspec", trust=trust) == (200, {"spec": logs.get_spec()})
    status, metrics = await _ask(server, "/metrics", trust=trust)
    assert status == 200
    assert "# TYPE python_info gauge" in metrics


async def test_metrics_answer_in_the_format_asked_for(start: Start) -> None:
    server = await start()
    async with (
        aiohttp.ClientSession(headers={"Accept": "application/openmetrics-text"}) as session,
        session.get(f"http://{server.address}/metrics") as response,
    ):
        assert response.content_type == "application/openmetrics-text"
        assert (await response.text()).endswith("# EOF\n")


async def test_health_is_in_fabrics_form(start: Start) -> None:
    failing: set[str] = set()

    async def ledger() -> None:
        if "ledger" in failing:
            raise RuntimeError("the disk is full")

    def source() -> None:
        if "source" in failing:
            raise ConnectionError

    server = await start(health={"ledger": ledger, "source": source})
    status, report = await _ask(server, "/healthz")
    assert (status, report["status"], set(report)) == (200, "OK", {"status", "time"})
    assert datetime.datetime.fromisoformat(report["time"]).tzinfo is not None
    failing |= {"ledger", "source"}
    status, report = await _ask(server, "/healthz")
    assert (status, report["status"]) == (503, "Service Unavailable")
    assert report["failed_checks"] == [
        {"component": "ledger", "reason": "the disk is full"},
        {"component": "source", "reason": "ConnectionError"},
    ]


async def test_check_that_hangs_fails_with_that_reason(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selvedge_common.operations.health._CHECK_TIMEOUT", 0.05)

    async def hang() -> None:
        await asyncio.Event().wait()

    status, report = await _ask(await start(health={"ledger": hang}), "/healthz")
    assert status == 503
    assert report["failed_checks"][0]["reason"] == "the check took longer than 0.05 seconds"


async def test_levels_change_with_a_client_certificate(start: Start, files: Files) -> None:
    server = await start(files.tls)
    trust = files.trust(files.client)
    body = {"spec": "info:comm=debug"}
    assert await _ask(server, "/logspec", "PUT", trust, json=body) == (204, "")
    assert logs.get_spec() == "comm=debug:info"
    assert await _ask(server, "/logspec", trust=trust) == (200, {"spec": "comm=debug:info"})


async def test_levels_do_not_change_without_a_client_certificate(
    start: Start, files: Files
) -> None:
    before = logs.get_spec()
    for tls, trust in ((files.tls, files.trust()), (None, None)):
        server = await start(tls)
        status, answer = await _ask(server, "/logspec", "PUT", trust, json={"spec": "debug"})
        assert status == 403
        assert "needs a client certificate" in answer["error"]
    assert logs.get_spec() == before


async def test_certificate_is_worth_nothing_where_no_roots_verify_it(
    start: Start, files: Files
) -> None:
    server = await start(OperationsTLS(*files.server))
    trust = files.trust(files.client)
    assert (await _ask(server, "/logspec", "PUT", trust, json={"spec": "debug"}))[0] == 403


async def test_certificate_of_a_stranger_is_refused(start: Start, files: Files) -> None:
    server = await start(files.tls)
    with pytest.raises(aiohttp.ClientError):
        await _ask(server, "/healthz", trust=files.trust(files.stranger))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"debug", 'send {"spec": "info"}'),
        (b"[]", 'send {"spec": "info"}'),
        (b"{}", 'send {"spec": "info"}'),
        (b"\xff", 'send {"spec": "info"}'),
        (b"[" * 30_000, 'send {"spec": "info"}'),
        (b'{"spec": 5}', "must be text"),
        (b'{"spec": "loud"}', "has the level 'loud'"),
    ],
)
async def test_wrong_level_request_is_refused_with_a_sentence(
    start: Start, files: Files, body: bytes, sentence: str
) -> None:
    before = logs.get_spec()
    server = await start(files.tls)
    status, answer = await _ask(server, "/logspec", "PUT", files.trust(files.client), data=body)
    assert status == 400
    assert sentence in answer["error"]
    assert logs.get_spec() == before


async def test_large_body_is_refused(start: Start, files: Files) -> None:
    server = await start(files.tls)
    trust = files.trust(files.client)
    status, _ = await _ask(server, "/logspec", "PUT", trust, data=b"x" * 100_000)
    assert status == 413


async def test_a_chaincodes_certificate_changes_no_levels(start: Start, files: Files) -> None:
    server = await start(files.tls)
    trust = files.trust(files.chaincode)
    status, answer = await _ask(server, "/logspec", "PUT", trust, json={"spec": "debug"})
    assert status == 403
    assert "A chaincode's certificate does not allow" in answer["error"]


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX", b"first"])
async def test_a_connection_without_a_request_is_ended_in_time(
    start: Start, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("selvedge_common.operations.server._HEADERS", 0.2)
    server = await start()
    reader, writer = await asyncio.open_connection(*server.address.split(":"))
    if sent == b"first":  # one request, then half of another
        writer.write(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nX")
        assert b"200 OK" in await reader.readuntil(b"\r\n")
    else:
        writer.write(sent)
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()


async def test_a_slow_body_is_ended_in_time(
    start: Start, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selvedge_common.operations.server._ANSWER", 0.2)
    server = await start(files.tls)
    host, port = server.address.split(":")
    trust = files.trust(files.client)
    reader, writer = await asyncio.open_connection(
        host, port, ssl=trust, server_hostname="127.0.0.1"
    )
    writer.write(b"PUT /logspec HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
    async with asyncio.timeout(10):
        assert b"408" in await reader.read()
    writer.close()


async def test_a_slow_handshake_is_ended_in_time(
    start: Start, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selvedge_common.operations.connections._HANDSHAKE", 0.2)
    server = await start(files.tls)
    reader, writer = await asyncio.open_connection(*server.address.split(":"))
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()


@pytest.mark.parametrize("by_tls", [False, True])
async def test_beyond_the_bound_the_oldest_connection_makes_room(
    start: Start, files: Files, monkeypatch: pytest.MonkeyPatch, by_tls: bool
) -> None:
    monkeypatch.setattr("selvedge_common.operations.server._MOST_CONNECTIONS", 3)
    server = await start(files.tls if by_tls else None)
    before = ENDED._value.get()
    opened = [await asyncio.open_connection(*server.address.split(":")) for _ in range(5)]
    assert (await _ask(server, "/version", trust=files.trust() if by_tls else None))[0] == 200
    assert ENDED._value.get() - before == 3
    async with asyncio.timeout(10):
        for reader, writer in opened[:3]:
            assert await reader.read() == b""
            writer.close()
    for _, writer in opened[3:]:
        writer.close()


@pytest.mark.parametrize("address", ["", "localhost", "localhost:x", "localhost:70000"])
def test_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(OperationsError, match="is malformed; write host:port"):
        OperationsServer(address, None, {}, "")


async def test_address_in_use_is_refused(start: Start) -> None:
    server = await start()
    with pytest.raises(OperationsError, match=f"cannot listen on {server.address}"):
        await OperationsServer(server.address, None, {}, "").start()


def test_tls_files_that_cannot_be_used_are_named(files: Files, tmp_path: Path) -> None:
    missing, certificate, key = tmp_path / "missing.crt", *files.server
    for tls, file in (
        (OperationsTLS(missing, key), missing),
        (OperationsTLS(certificate, files.client[1]), certificate),
        (OperationsTLS(certificate, key, [missing]), missing),
        (OperationsTLS(certificate, key, [key]), key),
    ):
        with pytest.raises(OperationsError, match=f"{file}.* cannot be used"):
            OperationsServer("127.0.0.1:0", tls, {}, "")
