"""GET_HISTORY_FOR_KEY: what a key was, the newest first."""

from collections.abc import Sequence

from rawshim import Dial, Peer, RawShim, query_response, refusal, transaction
from testchannel import CHAINCODE, Network, add_block, writes

from selvedge_protos.ledger.queryresult.kv_query_result_pb2 import KeyModification
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    GetHistoryForKey,
    QueryStateClose,
    QueryStateNext,
)

M = ChaincodeMessage


async def write(peer: Peer, network: Network, values: Sequence[bytes]) -> list[str]:
    """A block in which one transaction after the other writes the key k; their ids."""
    made = [network.transaction(writes(k=value)) for value in values]
    codes = await add_block(network, peer.ledger, *(envelope for _, envelope in made))
    assert codes == ["VALID"] * len(values)
    return [txid for txid, _ in made]


async def ask(shim: RawShim, message: ChaincodeMessage, key: str = "k") -> ChaincodeMessage:
    return await shim.ask(M.GET_HISTORY_FOR_KEY, GetHistoryForKey(key=key), message)


def modifications(answer: ChaincodeMessage) -> list[KeyModification]:
    rows = query_response(answer).results
    return [KeyModification.FromString(row.resultBytes) for row in rows]


async def test_the_newest_comes_first_and_deletes_are_among_it(
    peer: Peer, dial: Dial, network: Network
) -> None:
    txids = [
        *await write(peer, network, [b"1"]),
        *await write(peer, network, [b""]),
        *await write(peer, network, [b"2", b"3"]),
    ]
    shim = await dial(peer, f"{CHAINCODE}:1.0")
    async with transaction(peer, shim, CHAINCODE) as (running, message):
        answer = await ask(shim, message)
        assert [
            (found.tx_id, found.value, found.is_delete, found.HasField("timestamp"))
            for found in modifications(answer)
        ] == [
            (txids[3], b"3", False, True),
            (txids[2], b"2", False, True),
            (txids[1], b"", True, True),
            (txids[0], b"1", False, True),
        ]
        assert not query_response(answer).has_more
        await shim.complete(message)
        await running
        # Nothing of it is a read.
        assert peer.results() == {}


async def test_a_key_that_never_was_has_an_empty_history(
    peer: Peer, dial: Dial, network: Network
) -> None:
    await write(peer, network, [b"1"])
    shim = await dial(peer, f"{CHAINCODE}:1.0")
    async with transaction(peer, shim, CHAINCODE) as (_, message):
        answer = query_response(await ask(shim, message, "another"))
        assert (len(answer.results), answer.has_more) == (0, False)


async def test_another_chaincode_s_key_of_that_name_has_a_history_of_its_own(
    peer: Peer, dial: Dial, network: Network
) -> None:
    await write(peer, network, [b"1"])
    shim = await dial(peer, "other:1.0")
    async with transaction(peer, shim, "other") as (_, message):
        assert modifications(await ask(shim, message)) == []


async def test_a_long_history_comes_in_batches(peer: Peer, dial: Dial, network: Network) -> None:
    await write(peer, network, [b"%d" % number for number in range(60)])
    await write(peer, network, [b"%d" % number for number in range(60, 101)])
    shim = await dial(peer, f"{CHAINCODE}:1.0")
    async with transaction(peer, shim, CHAINCODE) as (running, message):
        answer = await ask(shim, message)
        identifier = query_response(answer).id
        assert query_response(answer).has_more
        batches = [modifications(answer)]
        while query_response(answer).has_more:
            answer = await shim.ask(M.QUERY_STATE_NEXT, QueryStateNext(id=identifier), message)
            batches.append(modifications(answer))
        values = [found.value for batch in batches for found in batch]
        assert values == [b"%d" % number for number in reversed(range(101))]
        # A batch may end before it is full: reading blocks takes time.
        assert all(1 <= len(found) <= 100 for found in batches)
        again = await shim.ask(M.QUERY_STATE_NEXT, QueryStateNext(id=identifier), message)
        assert refusal(again).endswith("query iterator not found")
        await shim.complete(message)
        assert (await running).response.status == 200


async def test_a_history_can_be_closed_before_its_end(
    peer: Peer, dial: Dial, network: Network
) -> None:
    await write(peer, network, [b"%d" % number for number in range(101)])
    shim = await dial(peer, f"{CHAINCODE}:1.0")
    async with transaction(peer, shim, CHAINCODE) as (running, message):
        identifier = query_response(await ask(shim, message)).id
        closed = await shim.ask(M.QUERY_STATE_CLOSE, QueryStateClose(id=identifier), message)
        assert query_response(closed).id == identifier
        after = await shim.ask(M.QUERY_STATE_NEXT, QueryStateNext(id=identifier), message)
        assert refusal(after).endswith("query iterator not found")
        await shim.complete(message)
        assert (await running).response.status == 200
