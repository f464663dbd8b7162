"""The sample chaincode against a peer that keeps its state in a dictionary."""

import json
import runpy
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from shim.tests.scripted_peer import Message, Stream, conversation, rows

from selvedge_protos.peer import chaincode_shim_pb2 as wire
from selvedge_protos.peer import proposal_response_pb2

SAMPLE = runpy.run_path(str(Path(__file__).parent.parent / "asset_transfer.py"))


class Ledger:
    """Plays the peer: runs one transaction at a time and commits what it wrote."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.state: dict[str, bytes] = {}

    async def call(self, *args: str) -> tuple[proposal_response_pb2.Response, str]:
        """Give the response and the event's name."""
        await self._stream.transaction(*args)
        writes: dict[str, bytes] = {}
        while True:
            message = await self._stream.receive()
            answer = b""
            match message.type:
                case Message.GET_STATE:
                    answer = self.state.get(wire.GetState.FromString(message.payload).key, b"")
                case Message.PUT_STATE:
                    put = wire.PutState.FromString(message.payload)
                    writes[put.key] = put.value
                case Message.DEL_STATE:
                    writes[wire.DelState.FromString(message.payload).key] = b""
                case Message.GET_STATE_BY_RANGE:
                    asked = wire.GetStateByRange.FromString(message.payload)
                    end = asked.endKey or "\U0010ffff"
                    found = {
                        k: v for k, v in sorted(self.state.items()) if asked.startKey <= k < end
                    }
                    answer = rows(found, has_more=False)
                case _:
                    self.state.update(writes)
                    self.state = {key: value for key, value in self.state.items() if value}
                    response = proposal_response_pb2.Response.FromString(message.payload)
                    return response, message.chaincode_event.event_name
            await self._stream.send(Message.RESPONSE, answer, message.txid)


@pytest.fixture
async def ledger() -> AsyncIterator[Ledger]:
    async with conversation(SAMPLE["AssetTransfer"]()) as stream:
        yield Ledger(stream)


async def test_asset_lives_from_creation_to_deletion(ledger: Ledger) -> None:
    response, event = await ledger.call("CreateAsset", "a1", "ada", "100")
    assert (response.status, event) == (200, "AssetCreated")
    assert ledger.state["a1"] == b'{"id":"a1","owner":"ada","value":100}'

    assert (await ledger.call("UpdateAsset", "a1", "120"))[1] == "AssetUpdated"
    assert (await ledger.call("TransferAsset", "a1", "bob"))[1] == "AssetTransferred"
    response, event = await ledger.call("ReadAsset", "a1")
    assert json.loads(response.payload) == {"id": "a1", "owner": "bob", "value": 120}
    assert event == ""

    assert (await ledger.call("DeleteAsset", "a1"))[1] == "AssetDeleted"
    assert ledger.state == {}


async def test_assets_are_listed_by_range(ledger: Ledger) -> None:
    for number in range(4):
        await ledger.call("CreateAsset", f"a{number}", "ada", "1")
    response, _ = await ledger.call("ListAssets", "a1", "a3")
    assert [asset["id"] for asset in json.loads(response.payload)] == ["a1", "a2"]
    response, _ = await ledger.call("ListAssets", "", "")
    assert len(json.loads(response.payload)) == 4


@pytest.mark.parametrize(
    ("call", "status", "sentence"),
    [
        (["ReadAsset", "none"], 400, "there is no asset none"),
        (["CreateAsset", "a1", "ada", "much"], 400, "the value 'much' is not a whole number"),
        (["CreateAsset", "a1"], 400, "CreateAsset takes ID OWNER VALUE: it was given 1"),
        (["Paint", "a1"], 404, "there is no function 'Paint': use one of CreateAsset, ReadAsset"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_a_sentence(
    ledger: Ledger, call: list[str], status: int, sentence: str
) -> None:
    response, event = await ledger.call(*call)
    assert (response.status, event) == (status, "")
    assert response.message.startswith(sentence)


async def test_an_asset_is_created_once(ledger: Ledger) -> None:
    await ledger.call("CreateAsset", "a1", "ada", "1")
    response, _ = await ledger.call("CreateAsset", "a1", "bob", "2")
    assert response.message == "the asset a1 exists already"
