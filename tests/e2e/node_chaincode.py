"""The sample on Fabric's own Node shim, run on the host as its README says."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.stack import ROOT, Stack, eventually
from tests.e2e.tools import require

NAME = "asset-transfer-node"
SAMPLE = ROOT / "samples" / "asset-transfer-node"


@contextlib.contextmanager
def running(stack: Stack, log: Path) -> Iterator[None]:
    """The chaincode dialled in over mTLS with a certificate of its own."""
    stack.selvedge("ca", "issue", "--chaincode", NAME)
    material = stack.home / "crypto" / "chaincodes" / NAME
    environment = {
        **os.environ,
        "CORE_PEER_TLS_ENABLED": "true",
        "CORE_PEER_TLS_ROOTCERT_FILE": str(material / "ca.crt"),
        "CORE_TLS_CLIENT_CERT_PATH": str(material / "client.crt.b64"),
        "CORE_TLS_CLIENT_KEY_PATH": str(material / "client.key.b64"),
    }
    words = ["--peer.address", "localhost:7052", "--chaincode-id-name", f"{NAME}:1.0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [require("npm"), "start", "--", *words],
            cwd=SAMPLE,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # npm starts a shell that starts node: they are stopped as one
        )
        try:
            eventually(
                lambda: _answers(stack) or process.poll() is not None,
                f"{NAME} is registered; its log: {log}",
            )
            assert process.poll() is None, log.read_text()
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=15)


def _answers(stack: Stack) -> bool:
    asked = stack.selvedge("query", NAME, "ListAssets", "", "", check=False)
    return asked.returncode == 0
