"""Metrics after traffic, and every expression of the dashboards asked of a real Prometheus."""

import contextlib
import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deploy.expressions import expressions
from tests.e2e.clients import ChatClient, Client, interest
from tests.e2e.stack import OPERATIONS, ROOT, Stack, eventually
from tests.e2e.tools import require

from selvedge_protos.peer import events_pb2

AFTER_TRAFFIC = {
    "chaincode-support": [
        "chaincode_shim_requests_received",
        "endorser_proposals_received",
        "endorser_proposal_duration",
        "deliver_blocks_sent",
        "ledger_blockchain_height",
        "ledger_transaction_count",
        "broadcast_processed_count",
        "grpc_server_handled_total",
    ],
    "event-hub": ["eventhub_events_delivered_total", "eventhub_source_height"],
    "ca": ["ca_certificates_issued_total"],
}


@pytest.fixture
def traffic(stack: Stack, unique: str) -> None:
    """A few transactions, a few events, a refusal."""
    kinds = [interest(events_pb2.BLOCK), interest(events_pb2.CHAINCODE, "asset-transfer")]
    with ChatClient(stack, kinds) as consumer, Client(stack) as client:
        for number in range(5):
            client.submit("asset-transfer", "CreateAsset", f"{unique}-{number}", "ada", "1")
            consumer.next()
        client.height()


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("service", AFTER_TRAFFIC)
def test_metrics_are_there_after_traffic(stack: Stack, service: str) -> None:
    exposed = stack.operations(service, "/metrics")
    names = {line.split("{")[0].split(" ")[0] for line in exposed.splitlines() if line[:1] != "#"}
    for wanted in AFTER_TRAFFIC[service]:
        assert names & {wanted, f"{wanted}_total", f"{wanted}_count"}, wanted


def prometheus_config(stack: Stack, folder: Path) -> Path:
    """The shipped configuration, its targets replaced by this machine's published ports."""
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ROOT / "deploy" / "prometheus" / "rules.yml")]
    (job,) = config["scrape_configs"]
    job["tls_config"] = {"ca_file": str(stack.user_tls("user1") / "ca.crt")}
    for target in job["static_configs"]:
        target["targets"] = [f"localhost:{OPERATIONS[target['labels']['service']]}"]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextlib.contextmanager
def prometheus(config: Path, folder: Path) -> Iterator[str]:
    """A real Prometheus on a free port; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command: list[str | Path] = [
        require("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(timeout=15)


def ask(server: str, expression: str) -> list[Any]:
    """An instant query's result."""
    question = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"{server}/api/v1/query?{question}", timeout=5) as answer:
            result: list[Any] = json.load(answer)["data"]["result"]
            return result
    except OSError:
        return []


@pytest.mark.timeout(180)
def test_every_expression_of_dashboards_and_alerts_is_answered(
    stack: Stack, unique: str, tmp_path: Path
) -> None:
    kinds = [interest(events_pb2.BLOCK), interest(events_pb2.CHAINCODE, "asset-transfer")]
    with (
        prometheus(prometheus_config(stack, tmp_path), tmp_path) as server,
        ChatClient(stack, kinds) as consumer,
        Client(stack) as client,
    ):
        eventually(lambda: len(ask(server, "up == 1")) == 3, "all three services are scraped")
        unanswered = dict(expressions("30s"))
        count = iter(range(10**6))

        def all_answered() -> bool:
            client.submit("asset-transfer", "CreateAsset", f"{unique}-{next(count)}", "ada", "1")
            consumer.next()
            for where in [w for w, expr in unanswered.items() if ask(server, expr)]:
                del unanswered[where]
            return not unanswered

        with contextlib.suppress(AssertionError):
            eventually(all_answered, "answers", timeout=60, pause=0.5)
    assert unanswered == {}
