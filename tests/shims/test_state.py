"""What a chaincode reads and writes."""

import json

import pytest
from tests.e2e.stack import Stack
from tests.shims.chaincodes import every_chaincode, having
from tests.shims.contract import Contract

from selvedge_protos.peer import transaction_pb2

pytestmark = pytest.mark.timeout(300)  # the first test starts everything


@every_chaincode
def test_a_value_is_written_read_and_deleted(contract: Contract, unique: str) -> None:
    assert contract.text("Get", unique) == ""
    contract.submit("Put", unique, "one")
    assert contract.text("Get", unique) == "one"
    contract.submit("Put", unique, "two")
    assert contract.text("Get", unique) == "two"
    contract.submit("Delete", unique)
    assert contract.text("Get", unique) == ""


@every_chaincode
def test_a_transaction_does_not_read_its_own_writes(contract: Contract, unique: str) -> None:
    contract.submit("Put", unique, "before")
    assert contract.text("PutThenGet", unique, "after") == "before"


@every_chaincode
def test_a_key_and_its_value_are_of_any_script(contract: Contract, unique: str) -> None:
    key, value = f"{unique}-鍵-🔑", "Wert, 値, 💎"
    contract.submit("Put", key, value)
    assert contract.text("Get", key) == value
    assert contract.json("List", key, f"{key}~") == [{"key": key, "value": value}]


@every_chaincode
def test_a_megabyte_goes_there_and_back(contract: Contract, unique: str) -> None:
    value = unique * (1024 * 1024 // len(unique))
    contract.submit("Put", f"~{unique}", value)
    assert contract.text("Get", f"~{unique}") == value
    contract.submit("Delete", f"~{unique}")


@having("SetPolicy", "GetPolicy")
def test_a_key_has_an_endorsement_policy_of_its_own(contract: Contract, unique: str) -> None:
    contract.submit("Put", unique, "guarded")
    assert contract.json("GetPolicy", unique) == []
    contract.submit("SetPolicy", unique, "Org1MSP")
    assert contract.json("GetPolicy", unique) == ["Org1MSP"]
    assert contract.text("Get", unique) == "guarded"
    contract.submit("Put", unique, "written since")
    assert contract.json("GetPolicy", unique) == ["Org1MSP"]


@having("SetPolicy")
def test_a_key_is_not_written_against_its_policy(contract: Contract, unique: str) -> None:
    contract.submit("Put", unique, "guarded")
    contract.submit("SetPolicy", unique, "Org2MSP")
    codes = contract.codes(contract.endorsed("Put", unique, "changed"))
    assert codes == [transaction_pb2.ENDORSEMENT_POLICY_FAILURE]
    assert contract.text("Get", unique) == "guarded"


@having("GetMany")
def test_many_keys_are_read_at_once(contract: Contract, stack: Stack, unique: str) -> None:
    contract.submit("PutSeries", unique, "250")
    keys = [f"{unique}-{number:03}" for number in range(250)]
    missing = f"{unique}-missing"
    before = requests(stack, contract, "GET_STATE_MULTIPLE")
    values = contract.json("GetMany", json.dumps([*keys, missing, keys[0]]))
    assert values == [*map(str, range(250)), "", "0"]
    assert requests(stack, contract, "GET_STATE_MULTIPLE") > before


@having("Batch")
def test_many_writes_go_in_batches(contract: Contract, stack: Stack, unique: str) -> None:
    contract.submit("Put", unique, "to be deleted")
    before = requests(stack, contract, "WRITE_BATCH_STATE")
    contract.submit("Batch", unique, "250", "Org1MSP")
    assert requests(stack, contract, "WRITE_BATCH_STATE") > before
    rows = contract.json("List", unique, f"{unique}~")
    assert rows == [{"key": f"{unique}-{number:03}", "value": str(number)} for number in range(250)]
    assert contract.json("GetPolicy", f"{unique}-000") == ["Org1MSP"]
    assert contract.json("GetPolicy", f"{unique}-001") == []


def requests(stack: Stack, contract: Contract, kind: str) -> float:
    """How many requests of a type the peer had from a chaincode: a shim to which it did not offer
    them would keep to single ones."""
    return sum(
        float(sample.rpartition(" ")[2])
        for sample in stack.operations("chaincode-support", "/metrics").splitlines()
        if sample.startswith("chaincode_shim_requests_received{")
        and f'type="{kind}"' in sample
        and f'chaincode="{contract.name}"' in sample
    )
