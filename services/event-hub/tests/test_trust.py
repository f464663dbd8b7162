"""Which blocks the hub believes: those that the channel's own configuration vouches for."""

import asyncio
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from deliver_peer import BATCH, CHANNEL, Ledger
from eventhouse import House, Running, eventually, interest, sample
from fabric_blocks import fabric_blocks
from organisation import Organisation

from event_hub.channels.block import ChannelBlock
from event_hub.channels.channel import Channel
from event_hub.channels.recent import RecentBlocks
from event_hub.events import BLOCK, CHAINCODE, FILTEREDBLOCK, REJECTION
from event_hub.hub import Hub
from event_hub.material import Material
from event_hub.sources.chain import (
    Chain,
    ChainError,
    Fork,
    NotSigned,
    UnusableConfiguration,
    check_codes,
)
from event_hub.sources.checkpoint import Checkpoint, CheckpointError
from event_hub.sources.configurations import Configurations
from event_hub.sources.deliver import SourceUnfit
from event_hub.sources.trust import Trust
from selvedge_common.msp import (
    BadSignature,
    IdentityExpired,
    PolicyError,
    PolicyNotSatisfied,
    SigningIdentity,
    UnknownMSP,
    UntrustedIdentity,
)
from selvedge_common.msp.policies import SignedData
from selvedge_common.protoutil import blocks, metadata
from selvedge_common.protoutil.config_block import ChannelConfig, genesis_block, open_config
from selvedge_common.protoutil.wire import marshal
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import events_pb2, transaction_pb2

CONFIGURATIONS = "checkpoints/configurations/mychannel"


def failures(cause: str) -> float:
    return sample("eventhub_source_failures_total", channel=CHANNEL, cause=cause)


async def caught_up(hub: Running, ledger: Ledger) -> None:
    await eventually(lambda: hub.channel().height == ledger.height)


async def refused(hub: Running, cause: str, sentence: str, before: float) -> None:
    """Wait until a block was refused, and see it told in all places."""
    await eventually(lambda: failures(cause) > before)
    with pytest.raises(SourceUnfit, match=sentence):
        hub.hub.check_sources()
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(hub.channel().status.trouble)


def unsigned(block: common_pb2.Block, _: SigningIdentity) -> None:
    metadata.set_metadata(block, common_pb2.SIGNATURES, b"")


def signed_by_a_stranger(block: common_pb2.Block, stranger: SigningIdentity) -> None:
    blocks.sign_block(block, stranger, 0)


def signed_for_another_block(block: common_pb2.Block, _: SigningIdentity) -> None:
    block.data.data[0] = b"another one"
    block.header.data_hash = blocks.data_hash(block.data.data)


@pytest.mark.parametrize("forge", [unsigned, signed_by_a_stranger, signed_for_another_block])
async def test_block_without_the_orderers_signature_is_refused_and_nothing_of_it_is_told(
    house: House,
    stranger: Organisation,
    forge: Callable[[common_pb2.Block, SigningIdentity], None],
) -> None:
    hub = await house.hub()
    await caught_up(hub, house.ledger)
    client = house.client(hub)
    await client.register(interest(FILTEREDBLOCK))
    await house.ledger.commit(house.ledger.transaction())
    await caught_up(hub, house.ledger)
    before = failures("signature")
    ledger = house.ledger
    genuine = await ledger.commit(ledger.transaction())
    await caught_up(hub, ledger)
    forged = common_pb2.Block.FromString(genuine.SerializeToString())
    forged.header.number = ledger.height
    forged.header.previous_hash = blocks.header_hash(genuine.header)
    blocks.sign_block(forged, ledger.orderer, 0)
    forge(forged, stranger.identity("orderer", "orderer"))
    await ledger.append(forged)
    sentence = r"block 3 of the source is not signed as the configuration of mychannel in block 0"
    await refused(hub, "signature", sentence, before)
    assert hub.channel().height == 3
    assert [(await client.hear()).filtered_block.number for _ in range(2)] == [1, 2]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.call.read()


