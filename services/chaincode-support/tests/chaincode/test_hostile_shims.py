"""Shims that break the rules: their own stream or transaction ends, with the reason; all others go
on meanwhile, and every snapshot comes back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
import grpc.aio
import pytest
from endorsing import Endorsing, StartEndorsing
from prometheus_client import REGISTRY
from rawshim import PATIENCE, Dial, RawShim, called, query_response, refusal
from testchannel import CHAINCODE, CHANNEL

from selvedge_common.comm import ServerConfig, StreamConfig
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    GetState,
    GetStateByRange,
    GetStateMultiple,
    PutState,
    QueryStateNext,
    WriteBatchState,
    WriteRecord,
)
from selvedge_protos.peer.proposal_response_pb2 import ProposalResponse, Response

M = ChaincodeMessage


@dataclass
class Attack:
    """A hostile shim of chaincode basic that was given a transaction, beside a sound one."""

    endorsing: Endorsing
    shim: RawShim
    message: ChaincodeMessage
    answer: "asyncio.Task[ProposalResponse]"

    async def failed(self) -> str:
        """Why the client's proposal failed."""
        response = (await self.answer).response
        assert response.status == 500, response
        return response.message

    async def begin(self) -> ChaincodeMessage:
        """One more transaction of the hostile shim."""
        _, self.answer = await self.endorsing.propose(b"next")
        self.message = await self.shim.hear()
        return self.message


@pytest.fixture
async def small(start_endorsing: StartEndorsing) -> Endorsing:
    """An endorser whose streams take little, so that little is a flood."""
    bounded = ServerConfig(
        max_receive_bytes=1 << 20, stream=StreamConfig(max_pending=2 * 1024 * 1024)
    )
    return await start_endorsing(server=bounded)


@pytest.fixture
async def attack(small: Endorsing, dial: Dial) -> AsyncIterator[Attack]:
    """The sound shim serves its transactions all the while; none of them may fail."""
    sound = asyncio.create_task(_serve(await dial(small.peer, "sound:1.0")))
    shim = await dial(small.peer, f"{CHAINCODE}:1.0")
    _, answer = await small.propose(b"begin")
    attack = Attack(small, shim, await shim.hear(), answer)
    going_on = asyncio.create_task(_ask_for_ever(small))
    yield attack
    # Until after the attack.
    await _ask(small)
    going_on.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await going_on
    shim.cut()
    await asyncio.gather(attack.answer, return_exceptions=True)
    sound.cancel()
    await _until(lambda: snapshots() == 0)


async def _serve(shim: RawShim) -> None:
    """Run any number of transactions at once; each writes a key."""
    while True:
        message = await shim.hear()
        if message.type == M.TRANSACTION:
            await shim.request(M.PUT_STATE, PutState(key="k", value=b"v"), message)
        # ERROR where the hostile shim called it and went on without it.
        elif message.type == M.RESPONSE:
            await shim.complete(message)


async def _ask(endorsing: Endorsing) -> None:
    answer = await endorsing.send(endorsing.sign(b"x", chaincode="sound"))
    assert answer.response.status == 200, answer.response


async def _ask_for_ever(endorsing: Endorsing) -> None:
    while True:
        await _ask(endorsing)


async def _until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not reached():
            await asyncio.sleep(0.001)


def snapshots() -> float:
    """How many are out."""
    return REGISTRY.get_sample_value("ledger_simulations_in_use", {"channel": CHANNEL}) or 0


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        (M(type=M.REGISTER, payload=b"\x12\x01x"), "FAILED_PRECONDITION", "message (REGISTER)"),
        (M(type=M.REGISTERED), "FAILED_PRECONDITION", "message (REGISTERED)"),
        (M(type=M.READY), "FAILED_PRECONDITION", "message (READY)"),
        (M(), "FAILED_PRECONDITION", "message (UNDEFINED)"),
        (M(type=M.Type.ValueType(99)), "FAILED_PRECONDITION", "message (unknown type 99)"),
        (M(type=M.Type.ValueType(-1)), "FAILED_PRECONDITION", "message (unknown type -1)"),
        (b"\xff", "INVALID_ARGUMENT", "(1 bytes) is not a protos.ChaincodeMessage"),
        (b"\x0a\xff\xff\xff\xff\x0f", "INVALID_ARGUMENT", "is not a protos.ChaincodeMessage"),
        (b"\x32\x01\xff", "INVALID_ARGUMENT", "is not a protos.ChaincodeMessage"),
        (bytes(1 << 21), "RESOURCE_EXHAUSTED", ""),
    ],
)
async def test_what_no_chaincode_says_ends_the_stream(
    attack: Attack, said: ChaincodeMessage | bytes, code: str, reason: str
) -> None:
    await attack.shim.say(said)
    ended, details = await attack.shim.status()
    assert (ended.name, reason in details) == (code, True)
    assert f"chaincode {CHAINCODE}:1.0 left the transaction unfinished" in await attack.failed()


