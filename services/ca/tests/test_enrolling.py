"""Members from their enrolment file to connections and identities that others accept."""

from __future__ import annotations

import asyncio
import errno
import functools
import json
import os
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY
from services.ca.tests.running import RunningCa, free_port, running_ca
from structlog.testing import capture_logs

from certificate_authority import enrolments
from selvedge_common import comm
from selvedge_common.enrolment import (
    Enrolment,
    EnrolmentError,
    enrol_chaincode,
    enrol_producer,
    enrol_service,
    enrol_user,
    layout,
    material,
)
from selvedge_common.enrolment.document import fingerprint
from selvedge_common.enrolment.material import defect
from selvedge_common.enrolment.metrics import CERTIFICATE_EXPIRY
from selvedge_common.files import write_atomically
from selvedge_common.msp import MSP, load_signing_identity


async def health_over_mutual_tls(
    service: Path, client: Path, *, pair: str = "server", host: str = "127.0.0.1"
) -> int:
    """The health of a server that runs on a service's material, asked with a client's.

    Args:
        pair: the server's files, without their ends.
        host: what the client dials it by.
    """
    root = (service / "ca.crt").read_bytes()
    server = comm.GRPCServer(
        "localhost:0",
        comm.ServerConfig(
            comm.SecureServerConfig(
                use_tls=True,
                certificate=(service / f"{pair}.crt").read_bytes(),
                key=(service / f"{pair}.key").read_bytes(),
                client_root_cas=(root,),
                require_client_certificate=True,
            )
        ),
    )
    await server.start()
    channel = comm.channel(
        f"{host}:{server.address.rpartition(':')[2]}",
        root_cas=(client / "ca.crt").read_bytes(),
        certificate=(client / "client.crt").read_bytes(),
        key=(client / "client.key").read_bytes(),
    )
    try:
        async with channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            answer = await check(health_pb2.HealthCheckRequest(), timeout=5)
            return int(answer.status)
    finally:
        await server.stop(0)


async def test_a_service_serves_and_dials_with_what_it_enrolled_for(
    ca: RunningCa, tmp_path: Path
) -> None:
    folder, file = tmp_path / "volume", ca.member_file("chaincode-support")
    await enrol_service(folder, file, identities=["peer", "orderer"])
    chaincode = tmp_path / "chaincode"
    await enrol_chaincode(chaincode, ca.member_file("asset-transfer"), name="asset-transfer")
    serving = health_pb2.HealthCheckResponse.SERVING
    assert await health_over_mutual_tls(folder / "tls", folder / "tls") == serving
    assert await health_over_mutual_tls(folder / "tls", chaincode) == serving


async def test_a_chaincode_serves_under_the_hosts_of_its_token_and_no_other(
    ca: RunningCa, tmp_path: Path
) -> None:
    peer, chaincode = tmp_path / "peer", tmp_path / "chaincode"
    await enrol_service(peer, ca.member_file("chaincode-support"))
    tokens = {"chaincode": ca.mint("mycc", "chaincode", "localhost", "mycc.example.com")}
    await enrol_chaincode(chaincode, enrolment_with(ca, tokens), name="mycc")
    serving = health_pb2.HealthCheckResponse.SERVING
    dialled = functools.partial(health_over_mutual_tls, chaincode, peer / "tls", pair="client")
    assert await dialled(host="localhost") == serving
    with pytest.raises(grpc.aio.AioRpcError, match="Hostname Verification Check failed"):
        await dialled(host="127.0.0.1")


async def test_a_members_hosts_are_in_the_certificate_that_it_serves_with(tmp_path: Path) -> None:
    def member(name: str, *profiles: str) -> dict[str, object]:
        return {"name": name, "folder": name, "profiles": profiles, "extraSans": [f"{name}.test"]}

    members = [member("mycc", "chaincode"), member("peer0", "tls-server", "tls-client", "peer")]
    overlay = tmp_path / "ca.yaml"
    overlay.write_text(json.dumps({"enrolment": {"members": members}}))
    async with running_ca(tmp_path, overlay) as ca:
        await enrol_chaincode(tmp_path / "mycc", ca.member_file("mycc"), name="mycc")
        await enrol_service(tmp_path / "peer0", ca.member_file("peer0"))
        for host in ("peer0", "peer0.test"):
            tokens = {"chaincode": ca.mint("other", "chaincode", host)}
            with pytest.raises(EnrolmentError, match=f"{host} is a host of one of the services"):
                await enrol_chaincode(tmp_path / "cc", enrolment_with(ca, tokens), name="other")
    assert dns_names(tmp_path / "mycc" / "client.crt") == ["mycc.test"]
    assert "peer0.test" in dns_names(tmp_path / "peer0" / "tls" / "server.crt")
    assert dns_names(tmp_path / "peer0" / "tls" / "client.crt") == []


