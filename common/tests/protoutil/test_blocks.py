"""Blocks: DER by hand, hash chain, signatures, and what subscribers see."""

import contextlib
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from selvedge_common.protoutil import block_events, blocks, metadata
from selvedge_common.protoutil.errors import MalformedBlock
from selvedge_common.protoutil.transactions import open_transaction
from selvedge_common.protoutil.wire import length_delimited
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import (
    chaincode_pb2,
    events_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

VALID = transaction_pb2.VALID
CONFLICT = transaction_pb2.MVCC_READ_CONFLICT
NOT_VALIDATED = transaction_pb2.NOT_VALIDATED


@pytest.mark.parametrize(
    ("number", "previous", "data", "der"),
    [
        (0, b"", b"", "3007 020100 0400 0400"),
        (127, b"\x01", b"\x02", "3009 02017f 040101 040102"),
        (128, b"\x01", b"\x02", "300a 02020080 040101 040102"),
        (256, b"\x01", b"\x02", "300a 02020100 040101 040102"),
        (2**64 - 1, b"", b"", "300f 020900ffffffffffffffff 0400 0400"),
        (1, b"\xaa" * 32, b"\xbb" * 32, "3047 020101 0420" + "aa" * 32 + "0420" + "bb" * 32),
        (1, b"\xaa" * 128, b"", "308188 020101 048180" + "aa" * 128 + "0400"),
        (1, b"\xaa" * 300, b"", "30820135 020101 0482012c" + "aa" * 300 + "0400"),
    ],
)
def test_a_header_in_der(number: int, previous: bytes, data: bytes, der: str) -> None:
    header = common_pb2.BlockHeader(number=number, previous_hash=previous, data_hash=data)
    assert blocks.header_bytes(header) == bytes.fromhex(der)
    assert blocks.header_hash(header) == hashlib.sha256(bytes.fromhex(der)).digest()


def test_a_new_block_holds_its_data_hash_and_five_empty_metadata_entries() -> None:
    block = blocks.new_block(7, b"previous", [b"one", b"two"])
    assert block.header.number == 7
    assert block.header.previous_hash == b"previous"
    assert block.header.data_hash == hashlib.sha256(b"onetwo").digest()
    assert list(block.data.data) == [b"one", b"two"]
    assert list(block.metadata.metadata) == [b""] * 5


def test_an_orderer_signs_value_signature_header_and_block_header(org1: Any) -> None:
    orderer = org1.issue("orderer", "orderer")
    block = blocks.new_block(9, b"previous", [b"one"])
    blocks.sign_block(block, orderer, 4)
    header = blocks.header_bytes(block.header)
    for index in (common_pb2.SIGNATURES, common_pb2.LAST_CONFIG):
        entry = common_pb2.Metadata.FromString(block.metadata.metadata[index])
        (signature,) = entry.signatures
        signature_header = common_pb2.SignatureHeader.FromString(signature.signature_header)
        assert signature_header.creator == orderer.serialized
        assert signature_header.nonce
        orderer.certificate.public_key().verify(
            signature.signature,
            entry.value + signature.signature_header + header,
            ec.ECDSA(hashes.SHA256()),
        )
    value = metadata.get_metadata(block, common_pb2.SIGNATURES).value
    assert common_pb2.OrdererBlockMetadata.FromString(value).last_config.index == 4
    value = metadata.get_metadata(block, common_pb2.LAST_CONFIG).value
    assert common_pb2.LastConfig.FromString(value).index == 4
    assert metadata.last_config(block) == 4
    metadata.set_metadata(block, common_pb2.SIGNATURES, b"")
    assert metadata.last_config(block) == 4


def test_validation_codes_are_one_byte_a_transaction() -> None:
    block = blocks.new_block(1, b"", [b"one", b"two"])
    assert metadata.validation_codes(block) == [NOT_VALIDATED] * 2
    metadata.set_validation_codes(block, [VALID, CONFLICT])
    assert block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER] == bytes([0, 11])
    assert metadata.validation_codes(block) == [VALID, CONFLICT]
    with pytest.raises(MalformedBlock, match=r"2 transactions and was given 1"):
        metadata.set_validation_codes(block, [VALID])
    bare = common_pb2.Block(data=common_pb2.BlockData(data=[b"one"]))
    assert metadata.validation_codes(bare) == [NOT_VALIDATED]
    metadata.set_metadata(bare, common_pb2.TRANSACTIONS_FILTER, bytes(3))
    assert len(bare.metadata.metadata) == 5
    assert metadata.validation_codes(bare) == [VALID]


