"""One transaction through the running service: mutual TLS, enrolment, ordering, commit, restart."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rawshim import EOF, PATIENCE, RawShim
from serviceprocess import Authority, Process

from selvedge_common import comm
from selvedge_common.msp import SigningIdentity, load_signing_identity
from selvedge_common.protoutil import endorsements, proposals
from selvedge_protos.common import common_pb2
from selvedge_protos.common.ledger_pb2 import BlockchainInfo
from selvedge_protos.orderer.ab_pb2 import BroadcastResponse
from selvedge_protos.peer.chaincode_pb2 import ChaincodeInput
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_pb2 import SignedProposal
from selvedge_protos.peer.proposal_response_pb2 import ProposalResponse
from selvedge_protos.peer.query_pb2 import ChannelQueryResponse

CHANNEL = "mychannel"
Status = health_pb2.HealthCheckResponse
MODULE = "chaincode_support"


@pytest.fixture
def service(authority: Authority, tmp_path: Path) -> Iterator[Process]:
    process = Process.start(MODULE, authority.service_settings(tmp_path / "volume"))
    assert process.serving, process.lines
    yield process
    if process.popen.poll() is None:
        process.kill()


@asynccontextmanager
async def dial(address: str, folder: Path, root: str = "ca.crt") -> AsyncIterator[Any]:
    """A channel with the client certificate in a folder."""
    channel = comm.channel(
        address,
        root_cas=(folder / root).read_bytes(),
        certificate=(folder / "client.crt").read_bytes(),
        key=(folder / "client.key").read_bytes(),
    )
    try:
        yield channel
    finally:
        await channel.close(None)


async def propose(
    channel: Any,
    user: SigningIdentity,
    *args: bytes,
    on: str = CHANNEL,
    chaincode: str = "mycc",
) -> tuple[proposals.OpenedProposal, ProposalResponse]:
    proposal, _ = proposals.create_proposal(on, chaincode, args, user.serialized)
    signed = proposals.sign_proposal(proposal, user)
    process = channel.unary_unary(
        "/protos.Endorser/ProcessProposal",
        request_serializer=SignedProposal.SerializeToString,
        response_deserializer=ProposalResponse.FromString,
    )
    return proposals.open_proposal(signed), await process(signed, timeout=PATIENCE)


async def serve_put_and_get(shim: RawShim) -> None:
    """A chaincode: with two arguments it puts, with one it gets."""
    while True:
        message = await shim.hear()
        arguments = ChaincodeInput.FromString(message.payload).args
        if len(arguments) == 2:
            await shim.put(arguments[0].decode(), arguments[1], message)
            await shim.complete(message)
        else:
            value = (await shim.get(arguments[0].decode(), message)).payload
            await shim.complete(message, result=value)


async def submit(address: str, folder: Path, envelope: common_pb2.Envelope) -> BroadcastResponse:
    async with dial(address, folder / "tls") as channel, asyncio.timeout(PATIENCE):
        call = channel.stream_stream("/orderer.AtomicBroadcast/Broadcast")()
        await call.write(envelope.SerializeToString())
        data = await call.read()
        assert data is not EOF
        await call.done_writing()
        return BroadcastResponse.FromString(data)


async def value_of(key: bytes, channel: Any, user: SigningIdentity) -> bytes:
    _, response = await propose(channel, user, key)
    return response.response.payload


async def metric(service: Process, name: str) -> float:
    """A metric, with its labels as they are written."""
    address = f"https://{service.serving['operations']}"
    async with (
        aiohttp.ClientSession(address) as session,
        session.get("/metrics", ssl=False) as answer,
    ):
        lines = (await answer.text()).splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


async def test_channels_have_ledgers_of_their_own(authority: Authority, tmp_path: Path) -> None:
    settings = authority.service_settings(
        tmp_path / "two", CORE_CHANNEL_NAMES="first-channel,second-channel"
    )
    service = Process.start(MODULE, settings)
    folder, chaincode = await authority.user("user1"), await authority.chaincode("mycc")
    user = load_signing_identity(folder / "msp", "Org1MSP")
    try:
        async with (
            dial(service.serving["chaincode"], chaincode) as listener,
            dial(service.serving["api"], folder / "tls") as api,
        ):
            _, asked = await propose(api, user, b"GetChannels", on="", chaincode="cscc")
            channels = ChannelQueryResponse.FromString(asked.response.payload).channels
            assert [channel.channel_id for channel in channels] == [
                "first-channel",
                "second-channel",
            ]
            shim = RawShim(listener)
            await shim.register("mycc:1.0")
            serving = asyncio.create_task(serve_put_and_get(shim))
            proposal, response = await propose(api, user, b"k", b"v", on="second-channel")
            envelope = endorsements.create_transaction(proposal.proposal, [response], user)
            answer = await submit(service.serving["orderer"], folder, envelope)
            assert answer.status == common_pb2.SUCCESS
            for name, height in (("second-channel", 2), ("first-channel", 1)):
                info = await chain_info(api, user, name, height)
                assert info.height == height
            _, there = await propose(api, user, b"k", on="second-channel")
            _, here = await propose(api, user, b"k", on="first-channel")
            assert (there.response.payload, here.response.payload) == (b"v", b"")
            serving.cancel()
    finally:
        assert service.stop() == 0


async def chain_info(api: Any, user: SigningIdentity, channel: str, height: int) -> BlockchainInfo:
    """What qscc says of a channel once it has that many blocks."""
    async with asyncio.timeout(PATIENCE):
        while True:
            _, asked = await propose(
                api, user, b"GetChainInfo", channel.encode(), on=channel, chaincode="qscc"
            )
            info = BlockchainInfo.FromString(asked.response.payload)
            if info.height >= height:
                return info
            await asyncio.sleep(0.01)


async def test_a_transaction_is_committed_and_survives_a_kill(
    authority: Authority, service: Process, tmp_path: Path
) -> None:
    folder, chaincode = await authority.user("user1"), await authority.chaincode("mycc")
    user = load_signing_identity(folder / "msp", "Org1MSP")
    async with (
        dial(service.serving["chaincode"], chaincode) as listener,
        dial(service.serving["api"], folder / "tls") as api,
    ):
        shim = RawShim(listener)
        await shim.register("mycc:1.0")
        serving = asyncio.create_task(serve_put_and_get(shim))
        proposal, response = await propose(api, user, b"colour", b"green")
        assert response.response.status == 200
        envelope = endorsements.create_transaction(proposal.proposal, [response], user)
        answer = await submit(service.serving["orderer"], folder, envelope)
        assert answer.status == common_pb2.SUCCESS
        async with asyncio.timeout(PATIENCE):
            while await value_of(b"colour", api, user) != b"green":
                await asyncio.sleep(0.01)
        serving.cancel()
    service.kill()
    again = Process.start(MODULE, authority.service_settings(tmp_path / "volume"))
    try:
        assert again.serving["channels"] == {"mychannel": 2}
        async with (
            dial(again.serving["chaincode"], chaincode) as listener,
            dial(again.serving["api"], folder / "tls") as api,
        ):
            # The chaincode is known from before the kill: the proposal waits for it to dial in.
            early = asyncio.create_task(value_of(b"colour", api, user))
            async with asyncio.timeout(PATIENCE):
                while await metric(again, "endorser_proposals_in_work") < 1:
                    await asyncio.sleep(0.01)
            shim = RawShim(listener)
            await shim.register("mycc:1.0")
            serving = asyncio.create_task(serve_put_and_get(shim))
            assert await early == b"green"
            serving.cancel()
        assert again.stop() == 0
    finally:
        if again.popen.poll() is None:
            again.kill()


async def health(address: str, folder: Path, service: str) -> int:
    async with dial(address, folder / "tls") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        return int(answer.status)


async def test_nobody_is_told_success_for_what_will_not_be_committed(
    authority: Authority, service: Process, tmp_path: Path
) -> None:
    folder, chaincode = await authority.user("user1"), await authority.chaincode("mycc")
    user = load_signing_identity(folder / "msp", "Org1MSP")
    places = [("orderer", "orderer.AtomicBroadcast"), ("api", "protos.Endorser"), ("api", "")]
    for listener, name in places:
        assert await health(service.serving[listener], folder, name) == Status.SERVING
    ledger = sqlite3.connect(tmp_path / "volume" / "ledger" / f"{CHANNEL}.sqlite")
    ledger.execute("DROP TABLE history")
    ledger.close()
    async with (
        dial(service.serving["chaincode"], chaincode) as listener,
        dial(service.serving["api"], folder / "tls") as api,
    ):
        shim = RawShim(listener)
        await shim.register("mycc:1.0")
        serving = asyncio.create_task(serve_put_and_get(shim))
        proposal, response = await propose(api, user, b"colour", b"green")
        serving.cancel()
    envelope = endorsements.create_transaction(proposal.proposal, [response], user)
    await submit(service.serving["orderer"], folder, envelope)
    async with asyncio.timeout(PATIENCE):
        while await metric(service, f'ledger_commit_failing{{channel="{CHANNEL}"}}') != 1:
            await asyncio.sleep(0.01)
    answer = await submit(service.serving["orderer"], folder, envelope)
    assert answer.status == common_pb2.SERVICE_UNAVAILABLE
    for listener, name in places:
        assert await health(service.serving[listener], folder, name) == Status.NOT_SERVING
    assert await health(service.serving["chaincode"], folder, "") == Status.SERVING


async def test_a_chaincode_is_who_its_certificate_says(
    authority: Authority, service: Process
) -> None:
    other, user = await authority.chaincode("other"), await authority.user("user1")
    async with dial(service.serving["chaincode"], other) as listener:
        shim = RawShim(listener)
        await shim.say(ChaincodeMessage(type=ChaincodeMessage.REGISTER, payload=b"\x12\x04mycc"))
        code, details = await shim.status()
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "REGISTER names chaincode mycc" in details
        assert "the client certificate is for selvedge://chaincode/other" in details
        again = RawShim(listener)
        await again.register("other:1.0")
    async with dial(service.serving["chaincode"], user / "tls") as listener:
        shim = RawShim(listener)
        await shim.say(ChaincodeMessage(type=ChaincodeMessage.REGISTER, payload=b"\x12\x04mycc"))
        code, details = await shim.status()
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "the client certificate is for user1, which is no chaincode" in details


@pytest.mark.parametrize("listener", ["api", "chaincode", "orderer"])
async def test_a_client_without_a_certificate_is_refused(
    authority: Authority, service: Process, listener: str
) -> None:
    folder = await authority.user("user1")
    channel: Any = comm.channel(
        service.serving[listener], root_cas=(folder / "tls" / "ca.crt").read_bytes()
    )
    try:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=PATIENCE)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await channel.close(None)


async def test_operations_answer_and_sigterm_ends_it_cleanly(
    authority: Authority, tmp_path: Path
) -> None:
    plain = authority.service_settings(tmp_path / "volume", CORE_OPERATIONS_TLS_ENABLED=False)
    service = Process.start(MODULE, plain)
    try:
        address = service.serving["operations"]
        async with aiohttp.ClientSession(f"http://{address}") as session:
            async with session.get("/healthz") as answer:
                assert (answer.status, (await answer.json())["status"]) == (200, "OK")
            async with session.get("/metrics") as answer:
                assert "ledger_blockchain_height" in await answer.text()
        assert service.stop() == 0
    finally:
        if service.popen.poll() is None:
            service.kill()


def test_a_setting_that_makes_no_sense_ends_it_with_one_sentence(tmp_path: Path) -> None:
    failed = Process.start(MODULE, {"CORE_CHAINCODE_EXECUTETIMEOUT": "1s"})
    assert failed.popen.returncode == 1
    [line] = failed.lines
    assert line == (
        "chaincode-support: CORE_CHAINCODE_EXECUTETIMEOUT: chaincode.executetimeout is '1s', "
        "but must be from 1001ms to 576h.\n"
    )


def test_client_roots_that_cannot_be_read_are_named_with_their_key(
    authority: Authority, tmp_path: Path
) -> None:
    roots = tmp_path / "partner.pem"
    settings = authority.service_settings(
        tmp_path / "volume", CORE_PEER_TLS_CLIENTROOTCAS_FILES=roots
    )
    failed = Process.start(MODULE, settings)
    assert failed.popen.returncode == 1
    assert failed.lines[-1] == (
        f"chaincode-support: peer.tls.clientRootCAs.files: {roots} cannot be read: No such file or "
        "directory; give a readable file with a PEM certificate, or take it off the list\n"
    )


def test_revocation_list_that_cannot_be_read_is_named_with_its_key(
    authority: Authority, tmp_path: Path
) -> None:
    settings = authority.service_settings(
        tmp_path / "volume",
        CORE_PEER_TLS_REVOCATIONLISTS_FILES=__file__,
    )
    failed = Process.start(MODULE, settings)
    assert failed.popen.returncode == 1
    assert failed.lines[-1] == (
        f"chaincode-support: peer.tls.revocationLists.files: {__file__} holds no revocation list "
        "that can be read; give a readable file with a PEM revocation list, or take it off the "
        "list\n"
    )


async def test_each_listener_has_its_transport(authority: Authority, tmp_path: Path) -> None:
    settings = authority.service_settings(
        tmp_path / "volume", CORE_TRANSPORT_KIND="grpcio", CORE_TRANSPORT_CHAINCODE="native"
    )
    service = Process.start(MODULE, settings)
    try:
        assert service.serving["transport"] == {
            "peer": "grpcio",
            "chaincode": "native",
            "orderer": "grpcio",
        }
    finally:
        assert service.stop() == 0


def test_what_a_transport_cannot_do_is_said_at_the_start(
    authority: Authority, tmp_path: Path
) -> None:
    settings = authority.service_settings(
        tmp_path / "volume",
        CORE_TRANSPORT_KIND="grpcio",
        CORE_PEER_TLS_CLIENTAUTHREQUIRED=False,
        CORE_PEER_TLS_CLIENTAUTHREQUESTED=True,
    )
    failed = Process.start(MODULE, settings)
    assert failed.popen.returncode == 1
    assert "The transport grpcio cannot ask for a client certificate" in failed.lines[-1]


def test_sigterm_ends_it_while_it_waits_for_the_ca(tmp_path: Path) -> None:
    waiting = Process.start(
        MODULE,
        {
            "CORE_PEER_FILESYSTEMPATH": tmp_path,
            "CORE_CA_ENROLMENT": tmp_path / "nowhere.json",
        },
        until="waiting to enrol",
    )
    assert waiting.stop() == 0


async def test_plaintext_is_loud_in_the_log(authority: Authority, tmp_path: Path) -> None:
    plain = authority.service_settings(tmp_path / "volume", CORE_PEER_TLS_ENABLED=False)
    service = Process.start(MODULE, plain)
    try:
        assert any("TLS IS OFF" in line for line in service.lines)
        async with grpc.aio.insecure_channel(service.serving["chaincode"]) as channel:
            await RawShim(channel).register("mycc:1.0")
    finally:
        service.kill()


async def test_another_authority_s_volume_is_refused(
    authority: Authority, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = Process.start(MODULE, authority.service_settings(tmp_path / "volume"))
    assert first.stop() == 0
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    try:
        refused = Process.start(MODULE, stranger.service_settings(tmp_path / "volume"))
        assert refused.popen.returncode == 1
        assert "was made by another certificate authority" in refused.lines[-1]
    finally:
        stranger.process.stop()
