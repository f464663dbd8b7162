"""Whose endorsements suffice: by chaincode, by key, and from which block on."""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from testchannel import BATCH, CHAINCODE, CHANNEL, Organisation, results_of, writes

from chaincode_support.ledger import state
from chaincode_support.ledger.endorsement_policies import (
    MAX_POLICY_BYTES,
    DefaultPolicies,
    EndorsementPolicies,
    ReadableState,
    channel_policy,
)
from chaincode_support.ledger.endorsements import VALIDATION_PARAMETER
from chaincode_support.ledger.validation import Validator
from selvedge_common.msp import PEER, SigningIdentity
from selvedge_common.msp.policies import signed_by_role
from selvedge_common.protoutil import config_block
from selvedge_protos.common import common_pb2, policies_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2 as kv
from selvedge_protos.msp import msp_principal_pb2
from selvedge_protos.peer import policy_pb2, transaction_pb2

FAILURE = "ENDORSEMENT_POLICY_FAILURE"
DEFINITIONS = "definitions"


class Defined(DefaultPolicies):
    """The policies of these chaincodes; others have what the state holds, or the default."""

    def __init__(self, policies: Mapping[str, bytes | None]) -> None:
        self._policies = policies

    def endorsement_policy(self, state: ReadableState, chaincode: str) -> bytes | None:
        if chaincode in self._policies:
            return self._policies[chaincode]
        stored = state.get_state(DEFINITIONS, chaincode)
        return stored or super().endorsement_policy(state, chaincode)


def of_peers(*mspids: str) -> policies_pb2.SignaturePolicyEnvelope:
    """All of these organisations must sign, by a peer."""
    policy = signed_by_role(mspids, [PEER], needed=len(mspids))
    assert policy.rule.n_out_of.n == len(mspids)
    return policy


def spelled_out(policy: policies_pb2.SignaturePolicyEnvelope) -> bytes:
    return policy_pb2.ApplicationPolicy(signature_policy=policy).SerializeToString()


OURS, THEIRS = of_peers("Org1MSP"), of_peers("Org2MSP")


@dataclass
class Channel:
    """A channel of two organisations, whose chaincode needs the endorsement of `our` peer."""

    chain: Any
    configuration: config_block.ChannelConfig
    our: SigningIdentity
    their: SigningIdentity

    def define(self, **policies: bytes | None) -> None:
        """These chaincodes have these policies from now on, or are not defined at all."""
        defined = Defined({CHAINCODE: spelled_out(OURS), **policies})
        configuration = self.configuration
        self.chain.validator.close()
        self.chain.validator = Validator(
            CHANNEL,
            configuration.msps,
            EndorsementPolicies(defined, configuration.policies, configuration.msps),
            workers=1,
        )

    def make(
        self, results: bytes, *endorsers: SigningIdentity, chaincode: str = CHAINCODE
    ) -> bytes:
        network = self.chain.network
        proposed = network.propose(b"x", chaincode=chaincode)
        envelope: common_pb2.Envelope = network.endorse(proposed, results, endorsers=endorsers)
        return envelope.SerializeToString()

    async def code(self, results: bytes, *endorsers: SigningIdentity, **how: Any) -> str:
        (code,) = await self.add(self.make(results, *endorsers, **how))
        return code

    async def add(self, *envelopes: bytes) -> list[str]:
        codes: list[str] = await self.chain.add(*envelopes)
        return codes

    async def own(self, key: str, policy: bytes = THEIRS.SerializeToString()) -> None:
        """Commit a key that falls under this policy."""
        rwset = kv.KVRWSet(writes=[kv.KVWrite(key=key, value=b"1")])
        rwset.metadata_writes.append(owned(key, policy))
        assert await self.code(results_of({CHAINCODE: rwset}), self.our) == "VALID"


@pytest.fixture
def channel(chain: Any) -> Channel:
    ours, theirs = chain.network.organisation, Organisation("Org2MSP")
    block = config_block.genesis_block(
        CHANNEL, [ours.msp.config(), theirs.msp.config()], ["localhost:7050"], BATCH
    )
    channel = Channel(
        chain, config_block.open_config(block), chain.network.peer, theirs.issue("peer", "peer0")
    )
    channel.define()
    return channel


def owned(key: str, policy: bytes, name: str = VALIDATION_PARAMETER) -> kv.KVMetadataWrite:
    return kv.KVMetadataWrite(key=key, entries=[kv.KVMetadataEntry(name=name, value=policy)])


def gives(key: str, policy: bytes = THEIRS.SerializeToString(), **also: Any) -> bytes:
    """Results that put the key under a policy."""
    return results_of({CHAINCODE: kv.KVRWSet(metadata_writes=[owned(key, policy)], **also)})


