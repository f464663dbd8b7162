"""Each validation code that is given for a transaction itself, for its own reason."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from testchannel import (
    AGE,
    BATCH,
    CHAINCODE,
    CHANNEL,
    Network,
    Organisation,
    results_of,
    validator_of,
    writes,
)

from chaincode_support.ledger.validation import MAX_ENDORSEMENTS
from selvedge_common.msp import MSP, SigningIdentity
from selvedge_common.protoutil import config_block, proposals
from selvedge_common.protoutil.transactions import open_transaction
from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2 as kv
from selvedge_protos.peer import (
    chaincode_event_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

Change = Callable[[common_pb2.Payload], None]

_PART = rwset_pb2.NsReadWriteSet(namespace=CHAINCODE)
TWICE = rwset_pb2.TxReadWriteSet(ns_rwset=[_PART, _PART]).SerializeToString()


def resigned(network: Network, change: Change) -> bytes:
    """A sound transaction, changed, and signed again by its creator."""
    envelope = common_pb2.Envelope.FromString(network.transaction()[1])
    payload = common_pb2.Payload.FromString(envelope.payload)
    change(payload)
    signed = payload.SerializeToString()
    return common_pb2.Envelope(
        payload=signed, signature=network.client.sign(signed)
    ).SerializeToString()


def with_header(network: Network, **fields: Any) -> bytes:
    def change(payload: common_pb2.Payload) -> None:
        header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        for name, value in fields.items():
            setattr(header, name, value)
        payload.header.channel_header = header.SerializeToString()

    return resigned(network, change)


def tampered(network: Network) -> bytes:
    envelope = common_pb2.Envelope.FromString(network.transaction(writes(a=b"1"))[1])
    envelope.payload = envelope.payload.replace(CHAINCODE.encode(), b"cisab")
    return envelope.SerializeToString()


def endorsed_often(network: Network, times: int) -> bytes:
    def change(payload: common_pb2.Payload) -> None:
        transaction = transaction_pb2.Transaction.FromString(payload.data)
        action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
        action.action.endorsements.extend([action.action.endorsements[0]] * (times - 1))
        transaction.actions[0].payload = action.SerializeToString()
        payload.data = transaction.SerializeToString()

    return resigned(network, change)


def tampered_endorsement(network: Network) -> bytes:
    def change(payload: common_pb2.Payload) -> None:
        transaction = transaction_pb2.Transaction.FromString(payload.data)
        action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
        (endorsement,) = action.action.endorsements
        endorsement.signature = network.peer.sign(b"something else")
        transaction.actions[0].payload = action.SerializeToString()
        payload.data = transaction.SerializeToString()

    return resigned(network, change)


def endorsed(network: Network, results: bytes, **how: Any) -> bytes:
    return network.endorse(network.propose(b"x"), results, **how).SerializeToString()


HeaderChange = Callable[[common_pb2.ChannelHeader], None]
ActionChange = Callable[[proposal_pb2.ChaincodeAction], None]


def soundly(
    network: Network,
    header: HeaderChange = lambda header: None,
    action: ActionChange = lambda action: None,
) -> bytes:
    """Changed before anybody hashed or signed: only the changes themselves are at fault."""
    proposal, txid, client = network.propose(b"x")
    headers = common_pb2.Header.FromString(proposal.header)
    channel_header = common_pb2.ChannelHeader.FromString(headers.channel_header)
    header(channel_header)
    headers.channel_header = channel_header.SerializeToString()

    envelope = network.endorse((proposal, txid, client), b"")
    payload = common_pb2.Payload.FromString(envelope.payload)
    payload.header.CopyFrom(headers)
    transaction = transaction_pb2.Transaction.FromString(payload.data)
    of_action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    endorsed = proposal_response_pb2.ProposalResponsePayload.FromString(
        of_action.action.proposal_response_payload
    )
    chaincode_action = proposal_pb2.ChaincodeAction.FromString(endorsed.extension)
    action(chaincode_action)
    endorsed.extension = chaincode_action.SerializeToString()
    endorsed.proposal_hash = proposals.proposal_hash(
        headers.channel_header, headers.signature_header, of_action.chaincode_proposal_payload
    )
    of_action.action.proposal_response_payload = endorsed.SerializeToString()
    (endorsement,) = of_action.action.endorsements
    endorsement.signature = network.peer.sign(
        of_action.action.proposal_response_payload + network.peer.serialized
    )
    transaction.actions[0].payload = of_action.SerializeToString()
    payload.data = transaction.SerializeToString()
    signed = payload.SerializeToString()
    return common_pb2.Envelope(payload=signed, signature=client.sign(signed)).SerializeToString()


def extension(named: str | None) -> HeaderChange:
    """The header extension names this chaincode; with None it has no chaincode id at all."""
    changed = proposal_pb2.ChaincodeHeaderExtension()
    if named is not None:
        changed.chaincode_id.SetInParent()
        changed.chaincode_id.name = named
    return lambda header: setattr(header, "extension", changed.SerializeToString())


def garbled(header: common_pb2.ChannelHeader) -> None:
    header.extension = b"\xff"


def emptied(action: proposal_pb2.ChaincodeAction) -> None:
    action.Clear()


def changed(
    *,
    results: bytes = b"",
    events: bytes = b"",
    nameless: bool = False,
    name: str = CHAINCODE,
    version: str = "1.0",
) -> ActionChange:
    def change(action: proposal_pb2.ChaincodeAction) -> None:
        action.results, action.events = results, events
        action.chaincode_id.name, action.chaincode_id.version = name, version
        if nameless:
            action.ClearField("chaincode_id")

    return change


BAD = b"\xff\xff"


# Each row has the faults of the following rows too: the code shows which Fabric finds first.
@pytest.mark.parametrize(
    ("code", "header", "action"),
    [
        ("BAD_HEADER_EXTENSION", garbled, emptied),
        ("BAD_RESPONSE_PAYLOAD", extension(None), emptied),
        ("BAD_RWSET", extension(None), changed(results=BAD, events=BAD, nameless=True)),
        ("INVALID_OTHER_REASON", extension(None), changed(events=BAD, version="")),
        ("INVALID_OTHER_REASON", extension(""), changed(events=BAD, nameless=True)),
        ("INVALID_CHAINCODE", extension(""), changed(events=BAD, version="")),
        ("INVALID_CHAINCODE", extension("another"), changed(events=BAD, version="")),
        ("INVALID_CHAINCODE", extension(CHAINCODE), changed(events=BAD, version="")),
        ("INVALID_OTHER_REASON", extension(CHAINCODE), changed(events=BAD, results=TWICE)),
        ("ILLEGAL_WRITESET", extension(CHAINCODE), changed(results=TWICE)),
        ("VALID", extension(CHAINCODE), changed()),
    ],
)
async def test_faults_of_the_action_are_found_in_fabrics_order(
    code: str, header: HeaderChange, action: ActionChange, chain: Any
) -> None:
    """The creator signed all of these, so their ids are taken: a second one is a duplicate."""
    envelope = soundly(chain.network, header, action)
    assert await chain.add(envelope) == [code]
    assert await chain.add(envelope) == ["DUPLICATE_TXID"]


async def test_another_channels_transaction_is_that_before_it_is_a_duplicate(chain: Any) -> None:
    envelope = chain.network.endorse(chain.network.propose(channel="yours"), b"")
    for _ in range(2):
        assert await chain.add(envelope.SerializeToString()) == ["TARGET_CHAIN_NOT_FOUND"]


def admin(network: Network) -> SigningIdentity:
    return network.organisation.issue("admin", "admin")


def older_than_its_authority(network: Network, role: str) -> SigningIdentity:
    return network.organisation.issue(role, "old", age=2 * AGE)


def by(network: Network, client: SigningIdentity) -> bytes:
    return network.endorse(network.propose(b"x", client=client), b"").SerializeToString()


def nameless_configuration(network: Network) -> bytes:
    """As block 0's, in a block that is not 0."""
    (envelope,) = network.genesis().data.data
    assert not open_transaction(envelope).creator
    return envelope


