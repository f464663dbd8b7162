"""cscc by proposal: which channels there are, and how they are configured."""

import pytest
from endorsing import Endorsing
from testchannel import CHANNEL, Network, add_block, writes

from selvedge_protos.peer.proposal_response_pb2 import Response
from selvedge_protos.peer.query_pb2 import ChannelQueryResponse

HEADERS = pytest.mark.parametrize("header", [CHANNEL, ""])


async def ask(endorsing: Endorsing, *args: bytes, channel: str = CHANNEL) -> Response:
    signed = endorsing.sign(*args, chaincode="cscc", channel=channel)
    return (await endorsing.send(signed)).response


@HEADERS
async def test_members_are_told_which_channels_there_are(endorsing: Endorsing, header: str) -> None:
    response = await ask(endorsing, b"GetChannels", channel=header)
    assert response.status == 200
    found = ChannelQueryResponse.FromString(response.payload)
    assert [each.channel_id for each in found.channels] == [CHANNEL]


@HEADERS
async def test_the_configuration_is_block_0(
    endorsing: Endorsing, network: Network, header: str
) -> None:
    await add_block(network, endorsing.peer.ledger, network.transaction(writes(k=b"1"))[1])
    response = await ask(endorsing, b"GetConfigBlock", CHANNEL.encode(), channel=header)
    assert response.status == 200
    assert response.payload == endorsing.peer.ledger.block(0)


@HEADERS
async def test_the_configuration_is_for_readers(endorsing: Endorsing, header: str) -> None:
    closed = endorsing.add_closed_channel()
    response = await ask(endorsing, b"GetConfigBlock", closed.encode(), channel=header)
    assert (response.status, response.payload) == (500, b"")
    assert f"access denied for channel {closed}: " in response.message
    assert "/Channel/Application/Readers" in response.message


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ((b"GetConfigBlock",), "the call names no channel: give it as the first argument"),
        ((b"GetConfigBlock", b"x\n"), f"channel 'x\\n' is unknown: this peer has {CHANNEL}"),
        ((b"JoinChain", b"x"), "cscc has no function JoinChain: it has GetChannels, GetConfig"),
        ((), "cscc has no function : it has GetChannels, GetConfigBlock"),
    ],
)
async def test_what_it_does_not_do_is_refused(
    endorsing: Endorsing, args: tuple[bytes, ...], reason: str
) -> None:
    response = await ask(endorsing, *args)
    assert response.status == 500
    assert response.message.startswith(reason)
