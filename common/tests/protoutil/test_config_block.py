"""The channel's configuration block."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selvedge_common.msp import PolicyNotSatisfied
from selvedge_common.msp.policies import SignedData
from selvedge_common.protoutil import blocks, metadata
from selvedge_common.protoutil.config_block import (
    Batch,
    genesis_block,
    open_config,
)
from selvedge_common.protoutil.errors import MalformedBlock
from selvedge_protos.common import common_pb2, configtx_pb2, configuration_pb2
from selvedge_protos.msp import msp_config_pb2
from selvedge_protos.orderer import configuration_pb2 as orderer_pb2

BATCH = Batch(500, 10 << 20, 2 << 20, "5ms")
ADDRESSES = ["localhost:7050", "orderer:7050"]


@pytest.fixture
def block(org1: Any) -> common_pb2.Block:
    return genesis_block("mychannel", [org1.msp.config()], ADDRESSES, BATCH)


def groups_of(group: configtx_pb2.ConfigGroup) -> list[configtx_pb2.ConfigGroup]:
    return [group, *(found for inner in group.groups.values() for found in groups_of(inner))]


def test_the_envelope_is_a_config_with_a_proper_header(block: common_pb2.Block) -> None:
    assert (block.header.number, block.header.previous_hash) == (0, b"")
    assert block.header.data_hash == hashlib.sha256(block.data.data[0]).digest()
    assert len(block.metadata.metadata) == 5
    assert metadata.last_config(block) == 0
    envelope = common_pb2.Envelope.FromString(block.data.data[0])
    header = common_pb2.Payload.FromString(envelope.payload).header
    channel = common_pb2.ChannelHeader.FromString(header.channel_header)
    signature = common_pb2.SignatureHeader.FromString(header.signature_header)
    assert channel.type == common_pb2.CONFIG
    assert (channel.version, channel.channel_id, channel.epoch) == (1, "mychannel", 0)
    assert channel.HasField("timestamp")
    assert channel.tx_id == hashlib.sha256(signature.nonce).hexdigest()


def test_every_element_says_who_may_change_it(block: common_pb2.Block) -> None:
    root = open_config(block).config.channel_group
    assert len(groups_of(root)) == 5
    for group in groups_of(root):
        assert group.mod_policy == "Admins"
        assert {"Readers", "Writers", "Admins"} <= set(group.policies)
        assert all(policy.mod_policy == "Admins" for policy in group.policies.values())
        for name, value in group.values.items():
            expected = "/Channel/Orderer/Admins" if name == "OrdererAddresses" else "Admins"
            assert value.mod_policy == expected


def test_the_values_are_those_that_fabrics_readers_require(
    block: common_pb2.Block, org1: Any
) -> None:
    root = open_config(block).config.channel_group
    orderer, application = root.groups["Orderer"], root.groups["Application"]

    def value(group: Any, name: str, kind: Any) -> Any:
        return kind.FromString(group.values[name].value)

    assert value(root, "HashingAlgorithm", configuration_pb2.HashingAlgorithm).name == "SHA256"
    width = value(root, "BlockDataHashingStructure", configuration_pb2.BlockDataHashingStructure)
    assert width.width == 0xFFFFFFFF
    assert value(root, "Consortium", configuration_pb2.Consortium).name
    addresses = value(root, "OrdererAddresses", configuration_pb2.OrdererAddresses)
    assert list(addresses.addresses) == ADDRESSES
    for group in (root, orderer, application):
        capabilities = value(group, "Capabilities", configuration_pb2.Capabilities)
        assert list(capabilities.capabilities) == ["V2_0"]
    assert value(orderer, "ConsensusType", orderer_pb2.ConsensusType).type == "solo"
    size = value(orderer, "BatchSize", orderer_pb2.BatchSize)
    assert (size.max_message_count, size.absolute_max_bytes) == (500, 10 << 20)
    assert value(orderer, "BatchTimeout", orderer_pb2.BatchTimeout).timeout == "5ms"
    for group in (orderer, application):
        msp = value(group.groups["Org1MSP"], "MSP", msp_config_pb2.MSPConfig)
        assert msp == org1.msp.config()


def test_what_was_written_is_what_is_read(block: common_pb2.Block, org1: Any, client: Any) -> None:
    config = open_config(block)
    assert config.channel == "mychannel"
    assert config.sequence == 0
    assert list(config.orderer_addresses) == ADDRESSES
    assert config.batch == BATCH
    assert list(config.msps) == ["Org1MSP"]
    config.msps["Org1MSP"].validate(client)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/Channel/Application/Readers", {"client", "peer", "admin", "orderer"}),
        ("/Channel/Application/Writers", {"client", "admin"}),
        ("/Channel/Application/Admins", {"admin"}),
        ("/Channel/Application/Endorsement", {"peer"}),
        ("/Channel/Application/LifecycleEndorsement", {"peer"}),
        ("/Channel/Admins", {"admin"}),
        ("/Channel/Readers", {"client", "peer", "admin", "orderer"}),
        ("/Channel/Application/Org1MSP/Admins", {"admin"}),
    ],
)
def test_who_may_do_what(
    block: common_pb2.Block, org1: Any, org2: Any, path: str, allowed: set[str]
) -> None:
    config = open_config(block)
    for role in ("client", "peer", "admin", "orderer"):
        for org in (org1, org2):
            signer = org.issue("someone", role)
            signed = SignedData(b"message", signer.serialized, signer.sign(b"message"))
            if role in allowed and org is org1:
                config.evaluate(path, [signed])
            else:
                with pytest.raises(PolicyNotSatisfied):
                    config.evaluate(path, [signed])


def test_a_majority_of_the_organisations_endorses(org1: Any, org2: Any) -> None:
    orgs = [org1.msp.config(), org2.msp.config()]
    config = open_config(genesis_block("mychannel", orgs, ADDRESSES, BATCH, orderer_orgs=orgs[:1]))
    one, two = (
        SignedData(b"message", peer.serialized, peer.sign(b"message"))
        for peer in (org1.issue("peer", "peer"), org2.issue("peer", "peer"))
    )
    with pytest.raises(PolicyNotSatisfied):
        config.evaluate("/Channel/Application/Endorsement", [one])
    config.evaluate("/Channel/Application/Endorsement", [one, two])


def test_blocks_are_validated_by_the_ordering_organisations(org1: Any, org2: Any) -> None:
    config = open_config(
        genesis_block(
            "mychannel", [org1.msp.config()], ADDRESSES, BATCH, orderer_orgs=[org2.msp.config()]
        )
    )
    block = blocks.new_block(1, b"", [b"data"])
    blocks.sign_block(block, org2.issue("orderer", "orderer"), 0)
    config.evaluate("/Channel/Orderer/BlockValidation", blocks.block_signatures(block))
    blocks.sign_block(block, org1.issue("orderer", "orderer"), 0)
    with pytest.raises(PolicyNotSatisfied):
        config.evaluate("/Channel/Orderer/BlockValidation", blocks.block_signatures(block))


def changed(block: common_pb2.Block, change: Any) -> common_pb2.Block:
    envelope = common_pb2.Envelope.FromString(block.data.data[0])
    payload = common_pb2.Payload.FromString(envelope.payload)
    config = configtx_pb2.ConfigEnvelope.FromString(payload.data)
    change(config.config.channel_group)
    payload.data = config.SerializeToString()
    envelope.payload = payload.SerializeToString()
    return blocks.new_block(0, b"", [envelope.SerializeToString()])


def test_endpoints_of_ordering_organisations_count_as_addresses(block: common_pb2.Block) -> None:
    def without_channel_addresses(group: Any) -> None:
        del group.values["OrdererAddresses"]

    opened = open_config(changed(block, without_channel_addresses))
    assert list(opened.orderer_addresses) == ADDRESSES


def test_an_organisation_described_in_two_ways_is_refused(
    block: common_pb2.Block, make_organisation: Any
) -> None:
    def swap(group: Any) -> None:
        other = make_organisation("Org1MSP").msp.config().SerializeToString()
        group.groups["Orderer"].groups["Org1MSP"].values["MSP"].value = other

    with pytest.raises(MalformedBlock, match="described twice and differently"):
        open_config(changed(block, swap))


def test_organisations_without_certificates_are_passed_over(block: common_pb2.Block) -> None:
    def add(group: Any) -> None:
        idemix = msp_config_pb2.MSPConfig(type=1, config=b"\xff").SerializeToString()
        group.groups["Application"].groups["Org9"].values["MSP"].value = idemix

    assert list(open_config(changed(block, add)).msps) == ["Org1MSP"]


def test_blocks_of_transactions_are_no_configuration(transact: Any) -> None:
    envelope = transact().SerializeToString()
    for envelopes, sentence in (
        ([envelope], "not a configuration block"),
        ([envelope, envelope], "has 2 transactions"),
        ([], "has 0 transactions"),
    ):
        with pytest.raises(MalformedBlock, match=sentence):
            open_config(blocks.new_block(5, b"", envelopes))


@given(data=st.binary(max_size=200))
def test_random_configurations_raise_only_malformed_block(org1: Any, data: bytes) -> None:
    block = genesis_block("mychannel", [org1.msp.config()], ADDRESSES, BATCH)

    def hostile(group: Any) -> None:
        msp = msp_config_pb2.MSPConfig(config=data).SerializeToString()
        group.groups["Application"].groups["Org1MSP"].values["MSP"].value = msp

    for broken in (blocks.new_block(0, b"", [data]), changed(block, hostile)):
        with pytest.raises(MalformedBlock):
            open_config(broken)
