"""Deliver over real gRPC: ranges, waiting, filtered blocks, and who may read."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from testchannel import CHANNEL, Network, Organisation, Service, writes

from chaincode_support.deliver.deliver import Deliver
from chaincode_support.ordering import BatchSize, OrderingSettings
from selvedge_common import comm
from selvedge_common.msp import ORDERER
from selvedge_common.msp.policies import evaluate, signed_by_role
from selvedge_common.protoutil import blocks
from selvedge_common.protoutil.responses import Backlog
from selvedge_common.protoutil.seek_request import FOREVER, NEWEST, OLDEST, seek_envelope
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.orderer.ab_pb2_grpc import AtomicBroadcastStub
from selvedge_protos.peer import transaction_pb2
from selvedge_protos.peer.events_pb2_grpc import DeliverStub

SETTINGS = OrderingSettings(BatchSize(10, 1 << 20), 0.001, 100, 1 << 24)
WAIT = ab_pb2.SeekInfo.BLOCK_UNTIL_READY
FAIL = ab_pb2.SeekInfo.FAIL_IF_NOT_READY


@pytest.fixture(scope="session")
def network() -> Network:
    return Network()


@pytest.fixture
async def service(tmp_path: Path, network: Network) -> AsyncIterator[Service]:
    """Blocks 0 to 3, each with one transaction."""
    async with Service(network, tmp_path, SETTINGS) as running:
        for n in range(3):
            await running.ordering.order(network.transaction(writes(a=b"%d" % n))[1])
        await running.ledger.wait_for(4)
        yield running


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(service.server.address) as channel:
        yield channel


def ask(network: Network, start: Any, stop: Any, behavior: Any = FAIL, **how: Any) -> Any:
    signer = how.pop("signer", network.client)
    return seek_envelope(how.pop("name", CHANNEL), start, stop, behavior, signer, **how)


async def answers(method: Any, *requests: common_pb2.Envelope) -> list[int | str]:
    """Block numbers and the names of statuses, as they come until the stream ends."""
    found: list[int | str] = []
    async with asyncio.timeout(10):
        async for response in method(iter(requests)):
            kind = response.WhichOneof("Type")
            if kind == "block":
                found.append(response.block.header.number)
            elif kind == "filtered_block":
                found.append(response.filtered_block.number)
            elif kind == "block_and_private_data":
                found.append(response.block_and_private_data.block.header.number)
            else:
                found.append(common_pb2.Status.Name(response.status))
    return found


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (OLDEST, NEWEST, [0, 1, 2, 3, "SUCCESS"]),
        (NEWEST, NEWEST, [3, "SUCCESS"]),
        (1, 2, [1, 2, "SUCCESS"]),
        (2, FOREVER, [2, 3, "NOT_FOUND"]),
        (9, 9, ["NOT_FOUND"]),
        (2, 1, ["BAD_REQUEST"]),
    ],
)
async def test_ranges(
    start: Any, stop: Any, expected: list[int | str], service: Service, channel: Any
) -> None:
    request = ask(service.network, start, stop)
    assert await answers(DeliverStub(channel).Deliver, request) == expected
    assert await answers(DeliverStub(channel).DeliverFiltered, request) == expected
    assert await answers(AtomicBroadcastStub(channel).Deliver, request) == expected


async def test_one_stream_answers_several_requests(service: Service, channel: Any) -> None:
    requests = [ask(service.network, n, n) for n in (1, 3)]
    assert await answers(DeliverStub(channel).Deliver, *requests) == [
        1,
        "SUCCESS",
        3,
        "SUCCESS",
    ]


async def test_the_peer_gives_blocks_as_committed_and_the_orderer_as_ordered(
    service: Service, channel: Any
) -> None:
    request = ask(service.network, 1, 1)
    committed = await DeliverStub(channel).Deliver(iter([request])).read()
    ordered = await AtomicBroadcastStub(channel).Deliver(iter([request])).read()
    assert committed.block.SerializeToString() == service.ledger.block(1)
    assert ordered.block.SerializeToString() == service.ordering.block(1)
    codes = common_pb2.TRANSACTIONS_FILTER
    assert committed.block.metadata.metadata[codes] == b"\x00"
    assert ordered.block.metadata.metadata[codes] == b""
    policy = signed_by_role(service.network.msps, [ORDERER])
    evaluate(policy, blocks.block_signatures(committed.block), service.network.msps)


async def test_who_waits_gets_the_next_block_as_it_is_committed(
    service: Service, channel: Any
) -> None:
    request = ask(service.network, 3, FOREVER, WAIT)
    call = DeliverStub(channel).DeliverFiltered(iter([request]))
    async with asyncio.timeout(10):
        assert (await call.read()).filtered_block.number == 3
        txid, envelope = service.network.transaction()
        await service.ordering.order(envelope)
        filtered = (await call.read()).filtered_block
    assert (filtered.number, filtered.channel_id) == (4, CHANNEL)
    (transaction,) = filtered.filtered_transactions
    assert transaction.txid == txid
    assert transaction.tx_validation_code == transaction_pb2.VALID
    call.cancel()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "yours"}, "NOT_FOUND"),
        ({"signer": "stranger"}, "FORBIDDEN"),
        ({"tamper": True}, "FORBIDDEN"),
    ],
)
async def test_refusals(
    change: dict[str, Any], status: str, service: Service, channel: Any
) -> None:
    how = {name: change[name] for name in change if name == "name"}
    if "signer" in change:
        how["signer"] = service.network.stranger
    request = ask(service.network, 0, 0, **how)
    if "tamper" in change:
        request.signature = service.network.client.sign(b"another")
    assert await answers(DeliverStub(channel).Deliver, request) == [status]


async def test_blocks_with_private_data_have_none(service: Service, channel: Any) -> None:
    request = ask(service.network, 1, 2)
    stub = DeliverStub(channel)
    assert await answers(stub.DeliverWithPrivateData, request) == [1, 2, "SUCCESS"]
    response = await stub.DeliverWithPrivateData(iter([request])).read()
    whole = await stub.Deliver(iter([request])).read()
    assert response.block_and_private_data.block == whole.block
    assert not response.block_and_private_data.private_data_map


async def test_streams_are_bounded(tmp_path: Path, network: Network) -> None:
    async with (
        Service(network, tmp_path, SETTINGS, max_streams=1) as service,
        grpc.aio.insecure_channel(service.server.address) as channel,
    ):
        first: Any = DeliverStub(channel).Deliver(iter([ask(network, 0, FOREVER, WAIT)]))
        assert (await first.read()).block.header.number == 0
        second = DeliverStub(channel).Deliver(iter([ask(network, 0, 0)]))
        with pytest.raises(grpc.aio.AioRpcError, match="deliverService") as refused:
            await second.read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()


async def test_with_mutual_tls_a_request_is_bound_to_its_connection(
    tmp_path: Path, network: Network
) -> None:
    authority = Organisation("TLS")
    server_certificate, server_key = authority.issue_tls("server")
    certificate, key = authority.issue_tls("client")
    secure = comm.SecureServerConfig(
        use_tls=True,
        certificate=server_certificate,
        key=server_key,
        client_root_cas=(authority.root,),
        require_client_certificate=True,
    )
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.decode())).digest()
    async with (
        Service(network, tmp_path, SETTINGS, comm.ServerConfig(secure=secure)) as service,
        comm.channel(
            f"localhost:{service.port}",
            root_cas=authority.root,
            certificate=certificate,
            key=key,
        ) as channel,
    ):
        await service.ledger.wait_for(1)
        for claimed, expected in [
            (digest, [0, "SUCCESS"]),
            (None, ["BAD_REQUEST"]),
            (bytes(32), ["BAD_REQUEST"]),
        ]:
            request = ask(network, 0, 0, tls_cert_hash=claimed)
            assert await answers(DeliverStub(channel).Deliver, request) == expected


async def test_one_certificate_has_its_share_of_the_streams(network: Network) -> None:
    class Stream:
        """A client that says nothing, on mutual TLS."""

        peer = "ipv4:127.0.0.1:1"

        def __init__(self, certificate: bytes) -> None:
            self._certificate = certificate

        def auth_context(self) -> dict[str, list[bytes]]:
            return {"x509_pem_cert": [self._certificate]}

        def __aiter__(self) -> "Stream":
            return self

        async def __anext__(self) -> bytes:
            await asyncio.Event().wait()
            raise StopAsyncIteration

    one, other = (network.organisation.issue_tls(name)[0] for name in ("one", "other"))
    deliver = Deliver({}, mutual_tls=True, max_streams=8, backlog=Backlog(1 << 20, 8))

    def open_stream(certificate: bytes) -> "asyncio.Task[None]":
        stream: Any = Stream(certificate)
        return asyncio.create_task(deliver.deliver(stream))

    first = [open_stream(one), open_stream(one)]
    with pytest.raises(comm.StatusError, match=r"its share of .*deliverService"):
        await open_stream(one)
    theirs = open_stream(other)
    first.pop().cancel()
    again = open_stream(one)
    await asyncio.sleep(0)
    assert not any(task.done() for task in (*first, theirs, again))
    for task in (*first, theirs, again):
        task.cancel()


async def test_a_stream_that_asks_for_nothing_is_ended(
    channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selvedge_common.protoutil.seek.FIRST_REQUEST_SECONDS", 0.05)
    open_stream: Any = channel.stream_stream  # the stubs want what may be left out
    call = open_stream("/protos.Deliver/Deliver")()
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
