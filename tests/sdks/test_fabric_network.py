"""npm `fabric-network` 2.2, discovery off: what an application does with it, it can do here."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from common.tests.conftest import TLSAuthority
from tests.e2e.clients import CHANNEL
from tests.e2e.stack import LISTENERS, Stack, eventually
from tests.sdks.application import SDKError, await_checkpoint, credentials, documented, script
from tests.sdks.conftest import MAX_BYTES
from tests.sdks.fabric_network import Application
from tests.shims.build import FABRIC_NETWORK
from tests.shims.running import Running

pytestmark = pytest.mark.timeout(300)  # the first test installs the SDK and starts everything

ASSETS = "asset-transfer"
every_type = pytest.mark.parametrize("kind", ["full", "filtered", "private"])
everywhere = pytest.mark.parametrize("where", ["peer", "events"])
awaiting = pytest.mark.parametrize(
    "strategy",
    [
        f"{whose}SCOPE_{how}FORTX"
        for whose in ("MSPID_", "NETWORK_", "PREFER_MSPID_")
        for how in ("ALL", "ANY")
    ],
)


def create(application: Application, asset: str) -> str:
    """Create an asset, and give the transaction's id."""
    txid: str = application.submit(ASSETS, "CreateAsset", asset, "ada", "1")["txid"]
    return txid


def value(application: Application, asset: str) -> int:
    """What an asset is worth."""
    worth: int = json.loads(application.evaluate(ASSETS, "ReadAsset", asset))["value"]
    return worth


def conflict(application: Application, asset: str) -> list[Any]:
    """The outcomes of two updates of an asset that are endorsed before either is ordered: that of
    the one that was valid comes first."""
    calls = [
        {"chaincode": ASSETS, "name": "UpdateAsset", "args": [asset, worth]}
        for worth in ("10", "20")
    ]
    outcomes: list[Any] = application.ask("submitTogether", calls=calls)
    return sorted(outcomes, key=lambda outcome: "error" in outcome)


def holding(txid: str) -> Callable[[Any], bool]:
    """Whether a block that was heard holds a transaction."""
    return lambda block: txid in (each["txid"] for each in block["transactions"])


@awaiting
def test_a_transaction_is_submitted_and_its_commit_awaited(
    application: Application, unique: str, strategy: str
) -> None:
    submitted = application.submit(ASSETS, "CreateAsset", unique, "ada", "7", strategy=strategy)
    assert json.loads(submitted["payload"]) == {"id": unique, "owner": "ada", "value": 7}
    assert value(application, unique) == 7


def test_a_transaction_is_submitted_and_not_awaited(application: Application, unique: str) -> None:
    blocks = application.listen("listenToBlocks", type="filtered")
    submitted = application.submit(ASSETS, "CreateAsset", unique, "ada", "7", strategy="NONE")
    blocks.until(holding(submitted["txid"]))
    assert value(application, unique) == 7


def test_what_is_evaluated_leaves_no_trace(application: Application, unique: str) -> None:
    before = application.ask("chainInfo")
    assert json.loads(application.evaluate(ASSETS, "CreateAsset", unique, "ada", "1"))
    with pytest.raises(SDKError, match=f"^there is no asset {unique}$"):
        value(application, unique)
    assert application.ask("chainInfo") == before


def test_a_chaincode_refuses_in_its_own_words(application: Application, unique: str) -> None:
    create(application, unique)
    sentence = f"the asset {unique} exists already"
    with pytest.raises(SDKError, match=f"peer=peer, status=400, message={sentence}$"):
        create(application, unique)
    with pytest.raises(SDKError, match=f"^{sentence}$"):
        application.evaluate(ASSETS, "CreateAsset", unique, "ada", "1")


def test_an_exception_in_a_chaincode_is_told(
    application: Application, contract: Running, unique: str
) -> None:
    with pytest.raises(SDKError, match=f"peer=peer, status=500, message=.*{unique} went wrong"):
        application.submit(contract.name, "Fail", unique, f"{unique} went wrong")
    assert application.evaluate(contract.name, "Get", unique) == ""


def test_a_chaincode_that_is_not_there_is_told(application: Application) -> None:
    sentence = "chaincode nobody is not known to this peer"
    with pytest.raises(SDKError, match=f"peer=peer, status=500, message=.*{sentence}"):
        application.submit("nobody", "anything")
    with pytest.raises(SDKError, match=sentence):
        application.evaluate("nobody", "anything")