async def test_member_that_does_not_order_signs_no_block(
    house: House, organisation: Organisation, stranger: Organisation
) -> None:
    """The channel's own members cannot make up blocks where others order."""
    orderers = Organisation("OrdererMSP")
    ledger = Ledger(organisation)
    await ledger.configure(
        [organisation], orderers.identity("orderer", "orderer"), orderers=[orderers]
    )
    house.peer.ledger = ledger
    hub = await house.hub()
    await ledger.commit(ledger.transaction())
    await caught_up(hub, ledger)
    before = failures("signature")
    ledger.orderer = organisation.identity("admin", "admin")
    await ledger.commit(ledger.transaction())
    await refused(hub, "signature", "block 2 of the source is not signed", before)


async def test_configuration_block_says_who_signs_from_then_on(
    house: House, organisation: Organisation
) -> None:
    old, new = Organisation("OldOrdererMSP"), Organisation("NewOrdererMSP")
    ledger = Ledger(organisation)
    await ledger.configure([organisation], old.identity("orderer", "orderer"), orderers=[old])
    house.peer.ledger = ledger
    hub = await house.hub()
    await ledger.commit(ledger.transaction())
    await caught_up(hub, ledger)
    first = hub.channel().config
    retired = ledger.orderer
    await ledger.configure([organisation], new.identity("orderer", "orderer"), orderers=[new])
    await ledger.commit(ledger.transaction())
    await caught_up(hub, ledger)
    second = hub.channel().config
    assert first is not None
    assert second is not None
    assert set(first.msps) == {organisation.mspid, "OldOrdererMSP"}
    assert set(second.msps) == {organisation.mspid, "NewOrdererMSP"}
    hub.hub.check_sources()

    before = failures("signature")
    ledger.orderer = retired
    await ledger.commit(ledger.transaction())
    await refused(hub, "signature", "block 4 .* in block 2 demands", before)
    await hub.stop()
    names = sorted(file.name for file in (house.folder / CONFIGURATIONS).iterdir())
    assert names == ["0.block", "2.block"]


async def test_configuration_outlives_a_restart(
    house: House, organisation: Organisation, stranger: Organisation
) -> None:
    """A source that was taken over while the hub was down gives another first block, too."""
    hub = await house.hub()
    await house.ledger.commit(house.ledger.transaction())
    await caught_up(hub, house.ledger)
    await hub.stop()
    usurped = genesis_block(CHANNEL, [stranger.msp.config()], ["localhost:7050"], BATCH)
    house.ledger.replace(0, usurped.SerializeToString())
    house.ledger.orderer = stranger.identity("orderer", "orderer")
    await house.ledger.commit(house.ledger.transaction())

    before = failures("signature")
    await house.peer.stop()
    hub = await house.hub()
    # Known before the source is there.
    admits(hub.channel(), organisation.identity("user"))
    await house.peer.start()
    await refused(hub, "signature", "block 2 of the source is not signed", before)
    assert hub.channel().height == 2


async def test_start_at_the_newest_block_takes_its_configuration_from_the_source(
    house: House, organisation: Organisation
) -> None:
    ledger = house.ledger
    other = Organisation("Org2MSP")
    await ledger.commit(ledger.transaction())
    await ledger.configure([organisation, other], ledger.orderer)
    await ledger.commit(ledger.transaction())
    hub = await house.hub(SOURCE_START="newest")
    await caught_up(hub, ledger)
    config = hub.channel().config
    assert config is not None
    assert set(config.msps) == {organisation.mspid, "Org2MSP"}
    await hub.stop()
    assert [file.name for file in (house.folder / CONFIGURATIONS).iterdir()] == ["2.block"]
    before = failures("signature")
    hub = await house.hub()
    ledger.orderer = Organisation("Org3MSP").identity("orderer", "orderer")
    await ledger.commit(ledger.transaction())
    await refused(hub, "signature", "block 4 .* in block 2 demands", before)


