"""What goes wrong in real life: a consumer that stops reading, services that die."""

import itertools
import json
import threading

import grpc
import pytest
from tests.e2e.clients import ChatClient, Client, interest
from tests.e2e.stack import OPERATIONS, Stack, eventually

from selvedge_protos.common import common_pb2
from selvedge_protos.peer import events_pb2

PAYLOAD = "x" * 200_000


@pytest.mark.timeout(180)
def test_a_consumer_that_stops_reading_is_closed_and_others_receive_everything(
    stack: Stack, unique: str
) -> None:
    """Block events of 200 kB each, until the hub has closed the one that never reads."""
    blocks = [interest(events_pb2.BLOCK)]

    def closed() -> float:
        slow = 'eventhub_consumers_closed_total{reason="SLOW_CONSUMER"}'
        return metric(stack, "event-hub", slow)

    with (
        ChatClient(stack, blocks) as reader,
        ChatClient(stack, blocks, reading=False) as sleeper,
        Client(stack) as client,
    ):
        before = closed()
        sent = []
        for number in range(2000):
            asset = f"{unique}-{number}"
            sent.append(client.submit("asset-transfer", "CreateAsset", asset, PAYLOAD, "1"))
            if number % 20 == 0 and closed() > before:
                break
        else:
            pytest.fail("the hub never closed a consumer that does not read")
        received: set[str] = set()
        while not received.issuperset(sent):
            received.update(txids(reader.next().block))
        sleeper.read_to_end()
        assert sleeper.status() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "SLOW_CONSUMER" in sleeper.details()


def txids(block: common_pb2.Block) -> list[str]:
    """The transaction ids in a block."""
    found = []
    for data in block.data.data:
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(data).payload)
        found.append(common_pb2.ChannelHeader.FromString(payload.header.channel_header).tx_id)
    return found


def metric(stack: Stack, service: str, name: str) -> float:
    """The sum of a metric's samples."""
    lines = stack.operations(service, "/metrics").splitlines()
    samples = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in samples)


class Writer:
    """Submits transactions until stopped, and keeps those that ordering answered SUCCESS."""

    def __init__(self, stack: Stack, prefix: str) -> None:
        self.acknowledged: set[str] = set()
        self._stack = stack
        self._prefix = prefix
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        with Client(self._stack) as client:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                key = f"{self._prefix}-{number}"
                try:
                    self.acknowledged.add(
                        client.submit("asset-transfer", "CreateAsset", key, "ada", "1")
                    )
                except (grpc.RpcError, AssertionError):
                    # The service or the chaincode's stream is away for a moment.
                    self._stop.wait(0.05)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("service", OPERATIONS)
def test_kill_9_loses_nothing_committed_and_a_resuming_consumer_misses_nothing(
    stack: Stack, service: str, unique: str
) -> None:
    with Client(stack) as client:
        start = client.height()
    # The consumer notes its position, goes away, and resumes after the killing.
    resume = ["events", "--type", "filtered", "--resume", unique, "--until", "newest"]
    stack.selvedge(*resume, "--json")
    with Writer(stack, unique) as writer:
        eventually(lambda: len(writer.acknowledged) >= 20, "twenty transactions")
        stack.kill(service)
        after = len(writer.acknowledged)
        eventually(lambda: len(writer.acknowledged) >= after + 20, f"{service} is back")
    with Client(stack) as client:
        committed = client.committed(start, writer.acknowledged)
    assert {code for _, code in committed.values()} == {0}
    seen = resumed_transactions(stack, resume)
    assert writer.acknowledged <= set(seen)
    assert len(seen) == len(set(seen)), "an event came twice"


def resumed_transactions(stack: Stack, resume: list[str]) -> list[str]:
    """The transactions of the filtered blocks since the position noted before."""
    lines = stack.selvedge(*resume, "--json").stdout.splitlines()
    return [entry["txid"] for line in lines for entry in json.loads(line)["transactions"]]


@pytest.mark.timeout(180)
def test_the_hub_killed_under_load_catches_up_and_feeds_its_consumers_again(
    stack: Stack, unique: str
) -> None:
    with Writer(stack, unique) as writer:
        eventually(lambda: len(writer.acknowledged) >= 5, "five transactions")
        stack.kill("event-hub")
    with Client(stack) as client:
        height = client.height()
        eventually(
            lambda: metric(stack, "event-hub", "eventhub_source_height") == height,
            "the hub has read what was committed while it was dead",
        )
        wish = [interest(events_pb2.CHAINCODE, "asset-transfer", "")]
        with ChatClient(stack, wish) as consumer:
            sent = [
                client.submit(
                    "asset-transfer", "CreateAsset", f"{unique}-after-{number}", "ada", "1"
                )
                for number in range(5)
            ]
            assert [consumer.next().chaincode_event.tx_id for _ in sent] == sent