def test_a_stranger_is_refused(stack: Stack, tmp_path: Path) -> None:
    pair = TLSAuthority("elsewhere").issue("mallory")
    certificate, key = tmp_path / "mallory.crt", tmp_path / "mallory.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    stranger = replace(credentials(stack), certificate=certificate, key=key)
    with Application(stack, stranger) as application:
        with pytest.raises(SDKError, match="mallory"):
            application.evaluate(ASSETS, "ListAssets", "", "")
        with pytest.raises(SDKError, match="mallory"):
            create(application, "loot")


def test_ordering_refuses_what_is_too_large(application: Application, contract: Running) -> None:
    large = "x" * (MAX_BYTES + 1)
    with pytest.raises(SDKError, match="orderer response status: REQUEST_ENTITY_TOO_LARGE"):
        application.submit(contract.name, "Arguments", large, "")


def test_a_read_conflict_is_told_by_its_code(application: Application, unique: str) -> None:
    create(application, unique)
    valid, rejected = conflict(application, unique)
    assert value(application, unique) == json.loads(valid["payload"])["value"]
    error = SDKError(rejected["error"])
    assert (error.kind, error.code) == ("TransactionError", "MVCC_READ_CONFLICT")
    assert "failed on peer peer with status MVCC_READ_CONFLICT" in str(error)


def test_transient_data_reaches_the_chaincode(
    application: Application, contract: Running, unique: str
) -> None:
    told = {"transient": {"secret": unique}}
    assert application.evaluate(contract.name, "Transient", "secret", **told) == unique
    assert application.submit(contract.name, "Transient", "secret", **told)["payload"] == unique


@every_type
def test_contract_events_are_heard(
    application: Application, listening: Application, contract: Running, unique: str, kind: str
) -> None:
    events = listening.listen("listenToContract", chaincode=ASSETS, type=kind)
    first = create(application, unique)
    events.until(lambda event: event["txid"] == first)
    contract.submit("Event", "AssetStolen", unique)
    valid, _ = conflict(application, unique)
    last = application.submit(ASSETS, "TransferAsset", unique, "bob")
    told = [
        (event["name"], event["payload"])
        for event in events.until(lambda event: event["txid"] == last["txid"])
    ]
    names, payloads = ["AssetUpdated", "AssetTransferred"], [valid["payload"], last["payload"]]
    known = [None, None] if kind == "filtered" else payloads
    assert told == list(zip(names, known, strict=True))


def test_blocks_are_replayed_from_the_first_one(
    application: Application, listening: Application, unique: str
) -> None:
    create(application, unique)
    conflict(application, unique)
    newest = application.ask("chainInfo")["height"] - 1
    heard = [
        listening.listen("listenToBlocks", type=kind, startBlock=0).until(
            lambda block: block["number"] == newest
        )
        for kind in ("full", "filtered")
    ]
    for blocks in heard:
        assert [block["number"] for block in blocks] == list(range(newest + 1))
    full, filtered = heard
    assert full[1:] == filtered[1:]
    assert full[0]["transactions"] == []  # the SDK leaves configuration out
    assert [each["status"] for each in filtered[0]["transactions"]] == ["VALID"]
    updates = [each for block in full[-2:] for each in block["transactions"]][-2:]
    assert sorted(each["status"] for each in updates) == ["MVCC_READ_CONFLICT", "VALID"]
    assert [each["events"] for each in updates] == [["AssetUpdated"], ["AssetUpdated"]]