async def test_no_message_at_all_is_out_of_order(attack: Attack) -> None:
    await attack.shim.say(b"")
    code, details = await attack.shim.status()
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "message (UNDEFINED) with payload size (0)" in details
    assert "(UNDEFINED)" in await attack.failed()


async def test_half_closing_in_the_middle_fails_the_transaction(attack: Attack) -> None:
    await attack.shim.half_close()
    assert await attack.shim.status() == (grpc.StatusCode.OK, "")
    assert "as the chaincode closed its stream" in await attack.failed()


async def test_never_answering_is_ended_by_the_client(attack: Attack) -> None:
    # The timeout's own test is in test_transactions.
    attack.answer.cancel()
    await _until(lambda: not attack.endorsing.peer.stream(CHAINCODE).running)
    assert "No ledger context" in refusal(await attack.shim.get("k", attack.message))


async def test_answering_twice_counts_once_and_harms_no_later_transaction(attack: Attack) -> None:
    first = attack.message
    await attack.shim.complete(first, result=b"first")
    await attack.shim.complete(first, status=500, result=b"second")
    await attack.shim.say(M(type=M.ERROR, txid=first.txid, channel_id=first.channel_id))
    assert (await attack.answer).response.payload == b"first"
    message = await attack.begin()
    await attack.shim.complete(first, status=500)
    await attack.shim.complete(message, result=b"next")
    assert (await attack.answer).response.payload == b"next"


async def test_another_s_transaction_cannot_be_touched(attack: Attack, dial: Dial) -> None:
    victim = await dial(attack.endorsing.peer, "victim:1.0")
    _, answer = await attack.endorsing.propose(b"x", chaincode="victim")
    theirs = await victim.hear()
    for kind, payload in [
        (M.GET_STATE, GetState(key="k")),
        (M.PUT_STATE, PutState(key="k", value=b"forged")),
        (M.INVOKE_CHAINCODE, called("sound")),
    ]:
        assert "No ledger context" in refusal(await attack.shim.ask(kind, payload, theirs))
    await attack.shim.complete(theirs, status=500)
    await attack.shim.say(M(type=M.ERROR, txid=theirs.txid, channel_id=theirs.channel_id))
    # Whatever it said has been heard by now.
    assert (await attack.shim.get("k", attack.message)).type == M.RESPONSE
    await victim.complete(theirs, result=b"untouched")
    assert (await answer).response.payload == b"untouched"


async def test_requests_whose_answers_are_not_read_end_the_stream(attack: Attack) -> None:
    await attack.endorsing.peer.commit(CHAINCODE, {"k": bytes(100_000)})
    message = M(txid=attack.message.txid)
    # Its snapshot is older than the key.
    await attack.shim.complete(attack.message)
    await attack.answer
    message = await attack.begin()
    flood = M(
        type=M.GET_STATE,
        txid=message.txid,
        channel_id=message.channel_id,
        payload=GetState(key="k").SerializeToString(),
    )
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while not attack.answer.done():
            await attack.shim.say(flood)
    assert "left the transaction unfinished" in await attack.failed()
    code, _ = await attack.shim.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_thousands_of_unknown_queries_are_each_refused(attack: Attack) -> None:
    async def ask() -> None:
        for number in range(3000):
            await attack.shim.request(
                M.QUERY_STATE_NEXT, QueryStateNext(id=f"{number}"), attack.message
            )

    asking = asyncio.create_task(ask())
    for _ in range(3000):
        assert refusal(await attack.shim.hear()).endswith("query iterator not found")
    await asking
    await attack.shim.complete(attack.message)
    assert (await attack.answer).response.status == 200


async def test_ranges_that_are_never_closed_end_with_their_transaction(attack: Attack) -> None:
    await attack.endorsing.peer.commit(CHAINCODE, {f"k{number:04}": b"v" for number in range(101)})
    await attack.shim.complete(attack.message)
    await attack.answer
    for _ in range(20):
        message = await attack.begin()
        request = GetStateByRange(startKey="k")
        for _ in range(8):
            assert query_response(
                await attack.shim.ask(M.GET_STATE_BY_RANGE, request, message)
            ).has_more
        refused = await attack.shim.ask(M.GET_STATE_BY_RANGE, request, message)
        assert "chaincode.limits.queries" in refusal(refused)
        await attack.shim.complete(message)
        assert (await attack.answer).response.status == 200


