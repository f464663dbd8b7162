"""ProcessProposal over real gRPC, with real signatures, a real ledger and a raw shim."""

import asyncio
from datetime import timedelta

import grpc
import grpc.aio
import pytest
from endorsing import Endorsing, StartEndorsing
from prometheus_client import REGISTRY
from rawshim import PATIENCE, Dial, RawShim
from testchannel import CHAINCODE, CHANNEL

from chaincode_support.ledger import CheckedTransaction
from selvedge_common.protoutil import blocks, endorsements, proposals, transactions
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer import proposal_pb2, proposal_response_pb2
from selvedge_protos.peer.chaincode_event_pb2 import ChaincodeEvent
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_response_pb2 import Response
from selvedge_protos.peer.transaction_pb2 import TxValidationCode

M = ChaincodeMessage


async def running(shim: RawShim) -> ChaincodeMessage:
    message = await shim.hear()
    assert message.type == M.TRANSACTION
    return message


async def test_an_endorsement_is_a_transaction_that_the_channel_accepts(
    endorsing: Endorsing, dial: Dial
) -> None:
    shim = await dial(endorsing.peer, f"{CHAINCODE}:2.1")
    proposal, answer = await endorsing.propose(b"put", transient={"secret": b"s"})
    message = await running(shim)
    assert message.proposal == proposal.signed
    assert (message.txid, message.channel_id) == (proposal.txid, CHANNEL)
    await shim.put("a", b"1", message)
    event = ChaincodeEvent(event_name="made", payload=b"p", chaincode_id="forged", tx_id="forged")
    await shim.complete(message, result=b"done", event=event)
    response = await answer
    assert response.response == Response(status=200, payload=b"done")
    envelope = endorsements.create_transaction(
        proposal.proposal, [response], endorsing.network.client
    )
    action = transactions.open_transaction(envelope).open_action()
    assert action is not None
    assert (action.chaincode, action.chaincode_action.chaincode_id.version) == (CHAINCODE, "2.1")
    assert action.event == ChaincodeEvent(
        event_name="made", payload=b"p", chaincode_id=CHAINCODE, tx_id=proposal.txid
    )
    [signed] = action.endorsement_data()
    assert signed.identity == endorsing.network.peer.serialized
    endorsing.network.peer.verify(signed.message, signed.signature)
    results = rwset_pb2.TxReadWriteSet.FromString(action.chaincode_action.results)
    [written] = results.ns_rwset
    [write] = kv_rwset_pb2.KVRWSet.FromString(written.rwset).writes
    assert (written.namespace, write.key, write.value) == (CHAINCODE, "a", b"1")
    payload = proposal_response_pb2.ProposalResponsePayload.FromString(response.payload)
    assert payload.proposal_hash == proposal.hash


@pytest.mark.parametrize(
    ("status", "has_payload"), [(400, False), (499, False), (500, True), (600, True)]
)
async def test_a_status_of_400_and_above_is_answered_without_endorsement(
    endorsing: Endorsing, dial: Dial, status: int, has_payload: bool
) -> None:
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    _, answer = await endorsing.propose(b"fail")
    await shim.complete(await running(shim), status=status)
    response = await answer
    assert response.response.status == status
    assert not response.HasField("endorsement")
    assert bool(response.payload) is has_payload


async def test_a_status_of_399_is_endorsed(endorsing: Endorsing, dial: Dial) -> None:
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    _, answer = await endorsing.propose(b"warn")
    await shim.complete(await running(shim), status=399)
    assert (await answer).HasField("endorsement")


async def test_errors_of_the_chaincode_come_as_a_response_with_status_500(
    endorsing: Endorsing, dial: Dial
) -> None:
    response = await endorsing.send(endorsing.sign(b"x", chaincode="nobody"))
    assert response.response.status == 500
    assert "chaincode nobody is not known to this peer" in response.response.message
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    _, answer = await endorsing.propose(b"fail")
    message = await running(shim)
    await shim.say(M(type=M.ERROR, payload=b"no luck", txid=message.txid))
    response = await answer
    assert response.response.status == 500
    assert "transaction returned with failure: no luck" in response.response.message


@pytest.mark.parametrize("name", ["lscc", "escc", "vscc", "_lifecycle"])
async def test_a_system_chaincode_is_not_to_be_started(endorsing: Endorsing, name: str) -> None:
    _, answer = await endorsing.propose(b"GetChainInfo", chaincode=name)
    response = (await answer).response
    assert response.status == 500
    assert f"{name} is a system chaincode of Fabric, which this peer does not serve yet" in (
        response.message
    )
    assert "start the chaincode" not in response.message


async def test_an_unknown_channel_says_which_there_are(endorsing: Endorsing) -> None:
    response = await endorsing.send(endorsing.sign(b"x", channel="other"))
    assert response.response.status == 500
    assert response.response.message == f"channel 'other' not found: this peer has {CHANNEL}"


async def test_a_tampered_proposal_is_refused_with_a_sentence(endorsing: Endorsing) -> None:
    signed = endorsing.sign(b"pay", b"1")
    signed.proposal_bytes = signed.proposal_bytes.replace(b"pay", b"PAY")
    code, details = await endorsing.refusal(signed)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert f"access denied: channel [{CHANNEL}]: The signature of" in details
    assert "does not match the message" in details