def test_a_filtered_block_has_events_without_payload(transact: Any) -> None:
    plain, telling = transact(), transact(event="created")
    garbage = common_pb2.Envelope(payload=b"\xff").SerializeToString()
    envelopes = [plain.SerializeToString(), garbage, telling.SerializeToString()]
    block = blocks.new_block(3, b"", envelopes)
    metadata.set_validation_codes(block, [VALID, transaction_pb2.BAD_PAYLOAD, CONFLICT])
    filtered = block_events.filtered_block(block)
    assert (filtered.channel_id, filtered.number) == ("mychannel", 3)
    first, second = filtered.filtered_transactions
    assert first.txid == open_transaction(plain).txid
    assert first.type == common_pb2.ENDORSER_TRANSACTION
    assert first.tx_validation_code == VALID
    assert first.WhichOneof("Data") == "transaction_actions"
    assert not first.transaction_actions.chaincode_actions
    assert second.tx_validation_code == CONFLICT
    (action,) = second.transaction_actions.chaincode_actions
    assert action.chaincode_event.event_name == "created"
    assert action.chaincode_event.chaincode_id == "basic"
    assert action.chaincode_event.tx_id == second.txid
    assert action.chaincode_event.payload == b""
    ((event, marshalled),) = block_events.chaincode_events(envelopes[2])
    assert event.payload == b"event payload"
    assert type(event).FromString(marshalled) == event
    assert not block_events.chaincode_events(envelopes[0])
    assert not block_events.chaincode_events(garbage)


def test_of_a_layer_that_is_there_twice_the_last_one_counts(transact: Any) -> None:
    """As in Fabric, where it is bytes: merged, a transaction could tell events that none set."""

    def names(envelope: bytes) -> list[str]:
        return [event.event_name for event, _ in block_events.chaincode_events(envelope)]

    forged, true = (transact(results=b"", event=name).payload for name in ("forged", "true"))
    twice = length_delimited(1, forged) + length_delimited(1, true)
    assert names(twice) == names(common_pb2.Envelope(payload=true).SerializeToString()) == ["true"]
    assert names(length_delimited(1, b"\xff") + length_delimited(1, true)) == ["true"]
    assert names(length_delimited(1, true) + length_delimited(1, b"\xff")) == []
    inner = common_pb2.Payload.FromString(true)
    header = length_delimited(1, inner.header.SerializeToString())
    data = [
        length_delimited(2, common_pb2.Payload.FromString(each).data) for each in (forged, true)
    ]
    assert names(length_delimited(1, header + b"".join(data))) == ["true"]


def _with(envelope: common_pb2.Envelope, *, data: bytes = b"", header: bytes = b"") -> bytes:
    """The same transaction, with more fields in its data, and in its header before the others."""
    payload = common_pb2.Payload.FromString(envelope.payload)
    changed = length_delimited(1, header + payload.header.SerializeToString())
    changed += length_delimited(2, payload.data + data)
    return common_pb2.Envelope(payload=changed).SerializeToString()


def test_of_a_transaction_of_more_actions_than_anybody_takes_nothing_is_told(transact: Any) -> None:
    full = transact(results=b"secret", event="made")
    action = length_delimited(1, b"")
    most = block_events.MAX_ACTIONS
    some, many = (_with(full, data=action * count) for count in (most - 1, most))
    assert [event.event_name for event, _ in block_events.chaincode_events(some)] == ["made"]
    assert not block_events.chaincode_events(many)
    assert block_events.transaction_notice(some, VALID).event.event_name == "made"
    assert f"more than {most}" in block_events.transaction_notice(many, VALID).error
    block = blocks.new_block(3, b"previous", [some, many])
    metadata.set_validation_codes(block, [VALID, VALID])
    first, second = block_events.filtered_block(block).filtered_transactions
    (told,) = first.transaction_actions.chaincode_actions
    assert told.chaincode_event.event_name == "made"
    assert second.txid == first.txid
    assert not second.transaction_actions.chaincode_actions
    stripped = block_events.strip_read_write_sets(block).data.data
    assert b"secret" not in stripped[0]
    assert stripped[1] == many


def test_layers_that_are_there_many_times_do_not_count(transact: Any) -> None:
    full = transact(results=b"secret", event="made")
    for times in (1000, 200_000):  # read at once, and layer by layer
        wide = _with(full, header=length_delimited(1, b"") * times)
        assert [event.event_name for event, _ in block_events.chaincode_events(wide)] == ["made"]