async def test_start_at_a_newest_block_that_is_a_configuration(
    house: House, organisation: Organisation
) -> None:
    ledger = house.ledger
    await ledger.commit(ledger.transaction())
    await ledger.configure([organisation], ledger.orderer)
    hub = await house.hub(SOURCE_START="newest")
    await caught_up(hub, ledger)
    await ledger.commit(ledger.transaction())
    await caught_up(hub, ledger)
    hub.hub.check_sources()


async def test_newest_block_by_an_orderer_of_1_x_names_its_configuration_elsewhere(
    house: House, organisation: Organisation
) -> None:
    ledger = house.ledger
    await ledger.configure([organisation], ledger.orderer)
    block = await ledger.commit(ledger.transaction())
    header = blocks.header_bytes(block.header)
    signature_header = marshal(common_pb2.SignatureHeader(creator=ledger.orderer.serialized))
    signature = common_pb2.MetadataSignature(
        signature_header=signature_header, signature=ledger.orderer.sign(signature_header + header)
    )
    old = marshal(common_pb2.Metadata(signatures=[signature]))
    metadata.set_metadata(block, common_pb2.SIGNATURES, old)
    ledger.replace(2, block.SerializeToString())
    hub = await house.hub(SOURCE_START="newest")
    await caught_up(hub, ledger)
    await hub.stop()
    assert [file.name for file in (house.folder / CONFIGURATIONS).iterdir()] == ["1.block"]


async def test_configuration_of_another_number_than_was_asked_for_is_not_taken(
    house: House, organisation: Organisation
) -> None:
    """One from the future would judge no block until then."""
    ledger = house.ledger
    block = await ledger.configure([organisation], ledger.orderer)
    await ledger.commit(ledger.transaction())
    block.header.number = 1000
    ledger.replace(1, block.SerializeToString())
    before = failures("malformed")
    hub = await house.hub(SOURCE_START="newest")
    await eventually(lambda: failures("malformed") > before)
    assert "sent block 1000 where block 1 was asked for" in hub.channel().status.trouble
    assert hub.channel().height == 0


async def test_position_of_a_run_without_configurations_takes_the_sources(house: House) -> None:
    hub = await house.hub()
    await house.ledger.commit(house.ledger.transaction())
    await caught_up(hub, house.ledger)
    await hub.stop()
    for file in (house.folder / CONFIGURATIONS).iterdir():
        file.unlink()
    hub = await house.hub()
    await eventually(lambda: hub.channel().config is not None)
    await house.ledger.commit(house.ledger.transaction())
    await caught_up(hub, house.ledger)


async def test_channel_that_begins_with_no_configuration_is_not_read(house: House) -> None:
    ledger = Ledger(house.organisation)
    block = blocks.new_block(0, b"", [b"no configuration"])
    metadata.set_validation_codes(block, [transaction_pb2.VALID])
    await ledger.append(block)
    house.peer.ledger = ledger
    before = failures("configuration")
    hub = await house.hub()
    await refused(hub, "configuration", "block 0 of the source holds no configuration", before)
    assert hub.channel().height == 0


async def test_configuration_of_another_channel_is_not_taken(house: House) -> None:
    ledger = Ledger(house.organisation, "another")
    await ledger.commit()
    ledger.channel = CHANNEL
    house.peer.ledger = ledger
    before = failures("configuration")
    hub = await house.hub()
    await refused(hub, "configuration", "of the channel 'another' and not of 'mychannel'", before)


async def test_configuration_that_cannot_be_kept_is_told_at_the_start(house: House) -> None:
    hub = await house.hub()
    await caught_up(hub, house.ledger)
    await hub.stop()
    file = house.folder / CONFIGURATIONS / "0.block"
    file.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=rf"{file} is damaged .* restore it"):
        Hub(hub.hub._config, Material(house.folder, house.organisation.mspid))


