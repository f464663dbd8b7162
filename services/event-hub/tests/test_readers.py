"""Who hears of which channel."""

import grpc
import pytest
from deliver_peer import Ledger, Peer
from eventhouse import Client, House, Running, eventually, interest, sample
from organisation import Organisation

from event_hub.events import BLOCK, CHAINCODE, FILTEREDBLOCK, REJECTION
from selvedge_common.msp import SigningIdentity
from selvedge_protos.peer import events_pb2

PRIVATE = "private"


@pytest.fixture(scope="module")
def partner() -> Organisation:
    return Organisation("Org2MSP")


@pytest.fixture
async def private(house: House, organisation: Organisation, partner: Organisation) -> Ledger:
    """A channel of another organisation, which the peer serves and the hub reads as well."""
    ledger = Ledger(organisation, PRIVATE)
    await ledger.configure([partner], partner.identity("orderer", "orderer"))
    house.peer.ledgers[PRIVATE] = ledger
    return ledger


async def hub_of_both(house: House) -> Running:
    hub = await house.hub(SOURCE_CHANNELS=f"mychannel,{PRIVATE}")
    await has_read(house.ledger)
    await has_read(house.peer.ledgers[PRIVATE])
    return hub


async def has_read(ledger: Ledger) -> None:
    await eventually(
        lambda: sample("eventhub_source_height", channel=ledger.channel) == ledger.height
    )


async def commit(ledger: Ledger, name: str) -> None:
    await ledger.commit(ledger.transaction(event=name))
    await has_read(ledger)


async def forbidden(client: Client, channel: str = PRIVATE) -> None:
    """The client's stream ends, since it may not read the channel."""
    before = sample("eventhub_consumers_closed_total", reason="CHANNEL_FORBIDDEN")
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert sentence.startswith("CHANNEL_FORBIDDEN: ")
    assert channel in sentence
    await eventually(lambda: sample("eventhub_consumers", kind="CHAT") == 0)
    assert sample("eventhub_consumers_closed_total", reason="CHANNEL_FORBIDDEN") >= before
    assert sample("eventhub_interests") == 0


async def say_register(client: Client, *interests: events_pb2.Interest) -> None:
    await client.say(events_pb2.Event(register=events_pb2.Register(events=interests)))


async def test_interest_in_a_channel_that_one_may_not_read_is_refused(
    house: House, private: Ledger
) -> None:
    hub = await hub_of_both(house)
    client = house.client(hub)
    await client.register(interest(BLOCK, on="mychannel"))
    before = sample(
        "eventhub_registrations_total", operation="register", result="channel_forbidden"
    )
    await say_register(client, interest(BLOCK, on=PRIVATE))
    await forbidden(client)
    after = sample("eventhub_registrations_total", operation="register", result="channel_forbidden")
    assert after == before + 1


async def test_interest_in_every_channel_brings_those_that_one_may_read(
    house: House, private: Ledger
) -> None:
    hub = await hub_of_both(house)
    client = house.client(hub)
    await client.register(interest(CHAINCODE, "cc"), interest(FILTEREDBLOCK))
    await commit(private, "secret")
    await commit(house.ledger, "open")
    assert (await client.hear()).chaincode_event.event_name == "open"
    assert (await client.hear()).filtered_block.channel_id == "mychannel"
    # By name it is refused then as well, though it was judged before.
    await say_register(client, interest(BLOCK, on=PRIVATE))
    await forbidden(client)


async def test_start_block_in_a_channel_that_one_may_not_read_is_refused(
    house: House, private: Ledger
) -> None:
    hub = await hub_of_both(house)
    client = house.client(hub, start=f"mychannel=0,{PRIVATE}=0")
    await client.confirmed(events_pb2.Event())
    await say_register(client, interest(BLOCK))
    await forbidden(client)


async def test_reader_that_the_channel_takes_in_hears_of_it_from_then_on(
    house: House, private: Ledger, organisation: Organisation, partner: Organisation
) -> None:
    hub = await hub_of_both(house)
    client = house.client(hub)
    await client.register(interest(CHAINCODE, "cc"))
    await commit(private, "before")
    await private.configure([organisation, partner], partner.identity("orderer", "orderer"))
    await commit(private, "after")
    await commit(private, "later")
    assert (await client.hear()).chaincode_event.event_name == "after"
    assert (await client.hear()).chaincode_event.event_name == "later"
    await client.register(interest(BLOCK, on=PRIVATE))


