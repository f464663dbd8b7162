"""Whose signatures make a block one of the channel."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from selvedge_common.msp import MSP, PolicyNotSatisfied, SigningIdentity
from selvedge_common.msp.policies import signature_policy
from selvedge_common.protoutil import blocks, metadata
from selvedge_common.protoutil.block_validation import BlockValidation
from selvedge_common.protoutil.config_block import (
    Batch,
    genesis_block,
    is_config_block,
    open_config,
)
from selvedge_common.protoutil.errors import MalformedBlock
from selvedge_common.protoutil.wire import marshal
from selvedge_protos.common import (
    common_pb2,
    configtx_pb2,
    configuration_pb2,
    policies_pb2,
)
from selvedge_protos.msp import identities_pb2, msp_principal_pb2

BATCH = Batch(500, 10 << 20, 2 << 20, "5ms")


def genesis(*orderer_orgs: MSP) -> common_pb2.Block:
    configs = [msp.config() for msp in orderer_orgs]
    return genesis_block("mychannel", configs, ["localhost:7050"], BATCH)


def signed_by(*signers: SigningIdentity) -> common_pb2.Block:
    """A block with the signature of each."""
    block = blocks.new_block(9, b"previous", [b"one"])
    entry = common_pb2.Metadata()
    for signer in signers:
        blocks.sign_block(block, signer, 4)
        one = metadata.get_metadata(block, common_pb2.SIGNATURES)
        entry.value = one.value
        entry.signatures.extend(one.signatures)
    metadata.set_metadata(block, common_pb2.SIGNATURES, marshal(entry))
    return block


def test_one_orderer_of_the_channel_is_enough(org1: Any, org2: Any) -> None:
    validation = BlockValidation(open_config(genesis(org1.msp)))
    orderer, stranger = org1.issue("orderer", "orderer"), org2.issue("orderer", "orderer")
    validation.check(signed_by(orderer))
    validation.check(signed_by(orderer))
    validation.check(signed_by(stranger, orderer))
    with pytest.raises(PolicyNotSatisfied, match="'Org2MSP' of a signer is not in the channel"):
        validation.check(signed_by(stranger))
    with pytest.raises(PolicyNotSatisfied, match="signatures of nobody"):
        validation.check(signed_by())


def test_signature_covers_header_and_value(org1: Any) -> None:
    validation = BlockValidation(open_config(genesis(org1.msp)))
    block = signed_by(org1.issue("orderer", "orderer"))
    validation.check(block)
    block.header.previous_hash = b"another"
    with pytest.raises(PolicyNotSatisfied, match="does not match the message"):
        validation.check(block)
    block.header.previous_hash = b"previous"
    validation.check(block)
    entry = metadata.get_metadata(block, common_pb2.SIGNATURES)
    entry.value = marshal(
        common_pb2.OrdererBlockMetadata(last_config=common_pb2.LastConfig(index=5))
    )
    metadata.set_metadata(block, common_pb2.SIGNATURES, marshal(entry))
    with pytest.raises(PolicyNotSatisfied, match="does not match the message"):
        validation.check(block)
    metadata.set_metadata(block, common_pb2.SIGNATURES, b"\xff")
    with pytest.raises(MalformedBlock, match="metadata 0 of block 9"):
        validation.check(block)


def test_one_orderer_counts_once(org1: Any) -> None:
    block = genesis(org1.msp)
    two = policies_pb2.SignaturePolicyEnvelope(
        rule=policies_pb2.SignaturePolicy(
            n_out_of=policies_pb2.SignaturePolicy.NOutOf(
                n=2, rules=[policies_pb2.SignaturePolicy(signed_by=0)] * 2
            )
        ),
        identities=[
            msp_principal_pb2.MSPPrincipal(
                principal=msp_principal_pb2.MSPRole(msp_identifier="Org1MSP").SerializeToString()
            )
        ],
    )
    validation = BlockValidation(open_config(with_policy(block, two)))
    one, other = org1.issue("one", "orderer"), org1.issue("other", "orderer")
    with pytest.raises(PolicyNotSatisfied):
        validation.check(signed_by(one, one))
    validation.check(signed_by(one, other))


def test_orderer_whose_certificate_expired_since_still_counts(org1: Any) -> None:
    """As in Fabric: old blocks are read for as long as there is a channel."""
    validation = BlockValidation(open_config(genesis(org1.msp)))
    ended = datetime.now(UTC) - timedelta(minutes=1)
    expired = org1.issue("orderer", "orderer", start=ended - timedelta(minutes=1), end=ended)
    validation.check(signed_by(expired))
    validation.check(signed_by(expired))


def test_revoked_orderer_does_not_count(org1: Any) -> None:
    orderer = org1.issue("orderer", "orderer")
    now = datetime.now(UTC)
    revocation = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(org1.root.name)
        .last_update(now)
        .next_update(now + timedelta(days=1))
        .add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(orderer.certificate.serial_number)
            .revocation_date(now)
            .build()
        )
        .sign(org1.root.key, hashes.SHA256())
    )
    msp = MSP(
        "Org1MSP", [org1.root.certificate], revocation_lists=[revocation.public_bytes(Encoding.PEM)]
    )
    validation = BlockValidation(open_config(genesis(msp)))
    with pytest.raises(PolicyNotSatisfied, match="has been revoked"):
        validation.check(signed_by(orderer))
    validation.check(signed_by(org1.issue("another", "orderer")))


def with_policy(
    block: common_pb2.Block, policy: policies_pb2.SignaturePolicyEnvelope
) -> common_pb2.Block:
    def change(root: configtx_pb2.ConfigGroup) -> None:
        validation = root.groups["Orderer"].policies["BlockValidation"]
        validation.policy.CopyFrom(signature_policy(policy))

    return changed(block, change)


def changed(
    block: common_pb2.Block, change: Callable[[configtx_pb2.ConfigGroup], None]
) -> common_pb2.Block:
    envelope = common_pb2.Envelope.FromString(block.data.data[0])
    payload = common_pb2.Payload.FromString(envelope.payload)
    config = configtx_pb2.ConfigEnvelope.FromString(payload.data)
    change(config.config.channel_group)
    payload.data = config.SerializeToString()
    envelope.payload = payload.SerializeToString()
    return blocks.new_block(0, b"", [envelope.SerializeToString()])


def of_bft(
    block: common_pb2.Block, consenters: list[SigningIdentity], capability: str = "V3_0"
) -> common_pb2.Block:
    """The block as configtxgen of Fabric 3 makes it for these consenters, from number 1 on."""
    identities = [
        identities_pb2.SerializedIdentity.FromString(one.serialized) for one in consenters
    ]
    faulty = (len(consenters) - 1) // 3
    quorum = -(-(len(consenters) + faulty + 1) // 2)

    def change(root: configtx_pb2.ConfigGroup) -> None:
        root.values["Capabilities"].value = configuration_pb2.Capabilities(
            capabilities={capability: configuration_pb2.Capability()}
        ).SerializeToString()
        root.groups["Orderer"].values["Orderers"].value = configuration_pb2.Orderers(
            consenter_mapping=[
                configuration_pb2.Consenter(id=number, msp_id=one.mspid, identity=one.id_bytes)
                for number, one in enumerate(identities, 1)
            ]
        ).SerializeToString()

    policy = policies_pb2.SignaturePolicyEnvelope(
        rule=policies_pb2.SignaturePolicy(
            n_out_of=policies_pb2.SignaturePolicy.NOutOf(
                n=quorum,
                rules=[
                    policies_pb2.SignaturePolicy(signed_by=index)
                    for index in range(len(consenters))
                ],
            )
        ),
        identities=[
            msp_principal_pb2.MSPPrincipal(
                principal_classification=msp_principal_pb2.MSPPrincipal.IDENTITY,
                principal=one.serialized,
            )
            for one in consenters
        ],
    )
    return changed(with_policy(block, policy), change)


def signed_by_number(**signers: SigningIdentity) -> common_pb2.Block:
    """A block as consenters of a BFT channel sign it: `_1=...` says that it is number 1."""
    block = blocks.new_block(9, b"previous", [b"one"])
    value = marshal(common_pb2.OrdererBlockMetadata(last_config=common_pb2.LastConfig(index=4)))
    entry = common_pb2.Metadata(value=value)
    for number, signer in signers.items():
        header = marshal(
            common_pb2.IdentifierHeader(identifier=int(number.strip("_")), nonce=b"nonce")
        )
        signature = signer.sign(value + header + blocks.header_bytes(block.header))
        entry.signatures.append(
            common_pb2.MetadataSignature(identifier_header=header, signature=signature)
        )
    metadata.set_metadata(block, common_pb2.SIGNATURES, marshal(entry))
    return block


def test_bft_consenters_sign_by_their_number(org1: Any, org2: Any) -> None:
    one, two = org1.issue("one", "orderer"), org2.issue("two", "orderer")
    three, four = org1.issue("three", "orderer"), org2.issue("four", "orderer")
    block = of_bft(genesis(org1.msp, org2.msp), [one, two, three, four])
    validation = BlockValidation(open_config(block))
    validation.check(signed_by_number(_1=one, _2=two, _4=four))
    with pytest.raises(PolicyNotSatisfied):
        validation.check(signed_by_number(_1=one, _2=two))
    with pytest.raises(PolicyNotSatisfied, match="does not match the message"):
        validation.check(signed_by_number(_1=one, _2=two, _3=four))
    with pytest.raises(PolicyNotSatisfied):
        validation.check(signed_by_number(_1=one, _2=two, _5=three))


def test_numbers_name_nobody_where_the_channel_is_not_bft(org1: Any) -> None:
    one = org1.issue("one", "orderer")
    validation = BlockValidation(open_config(of_bft(genesis(org1.msp), [one], "V2_0")))
    with pytest.raises(PolicyNotSatisfied):
        validation.check(signed_by_number(_1=one))


def test_block_with_one_configuration_is_a_configuration_block(org1: Any) -> None:
    block = genesis(org1.msp)
    assert is_config_block(block)
    twice = blocks.new_block(1, b"", [block.data.data[0]] * 2)
    assert not is_config_block(twice)
    for data in ([], [b""], [b"\xff"], [common_pb2.Envelope(payload=b"\xff").SerializeToString()]):
        assert not is_config_block(blocks.new_block(1, b"", data))