@pytest.fixture
def told(organisation: Organisation) -> list[common_pb2.Block]:
    """Configuration blocks 0, 3 and 7."""
    made = []
    for number in (0, 3, 7):
        block = genesis_block(CHANNEL, [organisation.msp.config()], ["localhost:7050"], BATCH)
        block.header.number = number
        made.append(block)
    return made


def trusting(
    folder: Path, position: int | None, *begun: common_pb2.Block
) -> tuple[Trust, Configurations, list[ChannelConfig]]:
    changes: list[ChannelConfig] = []
    configurations = Configurations(folder, position)
    trust = Trust(CHANNEL, configurations, changes.append)
    for block in begun:
        trust.begin(block)
    return trust, configurations, changes


def test_block_of_the_past_is_judged_by_the_configuration_of_its_time(
    tmp_path: Path, told: list[common_pb2.Block]
) -> None:
    _, configurations, _ = trusting(tmp_path, None, *told)
    configurations.write()
    _, again, _ = trusting(tmp_path, 8)
    for known in (configurations, again):
        found = {number: known.before(number) for number in (0, 1, 3, 4, 7, 8, 900)}
        numbers = {number: each.number if each else None for number, each in found.items()}
        assert numbers == {0: None, 1: 0, 3: 0, 4: 3, 7: 3, 8: 7, 900: 7}


def test_configuration_after_the_position_comes_again(
    tmp_path: Path, told: list[common_pb2.Block]
) -> None:
    """As after a crash between the two writes."""
    _, configurations, _ = trusting(tmp_path, None, *told)
    configurations.write()
    trust, again, changes = trusting(tmp_path, 6)
    assert again.newest is not None
    assert again.newest.number == 3
    assert len(changes) == 1
    trust.move_on(told[2])
    assert again.newest.number == 7
    assert len(changes) == 2


def test_configurations_without_a_position_are_of_another_time(
    tmp_path: Path, told: list[common_pb2.Block]
) -> None:
    """As after an operator deleted the position to begin anew."""
    _, configurations, _ = trusting(tmp_path, None, *told)
    configurations.write()
    trust, again, changes = trusting(tmp_path, None)
    assert not trust.begun
    assert again.newest is None
    assert not changes
    assert not list(tmp_path.iterdir())


def test_configuration_that_was_passed_is_not_replaced_by_another(
    tmp_path: Path, told: list[common_pb2.Block], stranger: Organisation
) -> None:
    trust, _, _ = trusting(tmp_path, None, *told)
    trust.check(told[0])
    usurped = genesis_block(CHANNEL, [stranger.msp.config()], ["localhost:7050"], BATCH)
    with pytest.raises(Fork, match="block 0 of the source is not the configuration"):
        trust.check(usurped)


@pytest.mark.parametrize(
    ("not_signed", "believed"), [((), 3), ((1, 2), 3), ((3,), 2), ((2, 3), 1), ((1, 2, 3), 0)]
)
def test_signature_on_the_last_of_linked_blocks_is_word_for_those_before_it(
    organisation: Organisation,
    told: list[common_pb2.Block],
    tmp_path: Path,
    not_signed: tuple[int, ...],
    believed: int,
) -> None:
    """And where it is not there, each is as good as its own."""
    trust, _, _ = trusting(tmp_path, None, told[0])
    orderer = organisation.identity("orderer", "orderer")
    linked = [ChannelBlock(CHANNEL, b"", told[0])]
    for number in (1, 2, 3):
        block = blocks.new_block(number, linked[-1].hash, [b"envelope"])
        if number not in not_signed:
            blocks.sign_block(block, orderer, 0)
        linked.append(ChannelBlock(CHANNEL, b"", block))
    proven = trust.proven(linked[1:])
    assert [block.number for block in islice(proven, believed)] == [1, 2, 3][:believed]
    if believed == 3:
        assert next(proven, None) is None
    else:
        with pytest.raises(NotSigned, match=f"^block {believed + 1} of the source is not signed"):
            next(proven)