def event_of(name: str) -> bytes:
    return chaincode_event_pb2.ChaincodeEvent(chaincode_id=name, event_name="e").SerializeToString()


def private(network: Network, hashed: bytes = b"") -> bytes:
    part = rwset_pb2.NsReadWriteSet(namespace=CHAINCODE)
    part.collection_hashed_rwset.add(collection_name="secret", hashed_rwset=hashed)
    return endorsed(network, rwset_pb2.TxReadWriteSet(ns_rwset=[part]).SerializeToString())


SYSTEM_READ = results_of({"lscc": kv.KVRWSet(reads=[kv.KVRead(key="a")])})
CALLEE = results_of(
    {
        CHAINCODE: kv.KVRWSet(writes=[kv.KVWrite(key="a", value=b"1")]),
        "callee": kv.KVRWSet(writes=[kv.KVWrite(key="a", value=b"1")]),
    }
)


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("VALID", lambda n: n.transaction(writes(a=b"1"))[1]),
        ("VALID", lambda n: endorsed(n, b"", events=event_of(CHAINCODE))),
        ("VALID", lambda n: endorsed(n, SYSTEM_READ)),
        ("VALID", lambda n: endorsed(n, CALLEE)),
        ("INVALID_OTHER_REASON", lambda n: b"\xff\xff"),
        ("BAD_COMMON_HEADER", lambda n: b""),
        ("BAD_PAYLOAD", lambda n: common_pb2.Envelope(payload=b"\xff").SerializeToString()),
        ("BAD_COMMON_HEADER", lambda n: with_header(n, epoch=1)),
        ("BAD_COMMON_HEADER", lambda n: with_header(n, type=77)),
        ("BAD_COMMON_HEADER", lambda n: with_header(n, channel_id="")),
        ("BAD_COMMON_HEADER", nameless_configuration),
        ("UNSUPPORTED_TX_PAYLOAD", lambda n: with_header(n, type=common_pb2.CONFIG_UPDATE)),
        ("INVALID_CONFIG_TRANSACTION", lambda n: with_header(n, type=common_pb2.CONFIG)),
        ("TARGET_CHAIN_NOT_FOUND", lambda n: n.endorse(n.propose(channel="yours"), b"")),
        ("BAD_CREATOR_SIGNATURE", tampered),
        ("BAD_CREATOR_SIGNATURE", lambda n: by(n, n.stranger)),
        ("BAD_CREATOR_SIGNATURE", lambda n: by(n, older_than_its_authority(n, "client"))),
        ("BAD_PROPOSAL_TXID", lambda n: with_header(n, tx_id="12" * 32)),
        ("INVALID_ENDORSER_TRANSACTION", lambda n: with_header(n, version=7)),
        ("ENDORSEMENT_POLICY_FAILURE", tampered_endorsement),
        ("ENDORSEMENT_POLICY_FAILURE", lambda n: endorsed(n, b"", endorsers=[n.stranger])),
        ("ENDORSEMENT_POLICY_FAILURE", lambda n: endorsed(n, b"", endorsers=[n.client])),
        ("ENDORSEMENT_POLICY_FAILURE", lambda n: endorsed(n, b"", endorsers=[n.orderer])),
        ("ENDORSEMENT_POLICY_FAILURE", lambda n: endorsed(n, b"", endorsers=[admin(n)])),
        (
            "ENDORSEMENT_POLICY_FAILURE",
            lambda n: endorsed(n, b"", endorsers=[older_than_its_authority(n, "peer")]),
        ),
        ("VALID", lambda n: endorsed_often(n, MAX_ENDORSEMENTS)),
        ("ENDORSEMENT_POLICY_FAILURE", lambda n: endorsed_often(n, MAX_ENDORSEMENTS + 1)),
        ("BAD_RWSET", lambda n: endorsed(n, b"\xff\xff")),
        ("BAD_RWSET", lambda n: private(n, b"\xff\xff")),
        ("ILLEGAL_WRITESET", lambda n: endorsed(n, TWICE)),
        ("INVALID_WRITESET", private),
        ("INVALID_OTHER_REASON", lambda n: endorsed(n, b"", events=event_of("another"))),
    ],
)
async def test_code(code: str, make: Callable[[Network], Any], chain: Any) -> None:
    made = make(chain.network)
    envelope = made if isinstance(made, bytes) else made.SerializeToString()
    assert await chain.add(envelope) == [code]


