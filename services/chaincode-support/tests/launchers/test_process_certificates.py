"""How a started chaincode comes by its certificate, with a real certificate authority."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import Launching, StartLaunching
from serviceprocess import Authority

from chaincode_support.launchers.errors import LaunchFailed
from selvedge_common.comm import SecureServerConfig, ServerConfig
from selvedge_common.enrolment import enrol_service

StartSecurely = Callable[..., Awaitable[Launching]]

CHAINCODE = """
import os
from selvedge_shim import Chaincode, Response, Stub, start, success

class Environment(Chaincode):
    async def invoke(self, stub: Stub) -> Response:
        names = sorted(name for name in os.environ if "TLS" in name)
        return success(" ".join(names))

start(Environment())
"""
PAIR = [
    "CORE_TLS_CLIENT_CERT_FILE",
    "CORE_TLS_CLIENT_CERT_PATH",
    "CORE_TLS_CLIENT_KEY_FILE",
    "CORE_TLS_CLIENT_KEY_PATH",
]
ROOT = ["CORE_PEER_TLS_ENABLED", "CORE_PEER_TLS_ROOTCERT_FILE"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    yield authority
    authority.process.stop()


@pytest.fixture
async def begin(authority: Authority, start: StartLaunching, tmp_path: Path) -> StartSecurely:
    """Starts peers with a certificate of the authority."""
    volume = tmp_path / "volume"
    enrolment = authority.folder / "enrol/chaincode-support/enrolment.json"
    await enrol_service(volume, enrolment, identities=(), ca_address=authority.address)
    tls = volume / "tls"
    root = (tls / "ca.crt").read_bytes()

    async def start_securely(*, required: bool = True, **overrides: Any) -> Launching:
        secure = SecureServerConfig(
            use_tls=True,
            certificate=(tls / "server.crt").read_bytes(),
            key=(tls / "server.key").read_bytes(),
            client_root_cas=(root,),
            require_client_certificate=required,
        )
        return await start(
            server=ServerConfig(secure=secure),
            stream={"check_certificate_name": required},
            root=tls / "ca.crt",
            certificate_required=required,
            ca_address=authority.address,
            **overrides,
        )

    return start_securely


def package(**more: Any) -> dict[str, Any]:
    command = [sys.executable, "chaincode.py"]
    return {"type": "process", "label": "mycc", "command": command, **more}


async def variables(launching: Launching) -> list[str]:
    return (await launching.peer.execute("mycc")).response.payload.decode().split()


async def test_without_one_it_is_not_started_and_the_sentence_says_what_to_run(
    begin: StartSecurely,
) -> None:
    launching = await begin()
    place = await launching.drop("mycc", package(), chaincode=CHAINCODE)
    with pytest.raises(LaunchFailed) as failure:
        await launching.peer.execute("mycc")
    assert str(failure.value) == (
        "chaincode mycc was not started, for it has no certificate to show to this peer (there is "
        f"no client.crt yet in {place / 'tls'}): run `selvedge ca issue --chaincode mycc`, and "
        f'name the folder that it writes as "tls" in {place / "metadata.json"}'
    )


async def test_the_folder_of_an_issued_one_is_named_in_the_package(
    begin: StartSecurely, authority: Authority
) -> None:
    launching = await begin(host_override="localhost")
    issued = await authority.chaincode("mycc")
    await launching.drop("mycc", package(tls=str(issued)), chaincode=CHAINCODE)
    assert await variables(launching) == [*ROOT, "CORE_PEER_TLS_SERVERHOSTOVERRIDE", *PAIR]


async def test_one_of_another_chaincode_is_of_no_use(
    begin: StartSecurely, authority: Authority
) -> None:
    launching = await begin()
    issued = await authority.chaincode("other")
    await launching.drop("mycc", package(tls=str(issued)), chaincode=CHAINCODE)
    with pytest.raises(LaunchFailed, match="certificate is not for selvedge://chaincode/mycc in"):
        await launching.peer.execute("mycc")


async def test_with_an_enrolment_file_it_gets_one_whose_key_is_made_there(
    begin: StartSecurely, authority: Authority
) -> None:
    launching = await begin()
    place = await launching.drop("mycc", package(enrolment="enrolment.json"), chaincode=CHAINCODE)
    tokens = authority.enrolment("mycc", "chaincode")
    (place / "enrolment.json").write_bytes(tokens.to_json())
    assert await variables(launching) == [*ROOT, *PAIR]
    assert (place / "tls" / "client.key").stat().st_mode & 0o777 == 0o600


async def test_an_enrolment_file_that_does_not_come_is_said(begin: StartSecurely) -> None:
    launching = await begin(enrol_patience=0.05)
    place = await launching.drop("mycc", package(enrolment="enrolment.json"), chaincode=CHAINCODE)
    with pytest.raises(
        LaunchFailed,
        match=r"was not started, for it has no certificate: not enrolled within 0\.05 s: there is "
        rf"no enrolment file {place / 'enrolment.json'}",
    ):
        await launching.peer.execute("mycc")


async def test_where_none_is_required_none_is_needed(begin: StartSecurely) -> None:
    launching = await begin(required=False)
    await launching.drop("mycc", package(), chaincode=CHAINCODE)
    assert await variables(launching) == ROOT