async def test_configuration_is_on_disk_before_a_position_after_it(
    tmp_path: Path, told: list[common_pb2.Block]
) -> None:
    checkpoint = Checkpoint(tmp_path, CHANNEL)
    trust = Trust(CHANNEL, checkpoint.configurations, lambda _: None)
    chain = Chain(CHANNEL, None)
    trust.begin(told[0])
    checkpoint.advance(chain.check(told[0]))
    await checkpoint.write()
    assert json.loads((tmp_path / "mychannel.json").read_bytes())["number"] == 0
    again = Checkpoint(tmp_path, CHANNEL)
    assert again.configurations.newest is not None
    assert again.configurations.newest.config.channel == CHANNEL


def admits(channel: Channel, identity: SigningIdentity) -> None:
    """Ask whether a member may read, and until when."""
    signed = SignedData(b"request", identity.serialized, identity.sign(b"request"))
    assert channel.admit(signed) == identity.expires_at


@pytest.fixture
def channel(organisation: Organisation) -> Channel:
    async def fetch(number: int) -> None:
        raise AssertionError

    made = Channel(
        CHANNEL,
        validated=True,
        height=0,
        recent=RecentBlocks(1),
        fetch=fetch,  # type: ignore[arg-type]
    )
    orgs = [organisation.msp.config(), Organisation("Org2MSP").msp.config()]
    made.config = open_config(genesis_block(CHANNEL, orgs, ["localhost:7050"], BATCH))
    return made


def test_members_of_the_channels_organisations_are_admitted_until_their_identity_ends(
    organisation: Organisation, channel: Channel
) -> None:
    admits(channel, organisation.identity("user"))
    admits(channel, organisation.identity("peer", "peer"))


def test_others_are_not_admitted(
    organisation: Organisation, stranger: Organisation, channel: Channel
) -> None:
    with pytest.raises(IdentityExpired):
        admits(channel, organisation.identity("user", minutes=-1))
    with pytest.raises(UntrustedIdentity):
        admits(channel, stranger.identity("user"))
    with pytest.raises(UnknownMSP, match="'Org3MSP'"):
        admits(channel, Organisation("Org3MSP").identity("user"))
    user, other = organisation.identity("user"), organisation.identity("other")
    with pytest.raises(BadSignature):
        channel.admit(SignedData(b"request", user.serialized, other.sign(b"request")))
    readers = channel.config
    assert readers is not None
    del readers.policies.groups["Application"].policies["Readers"]  # type: ignore[attr-defined]
    with pytest.raises(PolicyNotSatisfied, match="/Channel/Application/Readers"):
        admits(channel, user)
    channel.config = None
    with pytest.raises(PolicyError, match="has not come from the source yet; try again"):
        admits(channel, user)


def judged(trust: Trust, chain: Chain, block: common_pb2.Block) -> None:
    """Take a block as a source does."""
    position = chain.check(block)
    if trust.begun:
        trust.check(block)
        trust.move_on(block)
    else:
        trust.begin(block)
    chain.last = position


@pytest.mark.parametrize(
    ("file", "timeouts"),
    [
        ("mychannel-peer.blocks", {0: "500ms", 9: "400ms"}),
        ("mychannel-orderer.blocks", {0: "500ms"}),
    ],
)
def test_blocks_of_fabric_are_believed(tmp_path: Path, file: str, timeouts: dict[int, str]) -> None:
    trust, configurations, changes = trusting(tmp_path, None)
    chain = Chain(CHANNEL, None)
    found = fabric_blocks(f"fabric-2.5/{file}")
    for block in found:
        if file == "mychannel-peer.blocks":
            check_codes(block)
        judged(trust, chain, block)
    assert chain.last is not None
    assert chain.last.number == len(found) - 1
    assert set(changes[0].msps) == {"OrdererMSP", "Org1MSP", "Org2MSP"}
    assert [config.batch.timeout for config in changes] == list(timeouts.values())
    newest = configurations.newest
    assert newest is not None
    assert newest.number == max(timeouts) == metadata.last_config(found[-1])