READ = kv.KVRead(key="k")

VALUE = writes(k=b"2")
DELETE = writes(k=b"")
METADATA = gives("k", OURS.SerializeToString())


@pytest.mark.parametrize("results", [VALUE, DELETE, METADATA], ids=["value", "delete", "metadata"])
async def test_a_key_with_a_policy_is_written_by_who_satisfies_it(
    channel: Channel, results: bytes
) -> None:
    await channel.own("k")
    assert await channel.code(results, channel.our) == FAILURE
    assert await channel.code(results, channel.their) == "VALID"


@pytest.mark.parametrize("owned_key", [False, True], ids=["no key has a policy", "one has"])
async def test_writes_that_nobody_endorsed_are_not_looked_up_one_by_one(
    channel: Channel, owned_key: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if owned_key:
        await channel.own("z")
    looked_up: list[str] = []
    get_metadata = state.get_metadata

    def count(connection: sqlite3.Connection, namespace: str, key: str) -> Any:
        looked_up.append(key)
        return get_metadata(connection, namespace, key)

    monkeypatch.setattr(state, "get_metadata", count)
    many = writes(**{f"k{number:04}": b"1" for number in range(1000)})
    assert await channel.code(many, channel.their) == FAILURE
    assert len(looked_up) <= 1


async def test_other_keys_fall_under_the_chaincodes_policy(channel: Channel) -> None:
    await channel.own("k")
    both = writes(k=b"2", other=b"2")
    assert await channel.code(writes(other=b"2"), channel.our) == "VALID"
    assert await channel.code(writes(other=b"2"), channel.their) == FAILURE
    assert await channel.code(both, channel.our) == FAILURE
    assert await channel.code(both, channel.their) == FAILURE
    assert await channel.code(both, channel.our, channel.their) == "VALID"


async def test_who_writes_nothing_falls_under_the_chaincodes_policy(channel: Channel) -> None:
    assert await channel.code(b"", channel.their) == FAILURE
    reads = results_of({CHAINCODE: kv.KVRWSet(reads=[READ])})
    assert await channel.code(reads, channel.their) == FAILURE
    assert await channel.code(reads, channel.our) == "VALID"


async def test_a_key_and_its_policy_are_made_by_the_chaincodes_policy(channel: Channel) -> None:
    rwset = kv.KVRWSet(
        writes=[kv.KVWrite(key="k", value=b"1")],
        metadata_writes=[owned("k", THEIRS.SerializeToString())],
    )
    assert await channel.code(results_of({CHAINCODE: rwset}), channel.their) == FAILURE
    assert await channel.code(results_of({CHAINCODE: rwset}), channel.our) == "VALID"
    assert await channel.code(VALUE, channel.our) == FAILURE


async def test_a_policy_goes_when_it_is_taken_away_or_its_key_deleted(channel: Channel) -> None:
    taken = results_of({CHAINCODE: kv.KVRWSet(metadata_writes=[kv.KVMetadataWrite(key="k")])})
    for away in (DELETE, taken, gives("k", b"")):
        await channel.own("k")
        assert await channel.code(VALUE, channel.our) == FAILURE
        assert await channel.code(away, channel.their) == "VALID"
        assert await channel.code(VALUE, channel.our) == "VALID"


async def test_other_metadata_is_no_policy(channel: Channel) -> None:
    other = kv.KVRWSet(metadata_writes=[owned("k", THEIRS.SerializeToString(), "VALIDATION")])
    await channel.code(VALUE, channel.our)
    assert await channel.code(results_of({CHAINCODE: other}), channel.our) == "VALID"
    assert await channel.code(VALUE, channel.our) == "VALID"


EMPTY_RULE = policies_pb2.SignaturePolicyEnvelope(rule=policies_pb2.SignaturePolicy())
OUT_OF_RANGE = policies_pb2.SignaturePolicyEnvelope(
    rule=policies_pb2.SignaturePolicy(signed_by=1), identities=OURS.identities
)
LATER_VERSION = policies_pb2.SignaturePolicyEnvelope()
LATER_VERSION.CopyFrom(OURS)
LATER_VERSION.version = 1
LARGE = policies_pb2.SignaturePolicyEnvelope()
LARGE.CopyFrom(OURS)
LARGE.identities.add(principal=bytes(MAX_POLICY_BYTES))
JUST_READ = policies_pb2.SignaturePolicyEnvelope()
JUST_READ.CopyFrom(OURS)
JUST_READ.identities.add(principal=bytes(MAX_POLICY_BYTES - OURS.ByteSize() - 16))


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (b"\xff\xff", FAILURE),
        (EMPTY_RULE.SerializeToString(), FAILURE),
        (OUT_OF_RANGE.SerializeToString(), FAILURE),
        (spelled_out(OURS), FAILURE),
        (LARGE.SerializeToString(), FAILURE),
        (JUST_READ.SerializeToString(), "VALID"),
        (LATER_VERSION.SerializeToString(), "VALID"),
        (OURS.SerializeToString(), "VALID"),
    ],
    ids=["garbage", "empty", "range", "application", "large", "just read", "version", "sound"],
)
async def test_what_is_no_signature_policy_is_satisfied_by_nobody(
    channel: Channel, policy: bytes, code: str
) -> None:
    await channel.own("k", policy)
    envelopes = [
        channel.make(results, channel.our, channel.their) for results in (VALUE, writes(other=b"1"))
    ]
    assert await channel.add(*envelopes) == [code, "VALID"]


