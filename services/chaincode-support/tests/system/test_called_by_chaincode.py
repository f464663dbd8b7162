"""System chaincodes that a chaincode calls: qscc may be, cscc may not."""

import asyncio

import pytest
from endorsing import Endorsing
from rawshim import Dial, RawShim, refusal
from testchannel import CHAINCODE, CHANNEL, Network, add_block, writes

from selvedge_common.msp import SigningIdentity
from selvedge_protos.common.ledger_pb2 import BlockchainInfo
from selvedge_protos.ledger.rwset.rwset_pb2 import TxReadWriteSet
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_pb2 import ChaincodeAction
from selvedge_protos.peer.proposal_response_pb2 import (
    ProposalResponse,
    ProposalResponsePayload,
    Response,
)

M = ChaincodeMessage


@pytest.fixture
async def shim(endorsing: Endorsing, network: Network, dial: Dial) -> RawShim:
    await add_block(network, endorsing.peer.ledger, network.transaction(writes(k=b"1"))[1])
    return await dial(endorsing.peer, f"{CHAINCODE}:1.0")


async def begin(
    endorsing: Endorsing, shim: RawShim, client: SigningIdentity | None = None
) -> tuple["asyncio.Task[ProposalResponse]", ChaincodeMessage]:
    _, answer = await endorsing.propose(b"x", client=client)
    return answer, await shim.hear()


def returned(answer: ChaincodeMessage) -> Response:
    """What the called chaincode returned."""
    assert answer.type == M.RESPONSE, answer
    end = M.FromString(answer.payload)
    assert end.type == M.COMPLETED
    return Response.FromString(end.payload)


@pytest.mark.parametrize("name", ["qscc", f"qscc/{CHANNEL}"])
async def test_qscc_answers_and_leaves_nothing_in_the_read_write_set(
    endorsing: Endorsing, shim: RawShim, name: str
) -> None:
    answer, message = await begin(endorsing, shim)
    await shim.call(name, message, b"GetChainInfo", CHANNEL.encode())
    response = returned(await shim.hear())
    assert response.status == 200
    assert BlockchainInfo.FromString(response.payload).height == 2
    await shim.put("a", b"1", message)
    await shim.complete(message)
    payload = ProposalResponsePayload.FromString((await answer).payload)
    results = TxReadWriteSet.FromString(ChaincodeAction.FromString(payload.extension).results)
    assert [part.namespace for part in results.ns_rwset] == [CHAINCODE]


async def test_a_refusal_of_qscc_is_a_response_and_the_transaction_goes_on(
    endorsing: Endorsing, shim: RawShim
) -> None:
    answer, message = await begin(endorsing, shim)
    await shim.call("qscc", message, b"GetBlockByNumber", CHANNEL.encode(), b"99")
    response = returned(await shim.hear())
    assert response.status == 500
    assert "has no block 99" in response.message
    await shim.complete(message)
    assert (await answer).response.status == 200


async def test_cscc_is_refused_and_aborts_the_transaction(
    endorsing: Endorsing, shim: RawShim
) -> None:
    answer, message = await begin(endorsing, shim)
    await shim.call("cscc", message, b"GetChannels")
    reason = "system chaincode cscc cannot be called by a chaincode: send it a proposal"
    assert reason in refusal(await shim.hear())
    response = (await answer).response
    assert (response.status, reason in response.message) == (500, True)


@pytest.mark.parametrize("name", ["lscc", "_lifecycle"])
async def test_those_that_are_not_served_are_refused(
    endorsing: Endorsing, shim: RawShim, name: str
) -> None:
    answer, message = await begin(endorsing, shim)
    await shim.call(name, message, b"x")
    assert f"{name} is a system chaincode of Fabric" in refusal(await shim.hear())
    assert (await answer).response.status == 500