def _changed(envelope: common_pb2.Envelope, endorsements: int, arguments: int) -> bytes:
    """The same transaction, with further empty endorsements, and as many arguments."""
    payload = common_pb2.Payload.FromString(envelope.payload)
    transaction = transaction_pb2.Transaction.FromString(payload.data)
    (action,) = transaction.actions
    opened = transaction_pb2.ChaincodeActionPayload.FromString(action.payload)
    opened.action.endorsements.extend([proposal_response_pb2.Endorsement()] * endorsements)
    spec = chaincode_pb2.ChaincodeInvocationSpec()
    spec.chaincode_spec.input.args.extend([b"f" * 200] * arguments)
    opened.chaincode_proposal_payload = proposal_pb2.ChaincodeProposalPayload(
        input=spec.SerializeToString()
    ).SerializeToString()
    action.payload = opened.SerializeToString()
    payload.data = transaction.SerializeToString()
    return common_pb2.Envelope(payload=payload.SerializeToString()).SerializeToString()


def test_event_of_a_call_with_very_many_arguments_is_told(transact: Any) -> None:
    full = transact(results=b"secret", event="made")
    some, many = (_changed(full, 0, count) for count in (1, block_events.MAX_FIELDS))
    for envelope, function in ((some, "f" * 100), (many, "")):
        notice = block_events.transaction_notice(envelope, VALID)
        assert (notice.event.event_name, notice.function, notice.error) == ("made", function, "")
        assert len(block_events.chaincode_events(envelope)) == 1


def test_transaction_of_very_many_endorsements_is_not_taken_apart(transact: Any) -> None:
    wide = _changed(transact(results=b"secret", event="made"), 600_000, 1)
    assert not block_events.chaincode_events(wide)
    assert "more than 10000 endorsements" in block_events.transaction_notice(wide, VALID).error
    block = blocks.new_block(3, b"previous", [wide])
    metadata.set_validation_codes(block, [VALID])
    (told,) = block_events.filtered_block(block).filtered_transactions
    assert not told.transaction_actions.chaincode_actions
    assert list(block_events.strip_read_write_sets(block).data.data) == [wide]


def test_signatures_are_counted_before_they_are_read() -> None:
    block = blocks.new_block(3, b"previous", [b"one"])
    for count in (metadata.MAX_SIGNATURES, metadata.MAX_SIGNATURES + 1):
        entry = common_pb2.Metadata(
            value=b"value", signatures=[common_pb2.MetadataSignature(signature_header=b"")] * count
        )
        metadata.set_metadata(block, common_pb2.SIGNATURES, entry.SerializeToString())
        if count == metadata.MAX_SIGNATURES:
            assert len(blocks.block_signatures(block)) == count
    with pytest.raises(MalformedBlock, match="block 3 has more than 256 signatures"):
        blocks.block_signatures(block)


def test_read_write_sets_are_stripped_and_nothing_else(transact: Any) -> None:
    config = common_pb2.ChannelHeader(type=common_pb2.CONFIG).SerializeToString()
    other = common_pb2.Envelope(
        payload=common_pb2.Payload(
            header=common_pb2.Header(channel_header=config), data=b"kept"
        ).SerializeToString()
    ).SerializeToString()
    full = transact(results=b"secret writes", event="created")
    block = blocks.new_block(3, b"previous", [full.SerializeToString(), other, b"\xff"])
    metadata.set_validation_codes(block, [VALID, VALID, VALID])
    before = block.SerializeToString()
    stripped = block_events.strip_read_write_sets(block)
    assert block.SerializeToString() == before
    assert b"secret writes" not in stripped.SerializeToString()
    assert (stripped.header, stripped.metadata) == (block.header, block.metadata)
    assert list(stripped.data.data[1:]) == [other, b"\xff"]
    assert block_events.chaincode_events(stripped.data.data[0]) == block_events.chaincode_events(
        block.data.data[0]
    )
    envelope = common_pb2.Envelope.FromString(stripped.data.data[0])
    assert envelope.signature == full.signature
    opened = open_transaction(envelope).open_action()
    original = open_transaction(full).open_action()
    assert opened is not None
    assert original is not None
    assert opened.chaincode_action.results == b""
    assert opened.endorsements == original.endorsements
    assert opened.chaincode_action.response == original.chaincode_action.response


@given(data=st.binary(max_size=300))
def test_random_bytes_raise_only_malformed_block(data: bytes) -> None:
    block = blocks.new_block(1, b"", [data])
    for index in (common_pb2.SIGNATURES, common_pb2.LAST_CONFIG):
        metadata.set_metadata(block, index, data)
    assert block_events.filtered_block(block).number == 1
    block_events.strip_read_write_sets(block)
    for read in (blocks.block_signatures, metadata.last_config):
        with contextlib.suppress(MalformedBlock):
            read(block)


@given(data=st.binary(max_size=500).map(lambda data: data * 50))
def test_framing_equals_marshalling(data: bytes) -> None:
    block = blocks.new_block(1, b"", [data])
    assert (
        length_delimited(2, block.SerializeToString())
        == events_pb2.DeliverResponse(block=block).SerializeToString()
    )
