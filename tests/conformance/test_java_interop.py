"""The cases of grpc-java's interop client, over both of its HTTP/2 implementations."""

import json
from pathlib import Path

import pytest
from tests.conformance.conftest import Target
from tests.conformance.interop_cases import CASES, SOAK_FLAGS
from tests.conformance.programs import HERE, run
from tests.e2e.tools import require

# Left out are those that need a server that takes GET, those that probe whether a handler is told
# of a message's compression, and pick_first_unary, which is slow here and the Go client's too.
CASES_OF_JAVA = [
    *CASES,
    "very_large_request",
    "client_compressed_unary_noprobe",
    "client_compressed_streaming_noprobe",
    "server_compressed_unary",
    "server_compressed_streaming",
]
_SECONDS = 100

Outcomes = dict[str, str | None]


@pytest.fixture(scope="session")
def known() -> dict[tuple[str, ...], Outcomes]:
    """The outcomes of the runs so far: all cases of one transport, security and client are run
    at once, since a JVM takes longer to start than they do."""
    return {}


@pytest.fixture
async def outcomes(
    target: Target,
    transport: str,
    security: str,
    client: str,
    known: dict[tuple[str, ...], Outcomes],
    tmp_path: Path,
) -> Outcomes:
    one = (transport, security, client)
    if one not in known:
        known[one] = await _run(target, client, tmp_path / "outcomes.json")
    return known[one]


@pytest.mark.timeout(_SECONDS + 20)
@pytest.mark.parametrize("case", CASES_OF_JAVA)
@pytest.mark.parametrize("client", ["netty", "okhttp"])
@pytest.mark.parametrize("security", ["plaintext", "tls"])
@pytest.mark.parametrize("transport", ["grpcio", "native"])
async def test_case_of_the_java_interop_client_passes(outcomes: Outcomes, case: str) -> None:
    assert outcomes[case] is None, outcomes[case]


async def _run(target: Target, client: str, report: Path) -> Outcomes:
    # The compiler that the JVM's start needs most is the quick one.
    jvm = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    if target.material:
        jvm += [
            f"-Djavax.net.ssl.trustStore={target.material.truststore}",
            f"-Djavax.net.ssl.trustStorePassword={target.material.truststore_password}",
        ]
    flags = [
        "--server_host=127.0.0.1",
        f"--server_port={target.port}",
        f"--use_tls={'true' if target.material else 'false'}",
        f"--use_okhttp={'true' if client == 'okhttp' else 'false'}",
        *SOAK_FLAGS,
    ]
    cases = HERE / "java" / "Cases.java"
    program = require("grpc-interop-java")
    ended = await run(
        program, *jvm, cases, report, ",".join(CASES_OF_JAVA), *flags, seconds=_SECONDS
    )
    assert ended.code == 0, ended.stdout + ended.stderr
    return _read(report)


def _read(report: Path) -> Outcomes:
    outcomes: Outcomes = json.loads(report.read_text())
    return outcomes
