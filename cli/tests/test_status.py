"""`selvedge status` says what is the case: down, or there and not well."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import pytest
from cli.tests import good_listeners
from cli.tests.fake_services import Network, answering, make_pair, make_signer, serving
from cli.tests.good_listeners import EventHub
from cli.tests.homes import Home

from selvedge_cli.addresses import Addresses
from selvedge_cli.inspection import (
    ChannelStatus,
    Endpoint,
    HubChannel,
    Report,
    ServiceStatus,
    _hub_channels,
    _operations,
    _troubles,
)
from selvedge_cli.status import _print_report
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import ChannelState, HubState

DAMAGE = "The ledger file x.sqlite is damaged: page 3. Stop the service and run `rebuild`."
UNHEALTHY = {"failed_checks": [{"component": "committer", "reason": DAMAGE}]}
METRICS = """\
eventhub_source_connected{channel="mychannel"} 0.0
eventhub_source_height{channel="mychannel"} 3.0
eventhub_source_behind{channel="mychannel"} 2.0
"""
FORK = "the source p:1: a fork\x1b[31m"
USER = {"name": "u", "identity_until": "2030-01-01", "tls_until": "2030-01-01"}


@contextmanager
def operations(home: Path, body: bytes) -> Iterator[str]:
    """Serve /healthz on TLS with a 503; the user's home trusts it. Gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not on standard error."""

    pair = make_pair()
    files = home / "server.crt", home / "server.key"
    for file, pem in zip(files, (pair.certificate_pem, pair.key_pem), strict=True):
        file.write_bytes(pem)
    root = home / "crypto" / "users" / "user1" / "tls" / "ca.crt"
    root.parent.mkdir(parents=True, exist_ok=True)
    root.write_bytes(pair.certificate_pem)
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    server = HTTPServer(("localhost", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def report(*endpoints: Endpoint, channel: str = "", hub: Sequence[HubChannel] = ()) -> Report:
    services = [ServiceStatus("ca", []), ServiceStatus("chaincode-support", list(endpoints))]
    return Report(services, ChannelStatus("mychannel", 1, "00", channel), [*hub], None, USER)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (json.dumps(UNHEALTHY).encode(), f"committer: {DAMAGE}"),
        (b"a proxy's page", "https://{address}/healthz answers 503: a proxy's page"),
    ],
)
async def test_what_a_service_says_of_its_health_is_told(
    tmp_path: Path, body: bytes, told: str
) -> None:
    async with serving(Network(make_signer(), answering()), tmp_path) as connection:
        with operations(connection.settings.home, body) as address:
            endpoint = await _operations(connection, address)
        assert (endpoint.error, endpoint.answers) == (told.format(address=address), True)
        away = await _operations(connection, "localhost:1")
    assert not away.answers


def test_a_service_that_is_not_well_is_not_called_down(capsys: pytest.CaptureFixture[str]) -> None:
    unwell = report(
        Endpoint("ordering", "localhost:7050", "NOT_SERVING"),
        Endpoint("operations", "localhost:9443", f"committer: {DAMAGE}"),
        channel="it is damaged",
    )
    assert _print_report(unwell, as_json=False) == 1
    told = capsys.readouterr()
    assert DAMAGE in told.out
    assert "chaincode-support: NOT WELL" in told.out
    assert told.err == (
        "selvedge: chaincode-support runs and is not well: why, and what to do, is said above at "
        "operations, and in the log\n"
    )
    _print_report(report(channel="it is damaged"), as_json=False)
    assert capsys.readouterr().err == "selvedge: it is damaged\n"


def test_a_service_that_does_not_answer_is_down(capsys: pytest.CaptureFixture[str]) -> None:
    down = report(Endpoint("ordering", "localhost:7050", "UNAVAILABLE", answers=False))
    assert _print_report(down, as_json=False) == 1
    told = capsys.readouterr()
    assert "chaincode-support: DOWN" in told.out
    assert "selvedge: something is down: start it with" in told.err


def test_how_far_the_hub_is_behind_and_what_is_wrong_with_its_source_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unread = report(hub=_hub_channels(METRICS, {"mychannel": FORK}))
    _print_report(unread, as_json=False)
    assert (
        "event hub, channel mychannel: NO SOURCE, height 3, 2 behind its source\n"
        "  the source p:1: a fork\\x1b[31m\n"
    ) in capsys.readouterr().out
    _print_report(unread, as_json=True)
    assert json.loads(capsys.readouterr().out)["hub_channels"] == [
        {"name": "mychannel", "height": 3, "behind": 2, "connected": False, "trouble": FORK}
    ]


async def test_the_hub_is_asked_as_the_administrator_of_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.add_user("user1")
    channels = [ChannelState(name="mychannel", trouble=FORK), ChannelState(name="other")]
    hub = EventHub(home.msp, [HubState(channels=channels)])
    async with good_listeners.serving(home, hub.add_to) as address:
        settings = home.settings(Addresses(events=address))
        assert await _troubles(settings) == {}
        home.add_user("admin", unit="client")
        assert await _troubles(settings) == {}
        home.add_user("admin", unit="admin")
        assert await _troubles(settings) == {"mychannel": FORK, "other": ""}
    assert await _troubles(settings) == {}