async def test_the_configuration_says_who_must_endorse(chain: Any) -> None:
    """Two organisations: a majority is both, and one's peer, however often, is one."""
    network = chain.network
    other = Organisation("Org2MSP")
    block = config_block.genesis_block(
        CHANNEL, [network.organisation.msp.config(), other.msp.config()], ["localhost:7050"], BATCH
    )
    chain.validator.close()
    chain.validator = validator_of(config_block.open_config(block))

    def by_these(*endorsers: SigningIdentity) -> bytes:
        return endorsed(network, b"", endorsers=endorsers)

    second = network.organisation.issue("peer", "peer1")
    theirs = other.issue("peer", "peer0")
    codes = await chain.add(
        by_these(network.peer),
        by_these(network.peer, second),
        by_these(network.peer, other.issue("client", "u")),
        by_these(network.peer, theirs),
        by_these(network.client, network.peer, theirs),
    )
    assert codes == ["ENDORSEMENT_POLICY_FAILURE"] * 3 + ["VALID"] * 2


async def test_a_user_cannot_write_by_endorsing_his_own_results(chain: Any) -> None:
    forged = chain.network.endorse(
        chain.network.propose(b"x"), writes(a=b"mine"), endorsers=[chain.network.client]
    )
    assert await chain.add(forged.SerializeToString()) == ["ENDORSEMENT_POLICY_FAILURE"]
    simulator = chain.ledger.simulator("")
    assert simulator.get_state(CHAINCODE, "a") is None
    simulator.close()


