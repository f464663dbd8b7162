"""A container's health check against real endpoints."""

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from selvedge_common.healthcheck import Unhealthy, check


@contextmanager
def endpoint(status: int, body: str, certificate: Path | None = None) -> Iterator[str]:
    """An operations endpoint that answers every request alike; yields its /healthz."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            """Keeps the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    scheme = "http"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{scheme}://localhost:{server.server_port}/healthz"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def self_signed(folder: Path) -> Path:
    """A file with key and certificate of a server called localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(minutes=5))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "localhost.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


def test_an_endpoint_that_answers_200_is_healthy() -> None:
    with endpoint(200, "OK") as url:
        check(url)


def test_an_endpoint_vouched_for_by_the_given_root_is_healthy(tmp_path: Path) -> None:
    root = self_signed(tmp_path)
    with endpoint(200, "OK", certificate=root) as url:
        check(url, root)


def test_an_endpoint_of_another_root_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    with (
        endpoint(200, "OK", certificate=self_signed(tmp_path)) as url,
        pytest.raises(Unhealthy, match="certificate verify failed"),
    ):
        check(url, self_signed(folder))


def test_any_other_status_is_unhealthy_and_says_what_the_service_said() -> None:
    with endpoint(503, "ledger: disk is full") as url:
        with pytest.raises(Unhealthy, match=r"answers 503: ledger: disk is full"):
            check(url)
        with pytest.raises(Unhealthy, match="answers 404"):
            check(url.replace("healthz", "elsewhere"))


def test_a_root_that_is_not_there_yet_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unhealthy, match=r"there is no .*/ca\.crt yet"):
        check("https://localhost:9443/healthz", tmp_path / "ca.crt")


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="is no address to ask"):
        check("localhost:9443/healthz")


def test_the_command_ends_with_a_sentence_and_status_1_when_nobody_answers() -> None:
    with endpoint(200, "OK") as url:
        command = [sys.executable, "-m", "selvedge_common.healthcheck", url]
        assert subprocess.run(command, check=False).returncode == 0
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "does not answer" in refused.stderr
    assert "Traceback" not in refused.stderr
