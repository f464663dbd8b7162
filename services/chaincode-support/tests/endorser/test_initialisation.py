"""Init by proposal: once for each version, and Invoke once it is committed."""

from typing import Any

import pytest
from endorsing import Endorsing, StartEndorsing
from rawshim import Dial, RawShim
from testchannel import CHAINCODE, Network, add_block

from selvedge_common.protoutil import endorsements
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_response_pb2 import ProposalResponse

M = ChaincodeMessage


@pytest.fixture
async def strict(start_endorsing: StartEndorsing) -> Endorsing:
    return await start_endorsing(init_required=[CHAINCODE])


async def run(
    endorsing: Endorsing, shim: RawShim, **fields: Any
) -> tuple[ProposalResponse, bytes, int]:
    """A proposal that the chaincode completes: the answer, its transaction, the message's type."""
    opened, answer = await endorsing.propose(b"go", **fields)
    message = await shim.hear()
    await shim.complete(message)
    response = await answer
    assert response.response.status == 200, response.response
    envelope = endorsements.create_transaction(
        opened.proposal, [response], endorsing.network.client
    )
    return response, envelope.SerializeToString(), message.type


async def test_invoke_is_refused_until_init_is_committed(
    strict: Endorsing, network: Network, dial: Dial
) -> None:
    shim = await dial(strict.peer, f"{CHAINCODE}:1.0")
    refused = await strict.send(strict.sign(b"go"))
    assert (refused.response.status, refused.HasField("endorsement")) == (500, False)
    assert f"chaincode '{CHAINCODE}' has not been initialized for this version" in (
        refused.response.message
    )
    _, first, kind = await run(strict, shim, is_init=True)
    assert kind == M.INIT
    # Both were endorsed before one was committed; only one of them counts.
    _, second, _ = await run(strict, shim, is_init=True)
    codes = await add_block(network, strict.peer.ledger, first, second)
    assert codes == ["VALID", "MVCC_READ_CONFLICT"]
    _, _, kind = await run(strict, shim)
    assert kind == M.TRANSACTION
    refused = await strict.send(strict.sign(b"go", is_init=True))
    assert "is already initialized but called as init" in refused.response.message


async def test_init_where_none_is_required_is_refused(endorsing: Endorsing, dial: Dial) -> None:
    await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    refused = await endorsing.send(endorsing.sign(b"go", is_init=True))
    assert refused.response.status == 500
    assert "does not require initialization but called as init" in refused.response.message
