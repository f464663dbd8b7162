"""Several streams of one chaincode name: who may open them, and who gets the next transaction."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from rawshim import PATIENCE, Dial, Peer, RawShim, StartPeer, register
from testchannel import Organisation

from chaincode_support.chaincode.errors import ExecuteTimeout, StreamTerminated
from chaincode_support.chaincode.stream import ChaincodeStream
from chaincode_support.chaincode.support import Execution
from selvedge_common import comm
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import Stream

M = ChaincodeMessage
URI = "selvedge://chaincode/"


@pytest.fixture(scope="module")
def authority() -> Organisation:
    return Organisation("TLS")


@pytest.fixture(scope="module")
def secure(authority: Organisation) -> comm.ServerConfig:
    certificate, key = authority.issue_tls("server")
    return comm.ServerConfig(
        secure=comm.SecureServerConfig(
            use_tls=True,
            certificate=certificate,
            key=key,
            client_root_cas=(authority.root,),
            require_client_certificate=True,
        )
    )


@pytest.fixture
async def peer(start_peer: StartPeer, secure: comm.ServerConfig) -> Peer:
    """One whose chaincodes have certificates."""
    return await start_peer(server=secure, check_certificate_name=True)


@pytest.fixture
async def dial(authority: Organisation) -> AsyncIterator[Dial]:
    """Dials with a certificate of the name that is registered, or else of mycc."""
    channels: list[grpc.aio.Channel] = []

    async def open_stream(peer: Peer, name: str | None = None) -> RawShim:
        chaincode = (name or "mycc").partition(":")[0]
        certificate, key = authority.issue_tls("chaincode", URI + chaincode)
        channel = comm.channel(
            f"localhost:{peer.address.rpartition(':')[2]}",
            root_cas=authority.root,
            certificate=certificate,
            key=key,
        )
        channels.append(channel)
        shim = RawShim(channel)
        if name is not None:
            await shim.register(name)
        return shim

    yield open_stream
    for channel in channels:
        await channel.close(None)


class Serving:
    """Replicas that answer whatever they are asked, each with its name, until it ends with them."""

    def __init__(self, **shims: RawShim) -> None:
        self._tasks = [
            asyncio.create_task(_answer(shim, name.encode())) for name, shim in shims.items()
        ]

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _answer(shim: RawShim, name: bytes) -> None:
    while True:
        await shim.complete(await shim.hear(), result=name)


def execute(peer: Peer, txid: str) -> "asyncio.Task[Execution]":
    return asyncio.create_task(peer.execute("mycc", txid))


async def served_by(peer: Peer, txid: str) -> str:
    """The name of the replica that answers a transaction."""
    return (await peer.execute("mycc", txid)).response.payload.decode()


async def until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not reached():
            await asyncio.sleep(0.001)


def streams(peer: Peer, name: str = "mycc") -> list[ChaincodeStream]:
    found = list(peer.registry.replicas(name))
    return [each for each in found if isinstance(each, ChaincodeStream)]


def stream_of(peer: Peer, registered: str) -> ChaincodeStream:
    [stream] = [each for each in streams(peer) if each.registered_name == registered]
    return stream


async def test_replicas_with_certificates_of_the_name_all_serve(peer: Peer, dial: Dial) -> None:
    shims = [await dial(peer, "mycc:1.0") for _ in range(3)]
    running = [execute(peer, f"t{number}") for number in range(3)]
    # Each gets the one that nobody else has.
    heard = [await shim.hear() for shim in shims]
    assert {message.txid for message in heard} == {"t0", "t1", "t2"}
    for shim, message in zip(shims, heard, strict=True):
        await shim.complete(message)
    assert {(await task).response.status for task in running} == {200}


@pytest.mark.parametrize("names", ["ab", "abc", "abcd"])
async def test_turns_go_round(peer: Peer, dial: Dial, names: str) -> None:
    async with Serving(**{name: await dial(peer, "mycc:1.0") for name in names}):
        found = [await served_by(peer, f"t{number}") for number in range(2 * len(names))]
    assert "".join(found) == 2 * names


async def test_whoever_runs_the_fewest_comes_first(peer: Peer, dial: Dial) -> None:
    busy, idle = await dial(peer, "mycc:1.0"), await dial(peer, "mycc:1.0")
    first = [execute(peer, f"t{number}") for number in range(2)]
    # Each has one; the second is done with its own, and gets all that come one by one.
    waiting = await busy.hear()
    await idle.complete(await idle.hear())
    await until(lambda: any(task.done() for task in first))
    async with Serving(idle=idle):
        assert {await served_by(peer, f"u{number}") for number in range(3)} == {"idle"}
    await busy.complete(waiting)
    await asyncio.gather(*first)


async def test_one_leaves_and_the_other_goes_on(peer: Peer, dial: Dial) -> None:
    leaving, staying = await dial(peer, "mycc:1.0"), await dial(peer, "mycc:1.0")
    await leaving.half_close()
    assert await leaving.status() == (grpc.StatusCode.OK, "")
    async with Serving(staying=staying):
        assert {await served_by(peer, f"t{number}") for number in range(3)} == {"staying"}
        assert len(streams(peer)) == 1


async def test_one_that_dies_fails_only_its_own_at_once_with_the_cause(
    peer: Peer, dial: Dial
) -> None:
    dying, staying = await dial(peer, "mycc:1.0"), await dial(peer, "mycc:1.0")
    running = {f"t{number}": execute(peer, f"t{number}") for number in range(2)}
    lost, kept = await dying.hear(), await staying.hear()
    dying.cut()
    async with asyncio.timeout(PATIENCE / 2):
        with pytest.raises(StreamTerminated, match=r"mycc:1\.0 left the transaction unfinished"):
            await running[lost.txid]
    assert not running[kept.txid].done()
    await staying.complete(kept, status=201)
    assert (await running[kept.txid]).response.status == 201
    async with Serving(staying=staying):
        assert await served_by(peer, "next") == "staying"


async def test_a_newer_release_gets_what_begins_and_the_older_ends_what_it_has(
    peer: Peer, dial: Dial
) -> None:
    older = await dial(peer, "mycc:1.0")
    running = execute(peer, "old")
    message = await older.hear()
    newer = await dial(peer, "mycc:2.0")
    async with Serving(newer=newer):
        # One of the older release that comes late does not turn back.
        await dial(peer, "mycc:1.0")
        found = [await peer.execute("mycc", f"t{number}") for number in range(3)]
        assert {execution.version for execution in found} == {"2.0"}
    assert (await older.put("a", b"1", message)).type == M.RESPONSE
    await older.complete(message)
    assert (await running).version == "1.0"


async def test_the_older_release_comes_back_when_the_newer_leaves(peer: Peer, dial: Dial) -> None:
    older, newer = await dial(peer, "mycc:1.0"), await dial(peer, "mycc:2.0")
    async with Serving(older=older):
        await newer.half_close()
        await newer.status()
        assert (await peer.execute("mycc", "t1")).version == "1.0"
        newer = await dial(peer, "mycc:2.0")
        async with Serving(newer=newer):
            assert (await peer.execute("mycc", "t2")).version == "2.0"


async def test_one_that_does_not_answer_is_passed_over_until_it_speaks(
    start_peer: StartPeer, secure: comm.ServerConfig, dial: Dial
) -> None:
    peer = await start_peer(server=secure, check_certificate_name=True, execute_timeout=0.5)
    silent, other = await dial(peer, "mycc:1.0"), await dial(peer, "mycc:1.0")
    first = [execute(peer, f"t{number}") for number in range(2)]
    await silent.hear()
    await other.complete(await other.hear())
    ended = await asyncio.gather(*first, return_exceptions=True)
    assert [type(each) for each in ended if isinstance(each, Exception)] == [ExecuteTimeout]
    async with Serving(other=other):
        assert {await served_by(peer, f"u{number}") for number in range(4)} == {"other"}
        assert sorted(each.responsive for each in streams(peer)) == [False, True]
        await silent.say(M(type=M.KEEPALIVE))
        await until(lambda: all(each.responsive for each in streams(peer)))
        async with Serving(silent=silent):
            found = {await served_by(peer, f"v{number}") for number in range(2)}
    assert found == {"other", "silent"}


async def test_if_none_answers_they_are_still_asked(
    start_peer: StartPeer, secure: comm.ServerConfig, dial: Dial
) -> None:
    peer = await start_peer(server=secure, check_certificate_name=True, execute_timeout=0.5)
    shims = [await dial(peer, "mycc:1.0") for _ in range(2)]
    for _ in range(2):
        with pytest.raises(ExecuteTimeout):
            await peer.execute("mycc")
    assert [each.responsive for each in streams(peer)] == [False, False]
    for shim in shims:
        await shim.hear()
    async with Serving(a=shims[0], b=shims[1]):
        assert await served_by(peer, "t2") == "a"
        assert sorted(each.responsive for each in streams(peer)) == [False, True]


async def test_a_certificate_of_another_name_makes_no_replica(
    peer: Peer, dial: Dial, authority: Organisation
) -> None:
    first = await dial(peer, "mycc:1.0")
    certificate, key = authority.issue_tls("chaincode", URI + "other")
    async with comm.channel(
        f"localhost:{peer.address.rpartition(':')[2]}",
        root_cas=authority.root,
        certificate=certificate,
        key=key,
    ) as channel:
        forger = RawShim(channel)
        await forger.say(register("mycc:9.0"))
        code, details = await forger.status()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "REGISTER names chaincode mycc, but the client certificate is for" in details
    async with Serving(first=first):
        assert (await peer.execute("mycc")).version == "1.0"


async def test_drain_ends_a_stream_after_what_it_runs_and_others_take_over(
    peer: Peer, dial: Dial
) -> None:
    drained, other = await dial(peer, "mycc:1.0"), await dial(peer, "mycc:1.1")
    await other.half_close()
    await other.status()
    running = execute(peer, "t1")
    message = await drained.hear()
    stream = stream_of(peer, "mycc:1.0")
    stream.drain()
    # Nobody else serves it: the next transaction waits for one that does.
    waiting = execute(peer, "t2")
    assert (await drained.get("a", message)).type == M.RESPONSE
    other = await dial(peer, "mycc:1.1")
    async with Serving(other=other):
        assert (await waiting).version == "1.1"
    await drained.complete(message)
    assert (await running).response.status == 200
    assert await drained.status() == (grpc.StatusCode.OK, "")
    await until(lambda: stream not in streams(peer))


async def test_drain_of_an_idle_stream_ends_it_at_once(
    peer: Peer, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chaincode")
    shim = await dial(peer, "mycc:1.0")
    peer.stream().drain()
    assert await shim.status() == (grpc.StatusCode.OK, "")
    await until(lambda: not streams(peer))
    assert "the peer drained it" in caplog.text
    again = await dial(peer, "mycc:1.0")
    async with Serving(again=again):
        assert await served_by(peer, "t1") == "again"


async def test_waiting_transactions_go_on_with_the_first_replica_that_comes(
    peer: Peer, dial: Dial
) -> None:
    shim = await dial(peer, "mycc:1.0")
    await shim.half_close()
    await shim.status()
    waiting = [execute(peer, f"t{number}") for number in range(4)]
    for task in waiting:
        await asyncio.sleep(0)
        assert not task.done()
    async with Serving(a=await dial(peer, "mycc:1.0")):
        ended: list[Any] = await asyncio.gather(*waiting)
    assert [execution.response.status for execution in ended] == [200] * 4


async def test_a_replica_that_is_killed_while_many_run_loses_only_its_share(
    peer: Peer, dial: Dial
) -> None:
    dying, staying = await dial(peer, "mycc:1.0"), await dial(peer, "mycc:1.0")
    running = [execute(peer, f"t{number}") for number in range(20)]
    for _ in range(10):
        await dying.hear()
    dying.cut()
    async with Serving(staying=staying):
        ended = await asyncio.gather(*running, return_exceptions=True)
    lost = [str(each) for each in ended if isinstance(each, StreamTerminated)]
    assert len(lost) == 10
    assert all("its connection was lost" in each for each in lost)


async def test_the_version_that_is_told_is_that_of_who_gets_the_next_transaction(
    peer: Peer, dial: Dial
) -> None:
    for registered in ("mycc:1.0", "mycc:2.0", "mycc:1.0"):
        await dial(peer, registered)
    [described] = peer.support.describe()
    assert described.version == "2.0"
    assert sorted((each.registered_name, each.state) for each in described.streams) == [
        ("mycc:1.0", Stream.DRAINING),
        ("mycc:1.0", Stream.DRAINING),
        ("mycc:2.0", Stream.READY),
    ]


async def test_replicas_are_bounded(
    start_peer: StartPeer, secure: comm.ServerConfig, dial: Dial
) -> None:
    peer = await start_peer(server=secure, check_certificate_name=True, max_replicas=2)
    for _ in range(2):
        await dial(peer, "mycc:1.0")
    third = await dial(peer)
    await third.say(register("mycc:1.0"))
    code, details = await third.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "chaincode.limits.replicas" in details
    await dial(peer, "other:1.0")


async def test_a_chaincode_leaves_places_of_unregistered_streams_to_others(
    start_peer: StartPeer, secure: comm.ServerConfig, dial: Dial
) -> None:
    peer = await start_peer(server=secure, check_certificate_name=True, max_unregistered=8)
    silent = [await dial(peer) for _ in range(3)]
    ended = [asyncio.create_task(shim.status()) for shim in silent]
    (refused, *_), _ = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    code, details = await refused
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"2 streams of chaincode, localhost, {URI}mycc have not sent REGISTER" in details
    await dial(peer, "other:1.0")
    for task in ended:
        task.cancel()
