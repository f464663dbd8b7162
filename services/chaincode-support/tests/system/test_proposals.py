"""Proposals for system chaincodes: who may ask, with a channel in the header and without."""

from datetime import timedelta
from typing import Any

import grpc
import pytest
from endorsing import Endorsing
from prometheus_client import REGISTRY
from rawshim import Dial, register
from testchannel import CHAINCODE, CHANNEL

from chaincode_support.system.names import SYSTEM_CHAINCODES

NO_CHANNEL = "The proposal names no channel"


async def test_an_application_s_chaincode_needs_a_channel(endorsing: Endorsing, dial: Dial) -> None:
    await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    code, details = await endorsing.refusal(endorsing.sign(b"x", channel=""))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(f"error validating proposal: {NO_CHANNEL}")


@pytest.mark.parametrize("channel", [CHANNEL, ""])
@pytest.mark.parametrize("chaincode", ["qscc", "cscc"])
async def test_strangers_expired_members_and_forgers_are_refused(
    endorsing: Endorsing, channel: str, chaincode: str
) -> None:
    fields: dict[str, Any] = {"channel": channel, "chaincode": chaincode}
    network = endorsing.network
    expired = network.organisation.issue("client", "late", timedelta(hours=-1))
    forged = endorsing.sign(b"GetChannels", **fields)
    forged.signature = network.client.sign(b"something else")
    for signed, reason in [
        (endorsing.sign(b"GetChannels", client=network.stranger, **fields), "OtherMSP"),
        (endorsing.sign(b"GetChannels", client=expired, **fields), "expired"),
        (forged, "does not match the message"),
    ]:
        code, details = await endorsing.refusal(signed)
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert f"access denied: channel [{channel}]: " in details
        assert reason in details


@pytest.mark.parametrize("name", ["lscc", "escc", "vscc", "_lifecycle"])
async def test_one_that_is_not_served_says_so_without_a_channel_too(
    endorsing: Endorsing, name: str
) -> None:
    answer = await endorsing.send(endorsing.sign(b"x", channel="", chaincode=name))
    assert answer.response.status == 500
    assert f"{name} is a system chaincode of Fabric, which this peer does not serve yet" in (
        answer.response.message
    )


@pytest.mark.parametrize("name", sorted(SYSTEM_CHAINCODES - {"_lifecycle"}))
async def test_nobody_registers_such_a_name(endorsing: Endorsing, dial: Dial, name: str) -> None:
    shim = await dial(endorsing.peer)
    await shim.say(register(f"{name}:1.0"))
    code, details = await shim.status()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert f"REGISTER names chaincode {name}:1.0, which is a part of the peer" in details
    answer = await endorsing.send(endorsing.sign(b"GetChannels", channel="", chaincode="cscc"))
    assert answer.response.status == 200


async def test_they_need_no_snapshot_and_are_counted(endorsing: Endorsing) -> None:
    gauge = ("ledger_simulations_in_use", {"channel": CHANNEL})
    before = REGISTRY.get_sample_value(*gauge) or 0
    # More than there are snapshots for, were each to keep one.
    for _ in range(150):
        answer = await endorsing.send(endorsing.sign(b"GetChannels", chaincode="cscc"))
        assert answer.response.status == 200
    assert (REGISTRY.get_sample_value(*gauge) or 0) == before
    tally = endorsing.peer.registry.tally("cscc")
    assert (tally.completed, tally.failed) == (150, 0)


async def test_a_fault_of_the_peer_s_own_is_told_without_its_details(
    endorsing: Endorsing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(type(endorsing.peer.ledger), "chain_info", lambda _: broken())
    answer = await endorsing.send(
        endorsing.sign(b"GetChainInfo", CHANNEL.encode(), chaincode="qscc")
    )
    assert answer.response.status == 500
    assert answer.response.message == "qscc could not do it; the peer's log says why"