async def test_an_id_that_its_creator_did_not_sign_stays_free(chain: Any) -> None:
    txid, envelope = chain.network.transaction(writes(a=b"1"))
    forged = common_pb2.Envelope.FromString(envelope)
    forged.signature = chain.network.client.sign(b"something else")
    assert await chain.add(forged.SerializeToString()) == ["BAD_CREATOR_SIGNATURE"]
    assert not chain.ledger.has_transaction(txid)
    assert await chain.add(envelope) == ["VALID"]


@pytest.mark.parametrize(
    "times",
    [{"valid": timedelta(seconds=-1)}, {"valid": timedelta(days=2), "age": timedelta(days=-1)}],
    ids=["expired", "not valid yet"],
)
async def test_the_outcome_does_not_depend_on_when_a_block_is_committed(
    chain: Any, times: dict[str, timedelta]
) -> None:
    organisation = chain.network.organisation
    client, peer = (organisation.issue(role, "untimely", **times) for role in ("client", "peer"))
    proposed = chain.network.propose(b"x", client=client)
    envelope = chain.network.endorse(proposed, b"", endorsers=[peer]).SerializeToString()
    assert await chain.add(envelope) == ["VALID"]


async def test_codes_keep_their_places_in_a_block_checked_by_several_threads(chain: Any) -> None:
    envelopes = [
        chain.network.transaction()[1] if n % 3 else tampered(chain.network) for n in range(20)
    ]
    assert await chain.add(*envelopes) == [
        "VALID" if n % 3 else "BAD_CREATOR_SIGNATURE" for n in range(20)
    ]


class Panic(BaseException):
    """What cryptography raises, through pyo3, for a certificate that its parser trips over."""


@pytest.mark.parametrize("failure", [ValueError("cannot"), RecursionError("deep"), Panic("odd")])
@pytest.mark.parametrize("whose", ["client", "peer"])
async def test_whatever_cannot_be_checked_is_one_bad_transaction_and_the_others_go_on(
    chain: Any, monkeypatch: pytest.MonkeyPatch, failure: BaseException, whose: str
) -> None:
    poisoned = chain.network.organisation.issue(whose, "poisoned")
    deserialize = MSP.deserialize

    def trip(msp: MSP, serialized: bytes) -> Any:
        if serialized == poisoned.serialized:
            raise failure
        return deserialize(msp, serialized)

    monkeypatch.setattr(MSP, "deserialize", trip)
    if whose == "client":
        bad = chain.network.endorse(chain.network.propose(b"x", client=poisoned), b"")
    else:
        bad = chain.network.endorse(chain.network.propose(b"x"), b"", endorsers=[poisoned])
    good = chain.network.transaction(writes(a=b"1"))[1]
    assert await chain.add(bad.SerializeToString(), good) == ["INVALID_OTHER_REASON", "VALID"]


async def test_reads_that_cannot_be_compared_are_one_bad_transaction(
    chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trip(*_: Any) -> None:
        raise OverflowError("too large")

    reader = chain.simulate(lambda simulator: simulator.get_state(CHAINCODE, "a"))
    monkeypatch.setattr("chaincode_support.ledger.state.version", trip)
    writer = chain.network.transaction(writes(a=b"1"))[1]
    assert await chain.add(reader, writer) == ["INVALID_OTHER_REASON", "VALID"]