async def test_a_policy_counts_from_the_next_block_on(channel: Channel) -> None:
    assert await channel.code(VALUE, channel.our) == "VALID"
    envelopes = [
        channel.make(VALUE, channel.our),
        channel.make(gives("k"), channel.our),
        channel.make(writes(other=b"1"), channel.our),
    ]
    assert await channel.add(*envelopes) == ["VALID"] * 3
    assert await channel.code(VALUE, channel.our) == FAILURE
    assert await channel.code(VALUE, channel.their) == "VALID"


@pytest.mark.parametrize("results", [VALUE, DELETE, METADATA], ids=["value", "delete", "metadata"])
async def test_nobody_writes_a_key_in_the_block_in_which_its_metadata_is_changed(
    channel: Channel, results: bytes
) -> None:
    await channel.own("k", OURS.SerializeToString())
    envelopes = [
        channel.make(gives("k"), channel.our),
        channel.make(results, channel.our, channel.their),
        channel.make(results, channel.their),
    ]
    assert await channel.add(*envelopes) == ["VALID", FAILURE, FAILURE]


async def test_a_change_of_metadata_that_proves_to_be_a_conflict_counts_all_the_same(
    channel: Channel,
) -> None:
    await channel.own("k", OURS.SerializeToString())
    stale = gives("k", reads=[READ])  # as if the key did not exist
    envelopes = [channel.make(stale, channel.our), channel.make(VALUE, channel.our)]
    assert await channel.add(*envelopes) == ["MVCC_READ_CONFLICT", FAILURE]
    assert await channel.code(VALUE, channel.our) == "VALID"


async def test_a_change_of_metadata_that_is_a_duplicate_in_its_block_counts_all_the_same(
    channel: Channel,
) -> None:
    plain = channel.make(writes(other=b"1"), channel.our)
    assert await channel.add(plain, plain) == ["VALID", "DUPLICATE_TXID"]
    # The copy writes a key whose metadata the original changes, and this is found first.
    changing = channel.make(gives("k"), channel.our)
    assert await channel.add(changing, changing) == ["VALID", FAILURE]


async def test_what_lacks_endorsements_makes_no_duplicate_of_what_has_them(
    channel: Channel,
) -> None:
    network = channel.chain.network
    proposed = network.propose(b"x")
    envelopes = [
        network.endorse(proposed, VALUE, endorsers=[endorser]).SerializeToString()
        for endorser in (channel.their, channel.our, channel.our)
    ]
    assert await channel.add(*envelopes) == [FAILURE, "VALID", "DUPLICATE_TXID"]


def unsigned(channel: Channel) -> bytes:
    envelope = common_pb2.Envelope.FromString(channel.make(gives("k"), channel.our))
    envelope.signature = channel.our.sign(b"something else")
    return envelope.SerializeToString()


@pytest.mark.parametrize(
    ("code", "make"),
    [
        (FAILURE, lambda channel: channel.make(gives("k"), channel.their)),
        ("BAD_CREATOR_SIGNATURE", unsigned),
    ],
)
async def test_a_change_of_metadata_without_the_endorsements_it_needs_does_not_count(
    channel: Channel, code: str, make: Callable[[Channel], bytes]
) -> None:
    envelopes = [make(channel), channel.make(VALUE, channel.our)]
    assert await channel.add(*envelopes) == [code, "VALID"]


