"""A running Selvedge, whatever runs it: what the end-to-end tests are written against."""

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc

ROOT = Path(__file__).resolve().parents[2]
SELVEDGE = Path(sys.executable).with_name("selvedge")

OPERATIONS = {"chaincode-support": 9443, "event-hub": 9444, "ca": 9445}
LISTENERS = {
    "peer": (
        "localhost:7051",
        ["protos.Admin", "protos.Deliver", "protos.Endorser", "selvedge.chaincode.v1.Chaincodes"],
    ),
    "chaincode": ("localhost:7052", ["protos.ChaincodeSupport"]),
    "ordering": ("localhost:7050", ["orderer.AtomicBroadcast"]),
    "events": (
        "localhost:7053",
        [
            "protos.Deliver",
            "protos.Events",
            "selvedge.eventhub.v1.EventHub",
            "selvedge.eventhub.v1.Producer",
        ],
    ),
    "ca": ("localhost:7055", ["selvedge.ca.v1.CertificateAuthority"]),
}
MESSAGE_BYTES = 100 * 1024 * 1024


class Stack(ABC):
    """The three services and the Python sample, up; `folder` is where a user would stand.

    Between them the drivers cover both transports: each has the whole suite.
    """

    name: str
    transport: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / ".selvedge"

    @abstractmethod
    def up(self) -> None:
        """Start everything and wait until it is ready."""

    @abstractmethod
    def down(self) -> None:
        """Stop everything."""

    @abstractmethod
    def kill(self, service: str) -> None:
        """kill -9 a service and have it started again; returns when it is healthy."""

    @abstractmethod
    def cut_off(self, service: str) -> AbstractContextManager[None]:
        """Have nothing come from a service or to it, without killing it."""

    @abstractmethod
    def log(self, service: str) -> str:
        """What the service has logged so far."""

    def environment(self) -> dict[str, str]:
        """What commands on the host run with."""
        return {**os.environ, "NO_COLOR": "1", "CORE_TRANSPORT_KIND": self.transport}

    def run(
        self, *command: str | Path, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the user would, in `folder`."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join(map(str, command))} ended with {done.returncode}\n"
                f"{done.stdout}\n{done.stderr}"
            )
        return done

    def selvedge(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return self.run(SELVEDGE, *words, check=check)

    def json(self, *words: str) -> Any:
        """Run the command line with --json and read its answer."""
        return json.loads(self.selvedge(*words, "--json").stdout)

    def user_tls(self, user: str) -> Path:
        """The folder of a user's TLS material."""
        return self.home / "crypto" / "users" / user / "tls"

    def channel(self, address: str, user: str | None = "user1") -> grpc.Channel:
        """A client's channel; without a user it presents no certificate."""
        tls = self.user_tls(user or "user1")
        pair = {}
        if user:
            pair = {
                "private_key": (tls / "client.key").read_bytes(),
                "certificate_chain": (tls / "client.crt").read_bytes(),
            }
        credentials = grpc.ssl_channel_credentials((tls / "ca.crt").read_bytes(), **pair)
        return grpc.secure_channel(
            address,
            credentials,
            [
                # A connection of its own, made with this user's certificate and no other's.
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_send_message_length", MESSAGE_BYTES),
                # A service that is being restarted is dialled again at once.
                ("grpc.max_reconnect_backoff_ms", 200),
                # One that was cut off for longer is given up.
                ("grpc.keepalive_time_ms", 5_000),
                ("grpc.keepalive_timeout_ms", 5_000),
            ],
        )

    def operations(self, service: str, path: str) -> str:
        """GET a path of an operations endpoint, as a probe would: without a certificate."""
        context = ssl.create_default_context(cafile=str(self.user_tls("user1") / "ca.crt"))
        url = f"https://localhost:{OPERATIONS[service]}{path}"
        with urllib.request.urlopen(url, context=context, timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def healthy(self, service: str) -> bool:
        """Whether the service's operations endpoint says so."""
        try:
            return bool(json.loads(self.operations(service, "/healthz"))["status"] == "OK")
        except OSError:
            return False


def eventually(
    condition: Callable[[], Any], what: str, timeout: float = 30, pause: float = 0.05
) -> Any:
    """Poll until `condition` gives something true, and give that.

    Raises:
        AssertionError: it did not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        if result := condition():
            return result
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(pause)