async def test_a_chaincode_with_a_server_certificate_too_is_no_service(tmp_path: Path) -> None:
    member = {"name": "mycc", "folder": "mycc", "profiles": ["chaincode", "tls-server"]}
    overlay = tmp_path / "ca.yaml"
    overlay.write_text(json.dumps({"enrolment": {"members": [member | {"extraSans": []}]}}))
    async with running_ca(tmp_path, overlay) as ca:
        await enrol_chaincode(tmp_path / "mycc", ca.member_file("mycc"), name="mycc")
        tokens = {"chaincode": ca.mint("mycc", "chaincode", "mycc")}
        await enrol_chaincode(
            tmp_path / "mycc", enrolment_with(ca, tokens), name="mycc", renew=True
        )
    assert dns_names(tmp_path / "mycc" / "client.crt") == ["mycc"]


async def test_hosts_of_a_token_made_by_hand_do_not_come_into_the_members_file(
    ca: RunningCa, tmp_path: Path
) -> None:
    tokens = {"chaincode": ca.mint("asset-transfer", "chaincode", "localhost")}
    await enrol_chaincode(tmp_path / "a", enrolment_with(ca, tokens), name="asset-transfer")
    await enrol_chaincode(tmp_path / "b", ca.member_file("asset-transfer"), name="asset-transfer")
    assert dns_names(tmp_path / "a" / "client.crt") == ["localhost"]
    assert dns_names(tmp_path / "b" / "client.crt") == []


def enrolment_with(ca: RunningCa, tokens: Mapping[str, str]) -> Enrolment:
    """What `certificate-authority token` prints."""
    root = (ca.home / "ca" / "tls" / "ca.crt").read_bytes()
    return Enrolment(ca.config.ca.address, root, fingerprint(root, "ca.crt"), "Org1MSP", tokens)


def dns_names(file: Path) -> list[str]:
    extensions = x509.load_pem_x509_certificate(file.read_bytes()).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