async def test_a_flood_of_calls_aborts_its_transaction_alone(attack: Attack, dial: Dial) -> None:
    slow = await dial(attack.endorsing.peer, "slow:1.0")
    for _ in range(500):
        await attack.shim.call("slow", attack.message)
    # The first is not answered any more: its transaction is over.
    answers = [refusal(await attack.shim.hear()) for _ in range(499)]
    assert "has not been answered yet" in answers[0]
    assert all("No ledger context" in each for each in answers[1:])
    assert "has not been answered yet" in await attack.failed()
    theirs = await slow.hear()
    assert "No ledger context" in refusal(await slow.get("k", theirs))
    message = await attack.begin()
    await attack.shim.complete(message)
    assert (await attack.answer).response.status == 200


async def test_calls_one_after_the_other_go_on_and_on(attack: Attack) -> None:
    for _ in range(100):
        await attack.shim.call("sound", attack.message)
        assert (await attack.shim.hear()).type == M.RESPONSE
    await attack.shim.complete(attack.message)
    assert (await attack.answer).response.status == 200


async def test_more_than_a_transaction_may_hold_is_refused(
    attack: Attack,
) -> None:
    value = bytes(1_000_000)
    for number in range(10):
        answer = await attack.shim.put(f"k{number}", value, attack.message)
        assert answer.type == M.RESPONSE
    refused = await attack.shim.put("last", value, attack.message)
    assert "RESOURCE_EXHAUSTED: The transaction reads and writes more" in refusal(refused)
    assert "RESOURCE_EXHAUSTED" in await attack.failed()


async def test_a_batch_of_as_much_as_a_message_holds_is_refused_whole(attack: Attack) -> None:
    records = [
        WriteRecord(type=WriteRecord.PUT_STATE, key=f"{number}", value=b"v")
        for number in range(50_000)
    ]
    refused = await attack.shim.ask(
        M.WRITE_BATCH_STATE, WriteBatchState(rec=records), attack.message
    )
    assert "RESOURCE_EXHAUSTED: it has more entries than the 100" in refusal(refused)
    assert "RESOURCE_EXHAUSTED" in await attack.failed()


async def test_reads_of_as_many_keys_as_a_message_holds_are_refused(attack: Attack) -> None:
    refused = await attack.shim.ask(
        M.GET_STATE_MULTIPLE, GetStateMultiple(keys=["k"] * 100_000), attack.message
    )
    assert "RESOURCE_EXHAUSTED: it has more entries than the 100" in refusal(refused)
    await attack.shim.complete(attack.message)
    assert (await attack.answer).response.status == 200


# Empty entries of two bytes each, as many as a message holds.
_EMPTY_RECORDS = b"\x0a\x00" * 500_000
# ChaincodeSpec.input with such arguments.
_EMPTY_ARGUMENTS = b"\x1a" + b"\xc0\x84\x3d" + _EMPTY_RECORDS


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (M.WRITE_BATCH_STATE, _EMPTY_RECORDS),
        (M.GET_STATE_MULTIPLE, _EMPTY_RECORDS),
        (M.INVOKE_CHAINCODE, _EMPTY_ARGUMENTS),
    ],
)
async def test_empty_entries_by_the_hundred_thousand_are_refused(
    attack: Attack, kind: M.Type.ValueType, payload: bytes
) -> None:
    refused = await attack.shim.ask(kind, payload, attack.message)
    assert "RESOURCE_EXHAUSTED: " in refusal(refused)


async def test_many_streams_that_say_nothing_leave_the_others_theirs(
    attack: Attack, dial: Dial
) -> None:
    silent = [await dial(attack.endorsing.peer) for _ in range(12)]
    ends = [asyncio.create_task(shim.status()) for shim in silent]
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in done:
        code, details = end.result()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "chaincode.limits." in details
    await attack.shim.complete(attack.message)
    assert (await attack.answer).response.status == 200
    for end in ends:
        end.cancel()
    await asyncio.gather(*ends, return_exceptions=True)


async def test_a_response_that_is_garbage_fails_its_transaction(attack: Attack) -> None:
    await attack.shim.say(
        M(
            type=M.COMPLETED,
            payload=b"\xff",
            txid=attack.message.txid,
            channel_id=attack.message.channel_id,
        )
    )
    assert "is not a protos.Response" in await attack.failed()


async def test_an_event_that_is_forged_is_put_right(attack: Attack) -> None:
    end = M(
        type=M.COMPLETED,
        payload=Response(status=200).SerializeToString(),
        txid=attack.message.txid,
        channel_id=attack.message.channel_id,
    )
    end.chaincode_event.chaincode_id = "sound"
    end.chaincode_event.tx_id = "another"
    end.chaincode_event.event_name = "e"
    await attack.shim.say(end)
    answer = await attack.answer
    assert answer.response.status == 200
    assert b"sound" not in answer.payload
    assert b"another" not in answer.payload
