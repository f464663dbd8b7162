"""Health and reflection, asked by Node's @grpc/grpc-js with the protos that npm packages ship."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from tests.conformance.conftest import Target
from tests.conformance.programs import HERE, running
from tests.e2e.tools import npm_ci, require

FOLDER = HERE / "node"
HEALTH = "grpc.health.v1.Health"
_NOT_FOUND = 5


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, with what it needs installed."""
    npm_ci(FOLDER, tmp_path_factory.mktemp("npm"))
    return FOLDER / "probe.js"


# The first has npm install what the script needs.
@pytest.mark.timeout(330)
@pytest.mark.parametrize("security", ["plaintext", "mtls"])
@pytest.mark.parametrize("transport", ["grpcio", "native"])
async def test_node_reads_health_and_reflection(target: Target, probe: Path) -> None:
    files: list[Path] = []
    if target.material:
        files = [target.material.ca, target.material.key, target.material.certificate]
    answers: dict[str, list[Any]] = {}
    async with running(require("node"), probe, target.address, *files) as node:
        assert node.stdout is not None
        assert node.stderr is not None
        async with asyncio.timeout(30):
            async for line in node.stdout:
                said = json.loads(line)
                answers.setdefault(said["question"], []).append(said["answer"])
                if said == {"question": "watch", "answer": "SERVING"}:
                    target.server.set_serving("", False)
            errors = (await node.stderr.read()).decode()
            assert await node.wait() == 0, errors
    described = {version: answers.pop(f"{version} file_containing_symbol") for version in VERSIONS}
    assert answers == {
        "check": ["SERVING"],
        f"check {HEALTH}": ["SERVING"],
        "check no.such.Service": ["NOT_FOUND"],
        "watch no.such.Service": ["SERVICE_UNKNOWN"],
        "watch": ["SERVING", "NOT_SERVING"],
        **{f"{version} list_services": [list(target.server.services)] for version in VERSIONS},
        **{f"{version} file_by_filename": [_NOT_FOUND] for version in VERSIONS},
    }
    for (files_of_health,) in described.values():
        assert _file(files_of_health[0]) == _file_of(health_pb2)


VERSIONS = ("v1", "v1alpha")


def _file(encoded: str) -> descriptor_pb2.FileDescriptorProto:
    return descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(encoded))


def _file_of(module: Any) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file