async def test_strangers_and_members_at_the_wrong_time_are_refused(endorsing: Endorsing) -> None:
    network = endorsing.network
    for client, reason in [
        (network.stranger, "OtherMSP"),
        (network.organisation.issue("client", "late", timedelta(hours=-1)), "expired"),
        (
            network.organisation.issue("client", "early", age=timedelta(minutes=-5)),
            "is only valid from",
        ),
    ]:
        code, details = await endorsing.refusal(endorsing.sign(client=client))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert reason in details


async def test_a_member_that_is_no_writer_is_refused(endorsing: Endorsing) -> None:
    orderer = endorsing.network.orderer
    code, details = await endorsing.refusal(endorsing.sign(client=orderer))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "does not satisfy the policy /Channel/Application/Writers" in details


async def test_a_malformed_proposal_is_refused(endorsing: Endorsing) -> None:
    garbage = proposal_pb2.SignedProposal(proposal_bytes=b"\xff\xff", signature=b"s")
    code, details = await endorsing.refusal(garbage)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("error validating proposal: ")


async def test_a_committed_transaction_cannot_be_proposed_again(
    endorsing: Endorsing, dial: Dial
) -> None:
    await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    signed = endorsing.sign(b"x")
    txid = proposals.open_proposal(signed).txid
    ledger = endorsing.peer.ledger
    committed = CheckedTransaction(TxValidationCode.VALID, txid=txid)
    await ledger.commit(blocks.new_block(0, b"", [b"seed"]), [committed])
    code, details = await endorsing.refusal(signed)
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert f"duplicate transaction found [{txid}]" in details


async def test_a_client_that_cancels_frees_its_transaction(
    endorsing: Endorsing, dial: Dial
) -> None:
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    _, answer = await endorsing.propose(b"slow")
    message = await running(shim)
    answer.cancel()
    async with asyncio.timeout(PATIENCE):
        while (await shim.get("a", message)).type != M.ERROR:
            await asyncio.sleep(0.005)
    assert endorsing.peer.stream(CHAINCODE).running == 0


async def test_a_deadline_that_passes_frees_its_transaction(
    endorsing: Endorsing, dial: Dial
) -> None:
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await endorsing.process(endorsing.sign(b"slow"), timeout=0.1)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    message = await running(shim)
    async with asyncio.timeout(PATIENCE):
        while (await shim.get("a", message)).type != M.ERROR:
            await asyncio.sleep(0.005)


async def test_proposals_above_the_limit_are_refused(
    start_endorsing: StartEndorsing, dial: Dial
) -> None:
    endorsing = await start_endorsing(max_proposals=1)
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    _, answer = await endorsing.propose(b"first")
    message = await running(shim)
    code, details = await endorsing.refusal(endorsing.sign(b"second"))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "peer.limits.concurrency.endorserService" in details
    await shim.complete(message)
    assert (await answer).response.status == 200


async def test_a_stopping_peer_ends_what_it_has_and_takes_no_more(
    endorsing: Endorsing, dial: Dial
) -> None:
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    _, answer = await endorsing.propose(b"first")
    message = await running(shim)
    draining = asyncio.create_task(endorsing.endorser.drain())
    await asyncio.sleep(0)
    code, details = await endorsing.refusal(endorsing.sign(b"second"))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "is stopping" in details
    assert not draining.done()
    await shim.complete(message)
    assert (await answer).response.status == 200
    async with asyncio.timeout(PATIENCE):
        await draining


@pytest.mark.parametrize(("status", "counted"), [(399, 0), (400, 1), (499, 1), (500, 0)])
async def test_failed_endorsements_are_counted_as_fabric_does(
    status: int, counted: int, endorsing: Endorsing, dial: Dial
) -> None:
    def failures() -> float:
        labels = {"channel": CHANNEL, "chaincode": CHAINCODE, "chaincodeerror": "true"}
        return REGISTRY.get_sample_value("endorser_endorsement_failures", labels) or 0

    before = failures()
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    _, answer = await endorsing.propose(b"x")
    await shim.complete(await running(shim), status)
    assert (await answer).response.status == status
    assert failures() == before + counted


async def test_metrics_have_fabric_s_names_and_labels(endorsing: Endorsing, dial: Dial) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    target = {"channel": CHANNEL, "chaincode": CHAINCODE}
    request = {"type": "PUT_STATE", "channel": CHANNEL, "chaincode": CHAINCODE}
    counted = {
        "endorser_proposals_received": {},
        "endorser_successful_proposals": {},
        "endorser_proposal_duration_count": {**target, "success": "true"},
        "chaincode_shim_requests_received": request,
        "chaincode_shim_requests_completed": {**request, "success": "true"},
        "chaincode_shim_request_duration_count": {**request, "success": "true"},
    }
    before = {name: value(name, **labels) for name, labels in counted.items()}
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    _, answer = await endorsing.propose(b"put")
    message = await running(shim)
    await shim.put("a", b"1", message)
    await shim.complete(message)
    await answer
    after = {name: value(name, **labels) for name, labels in counted.items()}
    assert after == {name: number + 1 for name, number in before.items()}
