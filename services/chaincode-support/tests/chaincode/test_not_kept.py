"""What this ledger does not keep is refused with a sentence that says so."""

import pytest
from google.protobuf.message import Message
from rawshim import Dial, Peer, refusal, transaction

from chaincode_support.chaincode.errors import ChaincodeFailure
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    DelState,
    GetQueryResult,
    GetState,
    GetStateByRange,
    GetStateMetadata,
    GetStateMultiple,
    PurgePrivateState,
    PutState,
    PutStateMetadata,
    QueryMetadata,
)

M = ChaincodeMessage
PRIVATE = (
    "Private data is not kept by this ledger: the chaincode 'mycc' cannot use its collection 'c' "
    "here; keep what others may see under ordinary keys."
)
QUERIES = "Rich queries are not answered by this ledger"
PAGING = QueryMetadata(pageSize=3).SerializeToString()


@pytest.mark.parametrize(
    ("kind", "request_", "reason"),
    [
        (M.GET_STATE, GetState(key="k", collection="c"), PRIVATE),
        (M.GET_PRIVATE_DATA_HASH, GetState(key="k", collection="c"), PRIVATE),
        (M.GET_STATE_BY_RANGE, GetStateByRange(startKey="k", collection="c"), PRIVATE),
        (M.GET_STATE_BY_RANGE, GetStateByRange(collection="c", metadata=PAGING), PRIVATE),
        (M.GET_STATE_MULTIPLE, GetStateMultiple(keys=["k"], collection="c"), PRIVATE),
        (M.GET_STATE_METADATA, GetStateMetadata(key="k", collection="c"), PRIVATE),
        (M.GET_QUERY_RESULT, GetQueryResult(query="{}", collection="c"), PRIVATE),
        (M.GET_QUERY_RESULT, GetQueryResult(query='{"selector":{}}'), QUERIES),
        (M.GET_QUERY_RESULT, GetQueryResult(query="{}", metadata=PAGING), QUERIES),
    ],
)
async def test_a_read_of_it_is_refused_and_the_transaction_goes_on(
    peer: Peer, dial: Dial, kind: int, request_: Message, reason: str
) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        refused = refusal(await shim.ask(kind, request_, message))
        name = M.Type.Name(M.Type.ValueType(kind))
        assert refused.startswith(f"{name} failed: transaction ID: {message.txid}: {reason}")
        assert (await shim.put("a", b"1", message)).type == M.RESPONSE
        await shim.complete(message)
        assert (await running).response.status == 200
        assert peer.writes() == {"a": b"1"}


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        (M.PUT_STATE, PutState(key="k", value=b"v", collection="c")),
        (M.DEL_STATE, DelState(key="k", collection="c")),
        (M.PURGE_PRIVATE_DATA, PurgePrivateState(key="k", collection="c")),
        (M.PUT_STATE_METADATA, PutStateMetadata(key="k", collection="c")),
    ],
)
async def test_a_write_of_it_aborts_the_transaction(
    peer: Peer, dial: Dial, kind: int, request_: Message
) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        assert refusal(await shim.ask(kind, request_, message)).endswith(PRIVATE)
        with pytest.raises(ChaincodeFailure, match="Private data is not kept"):
            await running
