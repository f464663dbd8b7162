"""A proposal whose chaincode calls another one."""

from endorsing import Endorsing
from rawshim import Dial
from testchannel import CHAINCODE, Network, add_block

from selvedge_common.protoutil import endorsements, transactions
from selvedge_protos.ledger.rwset.rwset_pb2 import TxReadWriteSet
from selvedge_protos.peer.chaincode_event_pb2 import ChaincodeEvent
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage

M = ChaincodeMessage


async def test_both_are_endorsed_as_one_transaction_of_the_first(
    endorsing: Endorsing, network: Network, dial: Dial
) -> None:
    first, second = (
        await dial(endorsing.peer, f"{CHAINCODE}:1.0"),
        await dial(endorsing.peer, "second:9.0"),
    )
    opened, answer = await endorsing.propose(b"x", transient={"secret": b"s"})
    message = await first.hear()
    await first.put("k", b"1", message)
    await first.call("second", message, b"y")
    theirs = await second.hear()
    # Who asks is the same for both: the client that signed.
    assert theirs.proposal == message.proposal == opened.signed
    await second.put("k", b"2", theirs)
    await second.complete(theirs, event=ChaincodeEvent(event_name="nested"))
    assert (await first.hear()).type == M.RESPONSE
    await first.complete(message, result=b"done")
    response = await answer
    envelope = endorsements.create_transaction(opened.proposal, [response], network.client)
    action = transactions.open_transaction(envelope).open_action()
    assert action is not None
    assert (action.chaincode, action.chaincode_action.chaincode_id.version) == (CHAINCODE, "1.0")
    assert action.event is None
    results = TxReadWriteSet.FromString(action.chaincode_action.results)
    assert [part.namespace for part in results.ns_rwset] == [CHAINCODE, "second"]
    codes = await add_block(network, endorsing.peer.ledger, envelope.SerializeToString())
    assert codes == ["VALID"]
    simulator = endorsing.peer.ledger.simulator("after")
    found = [simulator.get_state(name, "k") for name in (CHAINCODE, "second")]
    simulator.close()
    assert found == [b"1", b"2"]


async def test_why_a_call_failed_is_told_to_the_client(endorsing: Endorsing, dial: Dial) -> None:
    first = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    _, answer = await endorsing.propose(b"x")
    await first.call("nobody", await first.hear())
    response = (await answer).response
    assert response.status == 500
    assert "INVOKE_CHAINCODE failed" in response.message
    assert "chaincode nobody is not known to this peer" in response.message