async def test_identities_have_their_roles(ca: RunningCa, tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    await enrol_service(folder, ca.member_file("chaincode-support"), identities=["peer", "orderer"])
    tokens = {profile: ca.mint("admin", profile) for profile in ("admin", "tls-client")}
    await enrol_user(tmp_path / "admin", enrolment_with(ca, tokens), profile="admin")
    msp = MSP.load(folder / "msp", "Org1MSP")
    for place in (folder / "msp", folder / "orderer-msp", tmp_path / "admin" / "msp"):
        signer = load_signing_identity(place, "Org1MSP")
        identity = msp.deserialize(signer.serialized)
        msp.validate(identity)
        identity.verify(b"message", signer.sign(b"message"))
        tls_root = (ca.home / "ca" / "tls" / "ca.crt").read_bytes()
        assert (place / "tlscacerts" / "tlsca.pem").read_bytes() == tls_root


async def test_keys_are_private(ca: RunningCa, tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    await enrol_service(folder, ca.member_file("event-hub"))
    chaincode = folder / "chaincode"
    await enrol_chaincode(chaincode, ca.member_file("asset-transfer"), name="asset-transfer")
    keys = [*folder.rglob("*.key"), *folder.rglob("key.pem"), *folder.rglob("*.key.b64")]
    assert len(keys) == 5
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert {key.parent.stat().st_mode & 0o777 for key in keys} == {0o700}
    assert ca.member_file("event-hub").stat().st_mode & 0o777 == 0o600


async def test_base64_forms_hold_the_pem(ca: RunningCa, tmp_path: Path) -> None:
    await enrol_chaincode(tmp_path, ca.member_file("asset-transfer"), name="asset-transfer")
    for name in ("client.crt", "client.key"):
        assert b64decode((tmp_path / f"{name}.b64").read_bytes()) == (tmp_path / name).read_bytes()


async def test_enrolling_again_changes_nothing_and_needs_no_ca(tmp_path: Path) -> None:
    folder, file = tmp_path / "volume", tmp_path / "enrol" / "event-hub" / "enrolment.json"
    async with running_ca(tmp_path):
        await enrol_service(folder, file)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    await enrol_service(folder, file, patience=0)
    file.unlink()
    await enrol_service(folder, file, patience=0)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("damage", ["key lost", "key swapped", "base64 lost"])
async def test_damaged_material_is_replaced(ca: RunningCa, tmp_path: Path, damage: str) -> None:
    file, (credential,) = ca.member_file("asset-transfer"), layout.chaincode("asset-transfer")
    folder, other = tmp_path / "a", tmp_path / "b"
    await enrol_chaincode(folder, file, name="asset-transfer")
    await enrol_chaincode(other, file, name="asset-transfer")
    if damage == "key lost":
        (folder / "client.key").unlink()
    elif damage == "key swapped":
        (folder / "client.key").write_bytes((other / "client.key").read_bytes())
    else:
        (folder / "client.key.b64").unlink()
    assert defect(folder, credential, None)
    await enrol_chaincode(folder, file, name="asset-transfer")
    assert defect(folder, credential, Enrolment.load(file)) is None


async def test_an_expired_certificate_is_a_defect(ca: RunningCa, tmp_path: Path) -> None:
    await enrol_chaincode(tmp_path, ca.member_file("asset-transfer"), name="asset-transfer")
    (credential,) = layout.chaincode("asset-transfer")
    later = datetime.now(UTC) + timedelta(days=366)
    assert "expired" in str(defect(tmp_path, credential, None, now=later))


async def test_a_certificate_with_less_than_a_third_of_its_life_is_renewed(
    tmp_path: Path,
) -> None:
    folder, file = tmp_path / "volume", tmp_path / "enrol" / "event-hub" / "enrolment.json"
    # Certificates begin five minutes in the past.
    async with running_ca(tmp_path, CORE_CA_LIFETIMES_PEER="2m"):
        await enrol_service(folder, file)
        before = certificates(folder)
        with capture_logs() as logged:
            await enrol_service(folder, file)
    after = certificates(folder)
    assert {name for name in before if before[name] != after[name]} == {"msp/signcerts/cert.pem"}
    (enrolling,) = [line for line in logged if line["event"] == "enrolling"]
    assert enrolling["reason"].startswith("less than a third of its life is left: it expires on")


async def test_a_renewal_that_fails_leaves_the_good_certificates_in_use(tmp_path: Path) -> None:
    folder, file = tmp_path / "volume", tmp_path / "enrol" / "event-hub" / "enrolment.json"
    async with running_ca(tmp_path, CORE_CA_LIFETIMES_PEER="2m"):
        await enrol_service(folder, file)
        before, enrolment = certificates(folder), Enrolment.load(file)
        with capture_logs() as logged:
            spent = file.with_name("spent.json")
            spent.write_bytes(file_with(enrolment, *enrolment.tokens).to_json())
            await enrol_service(folder, spent)
            await enrol_service(folder, file.with_name("nowhere.json"))
    with capture_logs() as later:
        await enrol_service(folder, file, patience=0.1)
    assert certificates(folder) == before
    warnings = [line for line in logged + later if line["event"].startswith("not renewed")]
    for line, words in zip(
        warnings, ("unknown to this ca", "no enrolment file", "no ca answers"), strict=True
    ):
        assert words in line["reason"]


async def test_what_is_missing_does_not_wait_for_what_cannot_be_renewed(tmp_path: Path) -> None:
    folder, file = tmp_path / "volume", tmp_path / "enrol" / "event-hub" / "enrolment.json"
    async with running_ca(tmp_path, CORE_CA_LIFETIMES_TLSSERVER="2m"):
        await enrol_service(folder, file)
        (folder / "msp" / "signcerts" / "cert.pem").unlink()
        made = Enrolment.load(file)
        tokens = {"tls-server": "spent-long-ago-by-somebody", "peer": made.tokens["peer"]}
        given = Enrolment(made.ca_address, made.tls_root, made.tls_root_sha256, made.msp_id, tokens)
        (tmp_path / "secret.json").write_bytes(given.to_json())
        await enrol_service(folder, tmp_path / "secret.json")
    load_signing_identity(folder / "msp", "Org1MSP")


async def test_a_renewal_that_breaks_off_is_not_called_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = tmp_path / "volume", tmp_path / "enrol" / "event-hub" / "enrolment.json"

    def full(path: Path, data: bytes, mode: int = 0o644) -> None:
        if path.name == "cert.pem":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, data, mode)

    async with running_ca(tmp_path, CORE_CA_LIFETIMES_PEER="2m"):
        await enrol_service(folder, file)
        monkeypatch.setattr(material, "write_atomically", full)
        with pytest.raises(EnrolmentError, match="No space left"):
            await enrol_service(folder, file)
        monkeypatch.undo()
        await enrol_service(folder, file)
    load_signing_identity(folder / "msp", "Org1MSP")


async def test_the_end_of_each_certificate_is_measured(ca: RunningCa, tmp_path: Path) -> None:
    def measured() -> dict[str, float]:
        name = "selvedge_certificate_expiry_timestamp_seconds"
        return {
            profile: REGISTRY.get_sample_value(name, {"certificate": profile}) or 0.0
            for profile in ("tls-server", "tls-client", "peer")
        }

    def ends() -> dict[str, float]:
        return {
            credential.profile: material.expiry(tmp_path, credential).timestamp()
            for credential in layout.service(["peer"])
        }

    own = x509.load_pem_x509_certificate((ca.home / "ca" / "tls" / "server.crt").read_bytes())
    assert measured()["tls-server"] == own.not_valid_after_utc.timestamp()
    for _ in ("written", "found"):
        CERTIFICATE_EXPIRY.clear()
        await enrol_service(tmp_path, ca.member_file("event-hub"))
        assert measured() == ends()


def certificates(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix == ".crt" or path.name == "cert.pem"
    }


async def test_material_of_another_ca_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    file = "enrol/event-hub/enrolment.json"
    async with running_ca(tmp_path / "first"):
        await enrol_service(folder, tmp_path / "first" / file)
    async with running_ca(tmp_path / "second") as second:
        await enrol_service(folder, tmp_path / "second" / file)
        assert (folder / "tls" / "ca.crt").read_bytes() == Enrolment.load(
            second.member_file("event-hub")
        ).tls_root


async def test_a_member_that_is_first_waits_for_file_and_ca(tmp_path: Path) -> None:
    folder, file = tmp_path / "volume", tmp_path / "enrol" / "event-hub" / "enrolment.json"
    enrolling = asyncio.create_task(enrol_service(folder, file))
    async with running_ca(tmp_path):
        await enrolling
    assert (folder / "tls" / "server.crt").exists()


async def test_the_wait_ends_with_what_it_was_for(tmp_path: Path) -> None:
    with pytest.raises(EnrolmentError, match=r"within 0\.1 s: there is no enrolment file"):
        await enrol_service(tmp_path, tmp_path / "enrolment.json", patience=0.1)
    async with running_ca(tmp_path) as ca:
        file = Enrolment.load(ca.member_file("event-hub"))
    nowhere = f"localhost:{free_port()}"
    with pytest.raises(EnrolmentError, match=f"no ca answers at {nowhere}"):
        await enrol_user(
            tmp_path, file_with(file, "user", "tls-client"), ca_address=nowhere, patience=0.1
        )


def file_with(file: Enrolment, *profiles: str) -> Enrolment:
    tokens = dict.fromkeys(profiles, "any-token")
    return Enrolment(file.ca_address, file.tls_root, file.tls_root_sha256, file.msp_id, tokens)


async def test_a_ca_with_another_root_is_not_trusted(tmp_path: Path) -> None:
    async with running_ca(tmp_path / "first") as first:
        enrolment = Enrolment.load(first.member_file("asset-transfer"))
    async with running_ca(tmp_path / "second") as second:
        with pytest.raises(EnrolmentError, match="not the ca whose root is in"):
            await enrol_chaincode(
                tmp_path / "cc",
                enrolment,
                name="asset-transfer",
                ca_address=second.config.ca.address,
                patience=0.5,
            )


async def test_a_chaincode_does_not_take_another_ones_name(ca: RunningCa, tmp_path: Path) -> None:
    with pytest.raises(EnrolmentError, match="instead of selvedge://chaincode/other"):
        await enrol_chaincode(tmp_path / "cc", ca.member_file("asset-transfer"), name="other")
    assert not (tmp_path / "cc").exists()


async def test_a_producer_gets_a_certificate_of_its_name(ca: RunningCa, tmp_path: Path) -> None:
    tokens = {"producer": ca.mint("weather", "producer")}
    await enrol_producer(tmp_path / "weather", enrolment_with(ca, tokens), name="weather")
    assert {file.name for file in (tmp_path / "weather").iterdir()} == {
        "ca.crt",
        "client.crt",
        "client.key",
    }
    tokens = {"producer": ca.mint("weather", "producer")}
    with pytest.raises(EnrolmentError, match="instead of selvedge://producer/other"):
        await enrol_producer(tmp_path / "other", enrolment_with(ca, tokens), name="other")


async def test_a_missing_profile_is_named_at_once(ca: RunningCa, tmp_path: Path) -> None:
    with pytest.raises(EnrolmentError, match="no token for profile orderer"):
        await enrol_service(tmp_path / "x", ca.member_file("event-hub"), identities=["orderer"])


async def test_every_spent_token_is_replaced_by_a_fresh_one(ca: RunningCa, tmp_path: Path) -> None:
    file = ca.member_file("event-hub")
    before = Enrolment.load(file).tokens
    await enrol_service(tmp_path / "once", file)
    after = Enrolment.load(file).tokens
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
    await enrol_service(tmp_path / "twice", file)


async def test_a_premade_read_only_file_works_once_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_ca(tmp_path) as ca:
        made = Enrolment.load(ca.member_file("event-hub"))
    file = tmp_path / "enrol" / "event-hub" / "enrolment.json"
    tokens = {profile: f"made-by-a-platform-engineer-{profile}" for profile in made.tokens}
    premade = Enrolment("ca:7055", made.tls_root, made.tls_root_sha256, made.msp_id, tokens)
    file.write_bytes(premade.to_json())
    file.parent.chmod(0o500)
    if os.access(file.parent, os.W_OK):  # root writes anywhere but on a read-only mount
        monkeypatch.setattr(enrolments, "_writable", lambda member: member.name != "event-hub")
    async with running_ca(tmp_path) as ca:
        address = ca.config.ca.address
        await enrol_service(tmp_path / "volume", file, ca_address=address)
        assert file.read_bytes() == premade.to_json()
    async with running_ca(tmp_path) as ca:
        with pytest.raises(EnrolmentError, match="used before") as caught:
            await enrol_service(tmp_path / "more", file, ca_address=ca.config.ca.address)
        assert "PERMISSION_DENIED" in str(caught.value)
    file.parent.chmod(0o700)


async def test_files_follow_the_configuration_and_live_tokens_stay(tmp_path: Path) -> None:
    async with running_ca(tmp_path) as ca:
        before = Enrolment.load(ca.member_file("event-hub"))
        ca.member_file("asset-transfer").write_text("{ torn")
    async with running_ca(tmp_path, CORE_ENROLMENT_GROUPREADABLE="true") as ca:
        after = Enrolment.load(ca.member_file("event-hub"))
        assert after.tokens == before.tokens
        assert after.ca_address == ca.config.ca.address != before.ca_address
        assert ca.member_file("event-hub").stat().st_mode & 0o777 == 0o640
        assert Enrolment.load(ca.member_file("asset-transfer")).tokens.keys() == {"chaincode"}


async def test_tokens_of_another_ca_are_not_taken_over(tmp_path: Path) -> None:
    async with running_ca(tmp_path / "first") as first:
        foreign = first.member_file("event-hub").read_bytes()
    file = tmp_path / "second" / "enrol" / "event-hub" / "enrolment.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(foreign)
    async with running_ca(tmp_path / "second"):
        mine = Enrolment.load(file)
        theirs = json.loads(foreign)["tokens"]
        assert not set(mine.tokens.values()) & set(theirs.values())
        await enrol_service(tmp_path / "volume", file)
