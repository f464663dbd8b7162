"""Where blocks come from: several channels and sources, several addresses, peers and orderers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from deliver_peer import Ledger, Peer
from eventhouse import Client, House, Running, eventually, interest, sample
from organisation import Organisation, pem_key

from event_hub import config as configuration
from event_hub.events import BLOCK, FILTEREDBLOCK
from event_hub.sources.addresses import Addresses
from event_hub.sources.deliver import SourceUnfit
from selvedge_common.config import ConfigError
from selvedge_common.protoutil import metadata


@pytest.fixture(scope="session")
def org2() -> Organisation:
    return Organisation("Org2MSP")


@pytest.fixture
async def other(organisation: Organisation, house: House) -> AsyncIterator[Peer]:
    """A second peer, with the same ledger."""
    peer = Peer(organisation, house.ledger)
    await peer.start()
    yield peer
    await peer.stop()


async def filtered(client: Client, channel: str, count: int) -> list[int]:
    """The next blocks of a channel."""
    found: list[int] = []
    while len(found) < count:
        block = (await client.hear()).filtered_block
        if block.channel_id == channel:
            found.append(block.number)
    return found


def failures(cause: str, channel: str = "mychannel") -> float:
    return sample("eventhub_source_failures_total", channel=channel, cause=cause)


async def caught_up(hub: Running, ledger: Ledger) -> None:
    await eventually(lambda: hub.channel(ledger.channel).height == ledger.height)


async def test_several_channels_come_from_one_peer(
    house: House, organisation: Organisation
) -> None:
    second = Ledger(organisation, "second-channel")
    await second.commit()
    house.peer.ledgers[second.channel] = second
    hub = await house.hub(SOURCE_CHANNELS="mychannel,second-channel")
    await caught_up(hub, house.ledger)
    await caught_up(hub, second)
    client = house.client(hub)
    await client.register(interest(FILTEREDBLOCK, on="second-channel"))
    for _ in range(3):
        await house.ledger.commit(house.ledger.transaction())
        await second.commit(second.transaction())
    assert await filtered(client, "second-channel", 3) == [1, 2, 3]
    await caught_up(hub, house.ledger)
    await caught_up(hub, second)
    kept = house.folder / "checkpoints/configurations"
    await eventually((kept / "second-channel/0.block").is_file)
    await eventually((kept / "mychannel/0.block").is_file)


async def test_two_sources_are_shown_what_each_wants(
    house: House, org2: Organisation, tmp_path: Path
) -> None:
    """A peer of another organisation: roots, client certificate and identity are that one's."""
    second = Ledger(org2, "second-channel")
    await second.commit()
    peer = Peer(org2, second)
    await peer.start()
    guest = tmp_path / "guest"
    org2.write_material(guest)
    hub = await house.hub(
        {
            "addresses": [peer.address],
            "channels": ["second-channel"],
            "tls": {
                "rootCAs": [str(guest / "tls/ca.crt")],
                "certificate": str(guest / "tls/client.crt"),
                "key": str(guest / "tls/client.key"),
            },
            "msp": {"id": "Org2MSP", "folder": str(guest / "msp")},
        }
    )
    try:
        await second.commit(second.transaction())
        await house.ledger.commit(house.ledger.transaction())
        await caught_up(hub, second)
        await caught_up(hub, house.ledger)
        assert hub.channel("second-channel").status.address == peer.address
        assert hub.channel("mychannel").status.address == house.peer.address
        config = hub.channel("second-channel").config
        assert config is not None
        assert set(config.msps) == {"Org2MSP"}
    finally:
        await peer.stop()