async def test_reader_that_the_channel_puts_out_hears_no_more_of_it(
    house: House, organisation: Organisation, partner: Organisation
) -> None:
    hub = await house.hub()
    await has_read(house.ledger)
    named, every = house.client(hub), house.client(hub)
    await named.register(interest(CHAINCODE, "cc", on="mychannel"))
    await every.register(interest(CHAINCODE, "cc"))
    await commit(house.ledger, "before")
    await house.ledger.configure([partner], partner.identity("orderer", "orderer"))
    await commit(house.ledger, "after")
    for client in (named, every):
        assert (await client.hear()).chaincode_event.event_name == "before"
    code, sentence = await named.refused()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert sentence.startswith("CHANNEL_FORBIDDEN: ")
    await every.confirmed(events_pb2.Event())
    assert sample("eventhub_consumers", kind="CHAT") == 1


async def test_replay_ends_when_the_channel_puts_its_reader_out(
    house: House, partner: Organisation
) -> None:
    """Though no further block begins, and the past was open to it when it began."""
    hub = await house.hub()
    for number in range(20):
        ledger = house.ledger
        await ledger.commit(ledger.transaction(event=f"{number}", payload=b"x" * 300_000))
    await has_read(house.ledger)
    narrow = (("grpc.http2.lookahead_bytes", 65536), ("grpc.http2.bdp_probe", 0))
    client = house.client(hub, options=narrow, start="mychannel=0")
    await client.register(interest(CHAINCODE, "cc"))
    await client.hear()
    await house.ledger.configure([partner], partner.identity("orderer", "orderer"))
    await has_read(house.ledger)
    await forbidden(client, "mychannel")


async def put_out(house: House, organisation: Organisation) -> SigningIdentity:
    """A member of the hub's organisation that the channel takes for none."""
    identity = organisation.identity("former")
    await house.ledger.configure([organisation.without(identity)], house.ledger.orderer)
    return identity


async def test_who_speaks_by_another_identity_is_judged_by_that(
    house: House, organisation: Organisation
) -> None:
    former = await put_out(house, organisation)
    hub = await house.hub()
    await has_read(house.ledger)
    client = house.client(hub)
    await client.register(interest(CHAINCODE, "cc"))
    await commit(house.ledger, "reader")
    assert (await client.hear()).chaincode_event.event_name == "reader"
    user, client.identity = client.identity, former
    await client.confirmed(events_pb2.Event())
    await commit(house.ledger, "no reader")
    client.identity = user
    await client.confirmed(events_pb2.Event())
    await commit(house.ledger, "reader again")
    assert (await client.hear()).chaincode_event.event_name == "reader again"


async def test_who_names_a_channel_and_then_speaks_as_no_reader_is_refused(
    house: House, organisation: Organisation
) -> None:
    former = await put_out(house, organisation)
    hub = await house.hub()
    await has_read(house.ledger)
    client = house.client(hub)
    await client.register(interest(BLOCK, on="mychannel"))
    client.identity = former
    await client.say(events_pb2.Event())
    await forbidden(client, "mychannel")


async def test_membership_decides_until_the_configuration_is_known(
    house: House, organisation: Organisation
) -> None:
    former = await put_out(house, organisation)
    await house.peer.stop()
    hub = await house.hub()
    client = house.client(hub, former)
    await client.register(interest(BLOCK, on="mychannel"))
    await house.peer.start()
    await has_read(house.ledger)
    await house.ledger.commit()
    await forbidden(client, "mychannel")


@pytest.mark.parametrize("kind", [FILTEREDBLOCK, CHAINCODE, REJECTION])
async def test_what_an_orderer_cannot_say_is_refused_with_the_reason(
    house: House, organisation: Organisation, kind: int
) -> None:
    orderer = Peer(organisation, house.ledger, kind="orderer")
    await orderer.start()
    try:
        hub = await house.hub(SOURCE_KIND="orderer", SOURCE_ADDRESSES=orderer.address)
        await has_read(house.ledger)
        client = house.client(hub)
        await client.register(interest(BLOCK, on="mychannel"), interest(kind, "cc"))
        await say_register(client, interest(kind, "cc", on="mychannel"))
        code, sentence = await client.refused()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert sentence.startswith("NOT_VALIDATED: ")
        assert "from an orderer" in sentence
    finally:
        await orderer.stop()
