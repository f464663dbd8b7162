"""A channel that cannot be used is named, others are served, and operators mend it meanwhile."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate
from rawshim import PATIENCE
from serviceprocess import Authority, Process
from volumes import PAGE, changing, damage_page

from selvedge_common import comm
from selvedge_common.msp import load_signing_identity
from selvedge_common.protoutil import proposals, seek_request
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer.ab_pb2 import BroadcastResponse, SeekInfo
from selvedge_protos.peer.events_pb2 import DeliverResponse
from selvedge_protos.peer.proposal_pb2 import SignedProposal
from selvedge_protos.peer.proposal_response_pb2 import ProposalResponse
from selvedge_protos.peer.query_pb2 import ChannelQueryResponse

MODULE = "chaincode_support"
CHANNELS = ("sound-channel", "damaged-channel")
SOUND, DAMAGED = CHANNELS


@pytest.fixture
def settings(authority: Authority, tmp_path: Path) -> dict[str, object]:
    return authority.service_settings(tmp_path / "volume", CORE_CHANNEL_NAMES=",".join(CHANNELS))


@pytest.fixture
def volume(settings: dict[str, object], tmp_path: Path) -> Path:
    """A volume with both channels, whose service was stopped."""
    service = Process.start(MODULE, settings)
    assert service.serving["channels"] == dict.fromkeys(CHANNELS, 1)
    assert service.stop() == 0
    return tmp_path / "volume"


@contextmanager
def running(settings: dict[str, object]) -> Iterator[Process]:
    service = Process.start(MODULE, settings)
    try:
        assert service.serving, service.lines
        yield service
        assert service.stop() == 0
    finally:
        if service.popen.poll() is None:
            service.kill()


def maintain(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chaincode_support.maintenance", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=50,
    )


async def health(service: Process) -> tuple[int, list[dict[str, str]]]:
    """The status of /healthz, and the checks that fail."""
    address = f"https://{service.serving['operations']}"
    async with (
        aiohttp.ClientSession(address) as session,
        session.get("/healthz", ssl=False) as answer,
    ):
        return answer.status, (await answer.json()).get("failed_checks", [])


class Client:
    """A user who asks the peer and submits to its ordering."""

    def __init__(self, service: Process, folder: Path) -> None:
        self._service = service
        self._tls = folder / "tls"
        self._user = load_signing_identity(folder / "msp", "Org1MSP")

    async def channels(self) -> list[str]:
        """Those that the peer says it has."""
        proposal, _ = proposals.create_proposal("", "cscc", [b"GetChannels"], self._user.serialized)
        signed = proposals.sign_proposal(proposal, self._user)
        async with self._dial("api") as api:
            process = api.unary_unary(
                "/protos.Endorser/ProcessProposal",
                request_serializer=SignedProposal.SerializeToString,
                response_deserializer=ProposalResponse.FromString,
            )
            answer = await process(signed, timeout=PATIENCE)
            channels = ChannelQueryResponse.FromString(answer.response.payload).channels
            return [channel.channel_id for channel in channels]

    async def submit(self, channel: str) -> str:
        """The status of an envelope that names the channel, and nothing else of worth."""
        header = common_pb2.Header(
            channel_header=common_pb2.ChannelHeader(
                type=common_pb2.ENDORSER_TRANSACTION, channel_id=channel
            ).SerializeToString()
        )
        payload = common_pb2.Payload(header=header).SerializeToString()
        async with self._dial("orderer") as orderer:
            call = orderer.stream_stream("/orderer.AtomicBroadcast/Broadcast")(timeout=PATIENCE)
            await call.write(common_pb2.Envelope(payload=payload).SerializeToString())
            answer = BroadcastResponse.FromString(await call.read())
            return common_pb2.Status.Name(answer.status)

    async def deliver(self, channel: str) -> str:
        """The status after all blocks there are."""
        certificate = load_pem_x509_certificate((self._tls / "client.crt").read_bytes())
        request = seek_request.seek_envelope(
            channel,
            seek_request.OLDEST,
            seek_request.NEWEST,
            SeekInfo.BLOCK_UNTIL_READY,
            self._user,
            tls_cert_hash=certificate.fingerprint(SHA256()),
        )
        async with self._dial("api") as api:
            call = api.stream_stream(
                "/protos.Deliver/Deliver", response_deserializer=DeliverResponse.FromString
            )(timeout=PATIENCE)
            await call.write(request.SerializeToString())
            async for response in call:
                if response.WhichOneof("Type") == "status":
                    return common_pb2.Status.Name(response.status)
        raise AssertionError("The stream ended without a status.")

    def _dial(self, listener: str) -> Any:
        return comm.channel(
            self._service.serving[listener],
            root_cas=(self._tls / "ca.crt").read_bytes(),
            certificate=(self._tls / "client.crt").read_bytes(),
            key=(self._tls / "client.key").read_bytes(),
        )


async def test_the_others_are_served_until_it_is_mended_and_then_all_are(
    authority: Authority, settings: dict[str, object], volume: Path
) -> None:
    file = volume / "ledger" / f"{DAMAGED}.sqlite"
    damage_page(file, 0, b"\xa5" * PAGE)
    folder = await authority.user("user1")
    with running(settings) as service:
        assert service.serving["channels"] == {SOUND: 1}
        assert service.serving["not_served"] == [DAMAGED]
        [told] = [json.loads(line) for line in service.lines if "channel not served" in line]
        assert (told["level"], told["channel"]) == ("critical", DAMAGED)
        assert str(file) in told["error"]
        status, [failed] = await health(service)
        assert (status, failed["component"]) == (503, "channels")
        assert failed["reason"].startswith(
            f"Channel {DAMAGED} is not served: The ledger file {file} of channel {DAMAGED} cannot "
            "be used: file is not a database. Stop the service and run `selvedge ledger rebuild`"
        )
        client = Client(service, folder)
        assert await client.channels() == [SOUND]
        # FORBIDDEN, for it is not signed, says that the channel is there.
        assert await client.submit(SOUND) == "FORBIDDEN"
        assert await client.submit(DAMAGED) == "NOT_FOUND"
        busy = maintain("rebuild", "--volume", volume)
        assert busy.returncode == 1
        assert f"Channel {SOUND} is in use by a running chaincode-support" in busy.stderr
        # Nobody holds the other one.
        mended = maintain("rebuild", "--volume", volume, "--channel", DAMAGED)
        assert mended.returncode == 0, mended.stderr
    with running(settings) as service:
        assert service.serving["channels"] == dict.fromkeys(CHANNELS, 1)
        assert "not_served" not in service.serving
        assert await health(service) == (200, [])
        assert await Client(service, folder).submit(DAMAGED) == "FORBIDDEN"


async def test_one_whose_blocks_are_lost_while_it_is_served_fails_its_health_alone(
    authority: Authority, settings: dict[str, object], volume: Path
) -> None:
    file = volume / "ledger" / f"{DAMAGED}.sqlite"
    folder = await authority.user("user2")
    with running(settings) as service:
        client = Client(service, folder)
        with changing(file) as connection:
            connection.execute("DELETE FROM block WHERE number = 0")
        assert await health(service) == (200, [])
        assert await client.deliver(DAMAGED) == "INTERNAL_SERVER_ERROR"
        assert await client.deliver(SOUND) == "SUCCESS"
        status, [failed] = await health(service)
        assert (status, failed["component"]) == (503, "committer")
        assert failed["reason"].startswith(
            f"The ledger file {file} of channel {DAMAGED} is damaged: block 0 is not in it. Stop "
            "the service and run `selvedge ledger rebuild`"
        )
    logged = "".join(service.lines).splitlines()
    assert sum("ledger damaged" in line for line in logged) == 1
    assert not any("Traceback" in line for line in logged)


async def test_one_that_cannot_catch_up_at_the_start_stops_alone(
    settings: dict[str, object], volume: Path
) -> None:
    with changing(volume / "ledger" / f"{DAMAGED}.sqlite") as connection:
        connection.execute("DROP TABLE block")
        connection.execute(
            "CREATE TABLE block (number INTEGER PRIMARY KEY, hash BLOB NOT NULL, "
            "bytes BLOB NOT NULL, more TEXT NOT NULL) STRICT"
        )
    with running(settings) as service:
        assert service.serving["channels"] == {SOUND: 1, DAMAGED: 0}
        status, [failed] = await health(service)
        assert (status, failed["component"]) == (503, "committer")
        assert f"Committing to channel {DAMAGED} stopped at block 0" in failed["reason"]


def test_where_none_can_be_used_the_service_ends(settings: dict[str, object], volume: Path) -> None:
    for name in CHANNELS:
        damage_page(volume / "ledger" / f"{name}.sqlite", 0, b"\xa5" * PAGE)
    failed = Process.start(MODULE, settings)
    assert failed.popen.returncode == 1
    assert failed.lines[-1].startswith("chaincode-support: The ledger file")
    assert SOUND in failed.lines[-1]


def test_a_log_that_is_gone_does_not_begin_anew_beside_its_ledger(
    settings: dict[str, object], volume: Path
) -> None:
    file = volume / "ordering" / f"{DAMAGED}.sqlite"
    file.unlink()
    with running(settings) as service:
        assert service.serving["not_served"] == [DAMAGED]
        [told] = [json.loads(line) for line in service.lines if "channel not served" in line]
        assert f"The ordering log {file} of channel {DAMAGED} is missing" in told["error"]
    assert not file.exists()


def test_a_volume_has_one_service(settings: dict[str, object], volume: Path) -> None:
    with running(settings):
        second = Process.start(MODULE, settings)
        assert second.popen.returncode == 1
        assert second.lines[-1] == (
            f"chaincode-support: Channel {SOUND} is in use by a running chaincode-support, which "
            f"holds {volume}/ordering/{SOUND}.lock: stop that first.\n"
        )


def test_a_running_service_s_channels_are_verified_and_copied(
    settings: dict[str, object], volume: Path, tmp_path: Path
) -> None:
    with running(settings):
        verified = maintain("verify", "--json", "--volume", volume)
        assert verified.returncode == 0, verified.stderr
        backup = tmp_path / "backup"
        copied = maintain("backup", "--json", "--volume", volume, "--to", backup)
        assert copied.returncode == 0, copied.stderr
    for done in (verified, copied):
        reports = json.loads(done.stdout)["channels"]
        assert [report["channel"] for report in reports] == sorted(CHANNELS)
        assert all(report["sound"] for report in reports)
    again = maintain("restore", "--volume", volume, "--from", backup, "--force")
    assert again.returncode == 0
    with running(settings) as service:
        assert service.serving["channels"] == dict.fromkeys(CHANNELS, 1)