async def test_a_change_of_metadata_counts_that_lacks_endorsements_for_another_chaincode_only(
    channel: Channel,
) -> None:
    channel.define(callee=spelled_out(THEIRS))
    results = results_of(
        {
            "callee": kv.KVRWSet(metadata_writes=[owned("k", b"")]),
            CHAINCODE: kv.KVRWSet(metadata_writes=[owned("k", b"")]),
        }
    )
    callee = results_of({"callee": kv.KVRWSet(writes=[kv.KVWrite(key="k", value=b"1")])})
    envelopes = [
        channel.make(results, channel.our),
        channel.make(VALUE, channel.our),
        channel.make(callee, channel.our, channel.their),
    ]
    assert await channel.add(*envelopes) == [FAILURE, FAILURE, "VALID"]


async def test_a_change_of_metadata_of_an_earlier_block_does_not_count_again(
    channel: Channel,
) -> None:
    await channel.own("k", OURS.SerializeToString())
    changing = channel.make(METADATA, channel.our)
    assert await channel.add(changing) == ["VALID"]
    assert await channel.add(changing, channel.make(VALUE, channel.our)) == [
        "DUPLICATE_TXID",
        "VALID",
    ]


async def test_it_is_the_state_before_the_block_that_tells_the_policies(channel: Channel) -> None:
    await channel.own("k")
    envelopes = [channel.make(DELETE, channel.their), channel.make(VALUE, channel.our)]
    assert await channel.add(*envelopes) == ["VALID", FAILURE]
    assert await channel.code(VALUE, channel.our) == "VALID"


async def test_each_chaincode_that_is_written_to_has_its_say(channel: Channel) -> None:
    channel.define(callee=spelled_out(THEIRS))
    write = kv.KVRWSet(writes=[kv.KVWrite(key="k", value=b"1")])
    metadata = kv.KVRWSet(metadata_writes=[owned("k", b"")])
    read = kv.KVRWSet(reads=[kv.KVRead(key="absent")])
    for theirs in (write, metadata):
        results = results_of({CHAINCODE: write, "callee": theirs})
        assert await channel.code(results, channel.our) == FAILURE
        assert await channel.code(results, channel.their) == FAILURE
        assert await channel.code(results, channel.our, channel.their) == "VALID"
    assert await channel.code(results_of({"callee": read}), channel.our) == "VALID"
    # The called one too, where it wrote nothing.
    assert await channel.code(results_of({"callee": metadata}), channel.their) == FAILURE


@pytest.mark.parametrize("name", ["undefined", "lscc", "qscc", "vscc", ""])
async def test_a_chaincode_that_is_not_defined_is_invalid(channel: Channel, name: str) -> None:
    channel.define(undefined=None)
    both = channel.our, channel.their
    write = kv.KVRWSet(writes=[kv.KVWrite(key="k", value=b"1")])
    read = kv.KVRWSet(reads=[READ])
    invalid = "INVALID_CHAINCODE"
    assert await channel.code(results_of({name: write}), *both) == invalid
    assert await channel.code(results_of({name: read}), *both) == "VALID"
    if name:
        assert await channel.code(b"", *both, chaincode=name) == invalid


def with_endorsements(channel: Channel, *signatures_of: bytes | None) -> bytes:
    """Endorsed by our peer as often: None is a sound signature, others are over these bytes."""
    envelope = common_pb2.Envelope.FromString(channel.make(VALUE, channel.our))
    payload = common_pb2.Payload.FromString(envelope.payload)
    transaction = transaction_pb2.Transaction.FromString(payload.data)
    action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    (sound,) = action.action.endorsements
    del action.action.endorsements[:]
    for message in signatures_of:
        endorsement = action.action.endorsements.add(
            endorser=sound.endorser, signature=sound.signature
        )
        if message is not None:
            endorsement.signature = channel.our.sign(message)
    transaction.actions[0].payload = action.SerializeToString()
    payload.data = transaction.SerializeToString()
    signed = payload.SerializeToString()
    signature = channel.chain.network.client.sign(signed)
    return common_pb2.Envelope(payload=signed, signature=signature).SerializeToString()


async def test_one_endorser_counts_once_and_as_soon_as_one_signature_holds(
    channel: Channel,
) -> None:
    bad = b"something else"
    signatures = [(None,), (bad, None), (None, bad), (bad, bad), ()]
    envelopes = [with_endorsements(channel, *these) for these in signatures]
    assert await channel.add(*envelopes) == ["VALID"] * 3 + [FAILURE] * 2
    two_of_us = signed_by_role(["Org1MSP"], [PEER, PEER], needed=2)
    channel.define(**{CHAINCODE: spelled_out(two_of_us)})
    second = channel.chain.network.organisation.issue("peer", "peer1")
    envelopes = [with_endorsements(channel, None, None), channel.make(VALUE, channel.our, second)]
    assert await channel.add(*envelopes) == [FAILURE, "VALID"]


