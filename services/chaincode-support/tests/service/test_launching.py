"""Chaincode that the running service starts from a package, and that ends with it."""

import asyncio
import json
import socket
import sys
from pathlib import Path

import pytest
from rawshim import PATIENCE
from serviceprocess import Authority, Process

from selvedge_common.msp import load_signing_identity

from .test_service import MODULE, dial, propose

CHAINCODE = """
import os
from selvedge_shim import Chaincode, Response, Stub, start, success

class Where(Chaincode):
    async def invoke(self, stub: Stub) -> Response:
        return success(str(os.getpid()))

start(Where())
"""


def alive(pid: int) -> bool:
    """Whether it runs: one that has ended may not have been collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("killed", [False, True])
async def test_it_is_started_enrolled_and_ends_with_the_service_also_if_that_is_killed(
    authority: Authority, tmp_path: Path, killed: bool
) -> None:
    volume = tmp_path / "volume"
    package = volume / "chaincodes" / "mycc"
    package.mkdir(parents=True)
    (package / "chaincode.py").write_text(CHAINCODE)
    (package / "enrolment.json").write_bytes(authority.enrolment("mycc", "chaincode").to_json())
    metadata = {
        "type": "process",
        "label": "mycc_1.0",
        "command": [sys.executable, "chaincode.py"],
        "enrolment": "enrolment.json",
    }
    (package / "metadata.json").write_text(json.dumps(metadata))
    # It has to be told where to dial before the listener has its port.
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    settings = authority.service_settings(
        volume,
        CORE_PEER_CHAINCODELISTENADDRESS=f"127.0.0.1:{port}",
        CORE_PEER_CHAINCODEADDRESS=f"localhost:{port}",
    )
    service = Process.start(MODULE, settings)
    try:
        assert service.serving, service.lines
        folder = await authority.user("user1")
        user = load_signing_identity(folder / "msp", "Org1MSP")
        async with dial(service.serving["api"], folder / "tls") as api:
            _, response = await propose(api, user, b"where")
        assert response.response.status == 200, response.response.message
        pid = int(response.response.payload)
        assert alive(pid)
        if killed:
            service.kill()
        else:
            assert service.stop() == 0
        async with asyncio.timeout(PATIENCE):
            while alive(pid):
                await asyncio.sleep(0.01)
    finally:
        if service.popen.poll() is None:
            service.kill()