async def test_peer_under_another_name_is_read_by_that_name(house: House) -> None:
    listening = Peer(house.organisation, house.ledger, host="127.0.0.2")
    await listening.start()
    try:
        before = failures("UNAVAILABLE")
        hub = await house.hub(SOURCE_ADDRESSES=listening.address)
        await eventually(lambda: failures("UNAVAILABLE") > before)
        assert hub.channel().height == 0
        await hub.stop()
        hub = await house.hub(
            SOURCE_ADDRESSES=listening.address, SOURCE_TLS_SERVERNAMEOVERRIDE="localhost"
        )
        await caught_up(hub, house.ledger)
    finally:
        await listening.stop()


async def test_peer_without_tls_is_read_without(house: House) -> None:
    peer = Peer(house.organisation, house.ledger, plaintext=True)
    await peer.start()
    try:
        hub = await house.hub(SOURCE_ADDRESSES=peer.address, SOURCE_TLS_ENABLED="false")
        await caught_up(hub, house.ledger)
    finally:
        await peer.stop()


async def test_next_address_goes_on_where_the_one_that_left_was(house: House, other: Peer) -> None:
    hub = await house.hub(SOURCE_ADDRESSES=f"{house.peer.address},{other.address}")
    await caught_up(hub, house.ledger)
    client = house.client(hub)
    await client.register(interest(FILTEREDBLOCK))
    status = hub.channel().status
    assert (status.address, status.newest, status.trouble) == (house.peer.address, 0, "")
    for _ in range(3):
        await house.ledger.commit(house.ledger.transaction())
    await caught_up(hub, house.ledger)
    await house.peer.stop()
    for _ in range(3):
        await house.ledger.commit(house.ledger.transaction())
    assert await filtered(client, "mychannel", 6) == [1, 2, 3, 4, 5, 6]
    await eventually(lambda: status.newest == 6)
    assert (status.address, status.newest, status.trouble) == (other.address, 6, "")
    # And back again, for the one that failed is not forgotten.
    await house.peer.start()
    await other.stop()
    await house.ledger.commit(house.ledger.transaction())
    await caught_up(hub, house.ledger)
    assert status.address == house.peer.address


async def test_trouble_says_why_nothing_is_read(house: House) -> None:
    hub = await house.hub()
    await caught_up(hub, house.ledger)
    status = hub.channel().status
    assert status.trouble == ""
    await house.peer.stop()
    await eventually(lambda: house.peer.address in status.trouble)
    assert status.address == ""
    assert (status.newest, status.behind(hub.channel().height)) == (0, 0)
    await house.peer.start()
    await eventually(lambda: status.address == house.peer.address)
    assert status.trouble == ""


def test_failed_addresses_come_after_the_others_and_after_growing_pauses() -> None:
    now = 100.0
    addresses = Addresses(["a:1", "b:1", "c:1"], 1.0, 4.0, lambda: now)
    assert addresses.next() == ("a:1", 0)
    addresses.failed("a:1")
    assert addresses.next() == ("b:1", 0)
    addresses.failed("b:1")
    addresses.stands("c:1")
    assert addresses.next() == ("c:1", 0)
    addresses.failed("c:1")
    name, pause = addresses.next()
    assert 0.5 <= pause <= 1.0
    now += 1.0
    # All may be tried again: in the order in which their pauses ended.
    found = {addresses.next(without=gone)[0] for gone in ([], [name])}
    assert len(found) == 2
    for longest in (2.0, 4.0, 4.0):
        addresses.failed("a:1")
        address, pause = addresses.next(without=["b:1", "c:1"])
        assert address == "a:1"
        assert longest / 2 <= pause <= longest
    addresses.stands("a:1")
    addresses.failed("a:1")
    assert addresses.next(without=["b:1", "c:1"])[1] <= 1.0


def test_address_that_is_preferred_is_taken_once_it_may_be() -> None:
    now = 100.0
    addresses = Addresses(["a:1", "b:1"], 1.0, 4.0, lambda: now)
    assert addresses.next(first="b:1") == ("b:1", 0)
    addresses.failed("b:1")
    assert addresses.next(first="b:1") == ("a:1", 0)
    now += 1.0
    assert addresses.next(first="b:1") == ("b:1", 0)