@everywhere
@every_type
def test_blocks_go_on_from_the_checkpoint_of_an_application_that_was_killed(
    stack: Stack, application: Application, unique: str, kind: str, where: str, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    options = {"type": kind, "startBlock": 0, "checkpoint": str(checkpoint)}
    newest = application.ask("chainInfo")["height"] - 1
    with Application(stack, peer=where) as killed:
        blocks = killed.listen("listenToBlocks", **options)
        before = blocks.until(lambda block: block["number"] == newest)
        await_checkpoint(checkpoint, newest + 1)
        killed.kill()
    create(application, unique)
    last = create(application, f"{unique}-2")
    with Application(stack, peer=where) as restarted:
        after = restarted.listen("listenToBlocks", **options).until(holding(last))
    numbers = [block["number"] for block in before + after]
    assert numbers == list(range(newest + 3))


@everywhere
def test_contract_events_go_on_from_a_checkpoint(
    stack: Stack, application: Application, unique: str, where: str, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    options = {"chaincode": ASSETS, "type": "full", "startBlock": 0}
    first = create(application, unique)
    with Application(stack, peer=where) as killed:
        events = killed.listen("listenToContract", **options, checkpoint=str(checkpoint))
        before = events.until(lambda event: event["txid"] == first)
        await_checkpoint(checkpoint, before[-1]["block"] + 1)
        killed.kill()
    last = create(application, f"{unique}-2")
    with Application(stack, peer=where) as restarted:
        events = restarted.listen("listenToContract", **options, checkpoint=str(checkpoint))
        after = events.until(lambda event: event["txid"] == last)
    events = application.listen("listenToContract", **options)
    assert before + after == events.until(lambda event: event["txid"] == last)


def test_the_chain_is_queried(application: Application, unique: str) -> None:
    txid = create(application, unique)
    info = application.ask("chainInfo")
    newest = application.ask("blockByNumber", number=info["height"] - 1)
    assert (newest["txids"], newest["codes"]) == ([txid], [0])
    assert application.ask("blockByTxid", txid=txid) == newest
    create(application, f"{unique}-2")
    following = application.ask("blockByNumber", number=info["height"])
    assert following["previous"] == info["newest"]
    with pytest.raises(SDKError, match=f"has no block {info['height'] + 1}"):
        application.ask("blockByNumber", number=info["height"] + 1)


def test_a_transaction_is_queried(application: Application, unique: str) -> None:
    txid = create(application, unique)
    assert application.ask("transactionByTxid", txid=txid) == {
        "code": "VALID",
        "mspid": "Org1MSP",
        "args": ["CreateAsset", unique, "ada", "1"],
        "writes": {ASSETS: [unique]},
    }


def test_the_configuration_is_queried(application: Application) -> None:
    assert application.ask("channels") == [CHANNEL]
    assert application.ask("configBlock") == {
        "organisations": ["Org1MSP"],
        "orderers": [LISTENERS["ordering"][0]],
        "largest": MAX_BYTES,
        "policies": ["Admins", "Endorsement", "LifecycleEndorsement", "Readers", "Writers"],
    }


def test_an_application_outlives_its_peer(stack: Stack, unique: str) -> None:
    attempts = iter(range(1000))
    with Application(stack) as application:
        blocks = application.listen("listenToBlocks", type="full", startBlock=0)
        create(application, unique)
        stack.kill("chaincode-support")

        def submitted() -> str | None:
            try:
                return create(application, f"{unique}-{next(attempts)}")
            except SDKError:
                return None  # it has not connected yet, or the chaincode has not

        last = eventually(submitted, "transactions are committed again")
        heard = blocks.until(holding(last))
    assert [block["number"] for block in heard] == list(range(len(heard)))


def test_an_application_outlives_its_event_hub(
    stack: Stack, application: Application, unique: str
) -> None:
    with Application(stack, peer="events") as listening:
        blocks = listening.listen("listenToBlocks", type="full", startBlock=0)
        blocks.until(holding(create(application, unique)))
        stack.kill("event-hub")
        last = [create(application, f"{unique}-{number}") for number in range(3)][-1]
        heard = blocks.until(holding(last))
    assert [block["number"] for block in heard] == list(
        range(heard[0]["number"], heard[0]["number"] + 3)
    )


def test_the_application_of_the_documentation_works_as_written(stack: Stack) -> None:
    [profile], [program, *_] = documented("json"), documented("js")
    (stack.folder / "connection.json").write_text(profile)
    file = stack.folder / "app.js"
    file.write_text(program)
    with script(file, FABRIC_NETWORK) as output:
        asset = re.compile(r"^assets .*(tandem-\d+)", re.MULTILINE)
        [created] = eventually(lambda: asset.findall(output.read_text()), "an asset was created")
        told = f'heard AssetCreated {{"id":"{created}",'
        eventually(lambda: told in output.read_text(), f"{output} says {told}")
