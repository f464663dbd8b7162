"""The same life of an asset on the Python sample and on an unmodified Node chaincode."""

import json
from collections.abc import Iterator

import pytest
from tests.e2e import node_chaincode
from tests.e2e.clients import ChatClient, Client, interest
from tests.e2e.stack import Stack
from tests.e2e.tools import npm_ci

from selvedge_protos.peer import events_pb2

CHAINCODES = ["asset-transfer", node_chaincode.NAME]


@pytest.fixture(scope="module", params=CHAINCODES)
def chaincode(
    request: pytest.FixtureRequest, stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    name: str = request.param
    if name != node_chaincode.NAME:
        yield name
        return
    cache = tmp_path_factory.mktemp("npm")
    npm_ci(node_chaincode.SAMPLE, cache)
    with node_chaincode.running(stack, cache / "chaincode.log"):
        yield name


def stored(stack: Stack, chaincode: str, asset: str) -> dict[str, object]:
    answer = stack.selvedge("query", chaincode, "ReadAsset", asset)
    content: dict[str, object] = json.loads(answer.stdout)
    return content


@pytest.mark.timeout(120)
def test_an_asset_is_created_read_updated_and_deleted(
    stack: Stack, chaincode: str, unique: str
) -> None:
    stack.selvedge("invoke", chaincode, "CreateAsset", unique, "ada", "100")
    assert stored(stack, chaincode, unique) == {"id": unique, "owner": "ada", "value": 100}

    stack.selvedge("invoke", chaincode, "UpdateAsset", unique, "150")
    assert stored(stack, chaincode, unique)["value"] == 150

    stack.selvedge("invoke", chaincode, "DeleteAsset", unique)
    refused = stack.selvedge("query", chaincode, "ReadAsset", unique, check=False)
    assert refused.returncode != 0
    assert f"there is no asset {unique}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_range_of_more_than_one_page_comes_whole_and_in_order(
    stack: Stack, chaincode: str, unique: str
) -> None:
    ids = [f"{unique}-{number:03}" for number in range(105)]
    with Client(stack) as client:
        start = client.height()
        sent = {client.submit(chaincode, "CreateAsset", each, "ada", "1") for each in ids}
        committed = client.committed(start, sent)
    assert {code for _, code in committed.values()} == {0}
    listed = stack.selvedge("query", chaincode, "ListAssets", f"{unique}-", f"{unique}-~")
    assert [asset["id"] for asset in json.loads(listed.stdout)] == ids


def test_its_event_reaches_who_registered_for_it(stack: Stack, chaincode: str, unique: str) -> None:
    named = interest(events_pb2.CHAINCODE, chaincode, "AssetCreated")
    with ChatClient(stack, [named]) as consumer, Client(stack) as client:
        txid = client.submit(chaincode, "CreateAsset", unique, "ada", "7")
        event = consumer.next().chaincode_event
    assert (event.chaincode_id, event.event_name, event.tx_id) == (
        chaincode,
        "AssetCreated",
        txid,
    )
    assert json.loads(event.payload) == {"id": unique, "owner": "ada", "value": 7}


def test_two_transactions_on_one_key_conflict_and_the_loser_is_rejected(
    stack: Stack, chaincode: str, unique: str
) -> None:
    rejections = [interest(events_pb2.REJECTION)]
    with ChatClient(stack, rejections) as consumer, Client(stack) as client:
        start = client.height()
        first, winner = client.transaction(chaincode, "CreateAsset", unique, "ada", "1")
        second, loser = client.transaction(chaincode, "CreateAsset", unique, "bob", "2")
        client.broadcast(first, second)
        committed = client.committed(start, {winner, loser})
        rejection = consumer.next().rejection
    assert committed[winner][1] == 0
    assert committed[loser][1] == 11  # MVCC_READ_CONFLICT
    assert loser in rejection.error_msg
    assert "MVCC_READ_CONFLICT" in rejection.error_msg