async def test_orderer_gives_blocks_without_verdicts(
    house: House, organisation: Organisation
) -> None:
    ledger = house.ledger
    orderer = Peer(organisation, ledger, kind="orderer")
    await orderer.start()
    try:
        hub = await house.hub(SOURCE_KIND="orderer", SOURCE_ADDRESSES=orderer.address)
        await caught_up(hub, ledger)
        client = house.client(hub)
        await client.register(interest(BLOCK))
        await ledger.commit(ledger.transaction())
        event = await client.hear()
        assert event.block.header.number == 1
        assert set(metadata.validation_codes(event.block)) == {254}
        channel = hub.channel()
        assert not channel.validated
        assert channel.config is not None
        block = await channel.read(1)
        assert not block.validated
        assert block.events(BLOCK)
        assert not block.events(FILTEREDBLOCK)
    finally:
        await orderer.stop()


async def test_renewed_certificate_is_used_for_the_next_connection(
    house: House, stranger: Organisation
) -> None:
    hub = await house.hub()
    await caught_up(hub, house.ledger)
    files = [house.folder / "tls" / name for name in ("client.crt", "client.key")]
    own = [file.read_bytes() for file in files]
    for file, content in zip(files, stranger.tls_pair("client"), strict=True):
        file.write_bytes(content)
    # The connection that stands is not touched.
    await house.ledger.commit(house.ledger.transaction())
    await caught_up(hub, house.ledger)
    await house.peer.stop()
    await house.peer.start()
    before = failures("UNAVAILABLE")
    await eventually(lambda: failures("UNAVAILABLE") > before + 2)
    for file, content in zip(files, own, strict=True):
        file.write_bytes(content)
    await house.ledger.commit(house.ledger.transaction())
    await caught_up(hub, house.ledger)


@pytest.mark.parametrize(
    ("setting", "content", "sentence"),
    [
        ("rootCAs", None, "source.tls.rootCAs: {} cannot be read: No such file or directory"),
        ("rootCAs", b"none", "source.tls.rootCAs: {} holds no certificate that can be read"),
        ("certificate", b"none", "source.tls.certificate: {} holds no certificate"),
        ("key", b"none", "source.tls.key: {} holds no private key that can be read"),
        ("key", "another", "source.tls.key: {} is not the key of the certificate "),
    ],
)
async def test_file_that_cannot_be_used_is_named_with_its_key(
    house: House, setting: str, content: bytes | str | None, sentence: str
) -> None:
    file = house.folder / "broken.pem"
    if content == "another":
        content = pem_key(house.organisation.tls.issue("client")[1])
    if isinstance(content, bytes):
        file.write_bytes(content)
    files = {
        "rootCAs": house.folder / "tls/ca.crt",
        "certificate": house.folder / "tls/client.crt",
        "key": house.folder / "tls/client.key",
        setting: file,
    }
    before = failures("credentials")
    hub = await house.hub(
        **{f"SOURCE_TLS_{name.upper()}": str(path) for name, path in files.items()}
    )
    await eventually(lambda: failures("credentials") > before)
    assert sentence.format(file) in hub.channel().status.trouble


async def test_source_that_does_not_admit_the_hub_says_what_to_check(
    house: House, org2: Organisation
) -> None:
    folder = house.folder / "guest"
    org2.write_material(folder)
    before = failures("FORBIDDEN")
    hub = await house.hub(SOURCE_MSP_ID="Org2MSP", SOURCE_MSP_FOLDER=str(folder / "msp"))
    await eventually(lambda: failures("FORBIDDEN") > before)
    trouble = hub.channel().status.trouble
    assert "FORBIDDEN" in trouble
    assert "the identity of source.msp" in trouble
    await hub.stop()
    # A source that refuses is waited for: it is not the hub that is unwell.
    hub.hub.check_sources()