def test_blocks_of_fabrics_bft_orderers_need_three_of_the_four(tmp_path: Path) -> None:
    first, *others = fabric_blocks("fabric-3.1/bftchannel-orderer.blocks")
    trust = Trust("bftchannel", Configurations(tmp_path, None), lambda _: None)
    chain = Chain("bftchannel", None)
    judged(trust, chain, first)
    for block in others:
        fewer = common_pb2.Block.FromString(block.SerializeToString())
        signatures = metadata.get_metadata(fewer, common_pb2.SIGNATURES)
        assert len(signatures.signatures) == 3
        signatures.signatures[0].CopyFrom(signatures.signatures[1])
        metadata.set_metadata(fewer, common_pb2.SIGNATURES, marshal(signatures))
        with pytest.raises(NotSigned):
            judged(trust, chain, fewer)
        judged(trust, chain, block)


def test_blocks_of_fabric_that_were_altered_are_not(tmp_path: Path) -> None:
    found = fabric_blocks("fabric-2.5/mychannel-peer.blocks")
    trust, _, _ = trusting(tmp_path, None)
    chain = Chain(CHANNEL, None)
    for block in found[:4]:
        judged(trust, chain, block)

    def refuses(error: type[ChainError], change: Callable[[common_pb2.Block], None]) -> None:
        block = common_pb2.Block.FromString(found[4].SerializeToString())
        change(block)
        with pytest.raises(error):
            judged(trust, chain, block)

    def shorten(block: common_pb2.Block) -> None:
        del block.data.data[:]
        block.header.data_hash = blocks.data_hash([])

    def steal_signature(block: common_pb2.Block) -> None:
        stolen = found[3].metadata.metadata[common_pb2.SIGNATURES]
        metadata.set_metadata(block, common_pb2.SIGNATURES, stolen)

    refuses(NotSigned, shorten)
    refuses(NotSigned, steal_signature)
    refuses(ChainError, lambda block: block.data.data.append(b"more"))
    judged(trust, chain, found[4])
    with pytest.raises(UnusableConfiguration, match="block 5"):
        trust.begin(found[5])


async def test_events_are_made_of_fabrics_blocks(house: House) -> None:
    """The channel of Fabric, from a source that has its blocks."""
    ledger = Ledger(house.organisation)
    for each in fabric_blocks("fabric-2.5/mychannel-peer.blocks"):
        await ledger.append(each)
    house.peer.ledger = ledger
    hub = await house.hub()
    await caught_up(hub, ledger)
    told = [await hub.channel().read(number) for number in range(ledger.height)]
    names = [event.name for block in told for event in block.events(CHAINCODE)]
    counts = {name: names.count(name) for name in names}
    reasons = [
        events_pb2.Event.FromString(event.message).rejection.error_msg.rpartition(": ")[2]
        for block in told
        for event in block.events(REJECTION)
    ]
    assert counts["größe"] == counts["counted"] == counts["hidden"] == counts["last"] == 1
    assert counts["created"] >= 7
    assert reasons == ["MVCC_READ_CONFLICT", "ENDORSEMENT_POLICY_FAILURE", "DUPLICATE_TXID"]
    for block in told:
        assert len(block.events(BLOCK)) == len(block.events(FILTEREDBLOCK)) == 1
    assert hub.channel().status.trouble == ""
    # Its own members only: those of the house are of other organisations with the same names.
    with pytest.raises(UntrustedIdentity):
        admits(hub.channel(), house.organisation.identity("user"))
