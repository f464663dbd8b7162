"""The cases of grpc-go's interop client."""

import json

import pytest
from tests.conformance.conftest import Target
from tests.conformance.interop_cases import CASES, SOAK_FLAGS
from tests.conformance.programs import Ended, run
from tests.e2e.tools import require

_REPORTED_LOAD: dict[str, object] = {
    "loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]
}
_FLAGS = {
    "orca_per_rpc": [f"--service_config_json={json.dumps(_REPORTED_LOAD)}"],
    "rpc_soak": SOAK_FLAGS,
    "channel_soak": SOAK_FLAGS,
}


@pytest.mark.parametrize("case", [*CASES, "pick_first_unary", "orca_per_rpc"])
@pytest.mark.parametrize("security", ["plaintext", "tls"])
@pytest.mark.parametrize("transport", ["grpcio", "native"])
async def test_case_of_the_go_interop_client_passes(target: Target, case: str) -> None:
    ended = await _client(target, case)
    assert ended.code == 0, ended.stderr


# The client has no flags for a certificate of its own.
@pytest.mark.parametrize("security", ["mtls"])
@pytest.mark.parametrize("transport", ["grpcio", "native"])
async def test_the_go_client_is_refused_where_a_certificate_is_required(target: Target) -> None:
    ended = await _client(target, "empty_unary")
    assert ended.code != 0
    assert "code = Unavailable" in ended.stderr


async def _client(target: Target, case: str) -> Ended:
    tls = []
    if target.material:
        tls = ["--use_tls", "--use_test_ca", f"--ca_file={target.material.ca}"]
    address = ["--server_host=127.0.0.1", f"--server_port={target.port}"]
    flags = [*address, *tls, f"--test_case={case}", *_FLAGS.get(case, [])]
    return await run(require("grpc-interop-go"), *flags, seconds=30)