async def test_a_chaincode_is_invalid_before_anybody_asks_who_endorsed(channel: Channel) -> None:
    channel.define(undefined=None)
    assert await channel.code(b"", channel.their, chaincode="undefined") == "INVALID_CHAINCODE"


async def test_a_definition_counts_from_the_next_block_on(channel: Channel) -> None:
    define = kv.KVRWSet(writes=[kv.KVWrite(key="mine", value=spelled_out(THEIRS))])
    both = channel.our, channel.their
    envelopes = [
        channel.make(results_of({DEFINITIONS: define}), *both),
        channel.make(b"", *both, chaincode="mine"),
        channel.make(b"", channel.their, chaincode="mine"),
    ]
    # By default it takes a majority, which is both.
    assert await channel.add(*envelopes) == ["VALID", "VALID", FAILURE]
    assert await channel.code(b"", channel.their, chaincode="mine") == "VALID"


def reference(path: str) -> bytes:
    return policy_pb2.ApplicationPolicy(channel_config_policy_reference=path).SerializeToString()


@pytest.mark.parametrize(
    ("policy", "codes"),
    [
        (channel_policy("Endorsement"), [FAILURE, "VALID"]),
        (channel_policy("Nothing"), [FAILURE, FAILURE]),
        (reference("/Channel/Application/Org1MSP/Endorsement"), ["VALID", "VALID"]),
        (reference("/Channel/Readers"), ["VALID", "VALID"]),
        (reference("/Channel/Application"), [FAILURE, FAILURE]),
        (reference(""), [FAILURE, FAILURE]),
        (spelled_out(of_peers("Org1MSP", "Org2MSP")), [FAILURE, "VALID"]),
        (spelled_out(EMPTY_RULE), [FAILURE, FAILURE]),
        (b"\xff\xff", [FAILURE, FAILURE]),
        # Neither kind: a message with a field that nobody knows.
        (b"\x78\x01", [FAILURE, FAILURE]),
        (b"", ["INVALID_CHAINCODE", "INVALID_CHAINCODE"]),
    ],
)
async def test_a_definition_spells_a_policy_out_or_names_one_of_the_channel(
    channel: Channel, policy: bytes, codes: list[str]
) -> None:
    channel.define(mine=policy)
    envelopes = [
        channel.make(b"", channel.our, chaincode="mine"),
        channel.make(b"", channel.our, channel.their, chaincode="mine"),
    ]
    assert await channel.add(*envelopes) == codes


async def test_the_lifecycle_falls_under_the_channels_policy_for_it(channel: Channel) -> None:
    write = kv.KVRWSet(writes=[kv.KVWrite(key="k", value=b"1")])
    results = results_of({"_lifecycle": write})
    assert await channel.code(results, channel.our) == FAILURE
    assert await channel.code(results, channel.our, channel.their) == "VALID"


async def test_a_principal_that_trips_the_parser_is_one_bad_transaction(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        """What cryptography raises, through pyo3, for what its parser trips over."""

    def trip(_: bytes) -> Any:
        raise Panic("odd")

    principal = msp_principal_pb2.MSPPrincipal(
        principal_classification=msp_principal_pb2.MSPPrincipal.IDENTITY,
        principal=channel.their.serialized,
    )
    policy = policies_pb2.SignaturePolicyEnvelope(
        rule=policies_pb2.SignaturePolicy(signed_by=0), identities=[principal]
    )
    await channel.own("k", policy.SerializeToString())
    assert await channel.code(VALUE, channel.their) == "VALID"
    monkeypatch.setattr("selvedge_common.msp.msp.parse_identity", trip)
    other = writes(other=b"1")
    envelopes = [channel.make(VALUE, channel.their), channel.make(other, channel.our)]
    assert await channel.add(*envelopes) == ["INVALID_OTHER_REASON", "VALID"]


async def test_the_log_says_whose_policy_was_not_satisfied_and_by_whom(
    channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    await channel.own("k")
    await channel.code(VALUE, channel.our, channel.chain.network.stranger)
    told = caplog.records[-1].getMessage()
    assert "transaction rejected" in told
    assert "Endorsed by CN=peer0,OU=peer of Org1MSP, which does not satisfy the policy of" in told
    assert "the key 'k' of the chaincode 'basic'" in told
    assert "The organisation 'OtherMSP' is not in the channel" in told
    await channel.add(
        channel.make(gives("new"), channel.our), channel.make(gives("new"), channel.our)
    )
    told = caplog.records[-1].getMessage()
    assert "The metadata of the key 'new' of the chaincode 'basic'" in told
    assert "changed earlier in the block: submit it again" in told