async def test_two_sources_with_one_history_wrong_leave_the_other_alone(
    house: House, organisation: Organisation
) -> None:
    second = Ledger(organisation, "second-channel")
    await second.commit()
    peer = Peer(organisation, second)
    await peer.start()
    try:
        hub = await house.hub({"addresses": [peer.address], "channels": ["second-channel"]})
        await caught_up(hub, second)
        block = await second.commit(second.transaction())
        await caught_up(hub, second)
        before = failures("gap", "second-channel")
        block.header.number = 7
        await second.append(block)
        await eventually(lambda: failures("gap", "second-channel") > before)
        with pytest.raises(SourceUnfit, match=r"sent block 7 after block 1"):
            hub.hub.check_sources()
        assert "sent block 7" in hub.channel("second-channel").status.trouble
        await house.ledger.commit(house.ledger.transaction())
        await caught_up(hub, house.ledger)
        assert hub.channel("mychannel").status.trouble == ""
        assert hub.channel("second-channel").height == 2
    finally:
        await peer.stop()


def read(tmp_path: Path, text: str, **environ: str) -> configuration.Config:
    file = tmp_path / "hub.yaml"
    file.write_text(text)
    return configuration.read(file, environ)


def test_further_sources_are_like_the_first_where_they_say_nothing(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        "source: {start: newest, tls: {rootCAs: [/roots.pem]}}\n"
        "sources:\n"
        "- {addresses: [peer:7051], channels: [second], tls: {serverNameOverride: peer0}}\n"
        "- {kind: orderer, channels: [third, fourth], msp: {id: Org2MSP, folder: /msp}}\n",
        CORE_SOURCE_ADDRESSES="first:7051",
    )
    first, second, third = config.all_sources.values()
    assert list(config.all_sources) == ["source", "sources[0]", "sources[1]"]
    assert first.channels == ["mychannel"]
    assert second.start == third.start == "newest"
    assert second.addresses == ["peer:7051"]
    assert second.tls.root_cas == [Path("/roots.pem")]
    assert second.tls.server_name_override == "peer0"
    assert (third.kind, third.addresses) == ("orderer", ["first:7051"])
    assert third.msp == configuration.SourceMSP("Org2MSP", Path("/msp"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "sources: [{addresses: [a:1]}]",
            "sources[0].channels has 'mychannel', and source.channels has it too",
        ),
        (
            "sources: [{channels: [a]}, {channels: [b]}, {channels: [c, a]}]",
            "sources[2].channels has 'a', and sources[0].channels has it too",
        ),
        ("sources: [{channels: []}]", "sources[0]: channels is empty"),
        ("sources: [{channels: [a, a]}]", "sources[0]: channels names a channel twice"),
        ("sources: [{channels: [../up]}]", "sources[0]: channels has '../up'"),
        ("sources: [{channels: [a], addresses: [b]}]", "sources[0].addresses[0] is 'b', but must"),
        ("source: {addresses: [a:1, a:1]}", "source: addresses names an address twice"),
        ("source: {kind: chaincode}", "source.kind is 'chaincode', but must be one of peer, ord"),
        ("source: {tls: false}", "source.tls must be a section of keys, not False"),
        ("source: {tls: {certificate: a}}", "source.tls: certificate and key go together"),
        ("source: {tls: {key: a}}", "source.tls: certificate and key go together"),
        ("source: {msp: {id: a}}", "source.msp: id and folder go together"),
        ("source: {msp: {folder: a}}", "source.msp: id and folder go together"),
        (
            "sources: [{channels: [a], msp: {folder: b}}]",
            "sources[0].msp: id and folder go together",
        ),
        ("sources: [{chanels: [a]}]", "unknown key sources[0].chanels; perhaps channels was"),
        ("sources: [{channels: [a], historyBytes: 1}]", "sources[0].historyBytes is 1, but must"),
    ],
)
def test_sources_without_sense_are_refused_by_name(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text)
    assert sentence in str(refused.value)
    assert str(tmp_path) in str(refused.value)
