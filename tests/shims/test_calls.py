"""A chaincode that calls another."""

import json

import pytest
from tests.e2e.clients import CHANNEL
from tests.shims.chaincodes import CHAINCODES, Chaincode, having
from tests.shims.conftest import OTHER_CHANNEL, require_all
from tests.shims.contract import Contract
from tests.shims.running import Running

pytestmark = pytest.mark.timeout(300)  # the first test starts everything

every_callee = pytest.mark.parametrize("callee", CHAINCODES, ids=str, indirect=True)


@pytest.fixture
def callee(request: pytest.FixtureRequest, contracts: dict[str, Running]) -> Running:
    """The chaincode that is called."""
    chaincode: Chaincode = request.param
    require_all(chaincode)
    return contracts[chaincode.name]


@pytest.fixture
def caller(callee: Running, contracts: dict[str, Running]) -> Running:
    """The one before it in the table that can call: so shims meet, and each of them calls."""
    place = CHAINCODES.index(callee.chaincode)
    before = reversed([*CHAINCODES[place + 1 :], *CHAINCODES[:place]])
    chaincode = next(each for each in before if "Call" not in each.lacks)
    require_all(chaincode)
    return contracts[chaincode.name]


def words(*args: str) -> str:
    """The arguments of a call, as Call takes them."""
    return json.dumps(args)


@every_callee
@pytest.mark.parametrize("channel", ["", CHANNEL], ids=["no channel", "its channel"])
def test_a_call_writes_what_the_callee_writes(
    caller: Contract, callee: Contract, unique: str, channel: str
) -> None:
    caller.submit("Call", callee.name, channel, words("Put", unique, "by the callee"))
    assert callee.text("Get", unique) == "by the callee"
    assert caller.text("Get", unique) == ""


@every_callee
def test_a_call_gives_what_the_callee_answers(
    caller: Contract, callee: Contract, unique: str
) -> None:
    callee.submit("PutSeries", unique, "150")
    reply = caller.json("Call", callee.name, "", words("List", unique, f"{unique}~"))
    assert reply["status"] == 200
    assert json.loads(reply["payload"]) == callee.json("List", unique, f"{unique}~")


@every_callee
def test_a_callee_runs_in_the_callers_transaction(caller: Contract, callee: Contract) -> None:
    proposed = caller.endorsed("Call", callee.name, "", words("Transaction"))
    reply = json.loads(proposed.response.payload)
    assert json.loads(reply["payload"])["txid"] == proposed.txid


@every_callee
def test_an_error_of_the_callee_is_told_to_the_caller(
    caller: Contract, callee: Contract, unique: str
) -> None:
    sentence = f"{unique} is refused"
    reply = caller.json("Call", callee.name, "", words("Fail", unique, sentence))
    assert reply["status"] == 500
    assert sentence in reply["message"]


@every_callee
def test_an_event_of_the_callee_is_dropped(caller: Contract, callee: Contract) -> None:
    proposed = caller.endorsed("Call", callee.name, "", words("Event", "Told", "by the callee"))
    assert proposed.action.events == b""


@every_callee
def test_a_callee_on_another_channel_reads_there_and_writes_nothing(
    caller: Contract, callee: Contract, unique: str
) -> None:
    callee.submit("Put", unique, f"on {CHANNEL}")
    transaction = caller.json("Call", callee.name, OTHER_CHANNEL, words("Transaction"))
    assert json.loads(transaction["payload"])["channel"] == OTHER_CHANNEL
    for _ in range(2):
        args = words("PutThenGet", unique, f"on {OTHER_CHANNEL}")
        reply = json.loads(
            caller.endorsed("Call", callee.name, OTHER_CHANNEL, args).response.payload
        )
        assert (reply["status"], reply["payload"]) == (200, "")
        caller.submit("Call", callee.name, OTHER_CHANNEL, args)
    assert callee.text("Get", unique) == f"on {CHANNEL}"


@having("Call")
@pytest.mark.parametrize(
    ("name", "channel", "reason"),
    [
        ("missing", "", "chaincode missing"),
        ("python", "elsewhere", "'elsewhere' not found"),
        ("itself", "", "cannot call itself"),
    ],
    ids=["unknown chaincode", "unknown channel", "itself"],
)
def test_a_call_that_cannot_be_made_fails_its_transaction(
    contract: Contract, name: str, channel: str, reason: str
) -> None:
    called = contract.name if name == "itself" else name
    assert reason in contract.refusal("Call", called, channel, words("Get", "key"))


@having("Call")
def test_a_callee_calls_a_third(contract: Running, contracts: dict[str, Running]) -> None:
    calling = [each for each in contracts.values() if "Call" not in each.chaincode.lacks]
    second, third = [each for each in calling if each is not contract][:2]
    inner = words("Call", third.name, "", words("Arguments", "a", "b"))
    reply = json.loads(contract.json("Call", second.name, "", inner)["payload"])
    assert json.loads(reply["payload"]) == ["Arguments", "a", "b"]
