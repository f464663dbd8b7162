"""Blocks: their hashes, their metadata and signatures.

Follows Fabric 2.5's protoutil/blockutils.go and orderer/common/multichannel/blockwriter.go, and for
the signatures of BFT channels 3.1's blockutils.go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from selvedge_common.msp.policies import SignedData
from selvedge_common.protoutil.errors import MalformedBlock, MalformedMessage
from selvedge_common.protoutil.metadata import (
    METADATA_ENTRIES,
    MetadataIndex,
    get_metadata,
    set_metadata,
)
from selvedge_common.protoutil.wire import Signer, marshal, new_nonce, parse
from selvedge_protos.common import common_pb2


def new_block(number: int, previous_hash: bytes, envelopes: Sequence[bytes]) -> common_pb2.Block:
    """Make block `number` out of marshalled envelopes; all metadata entries are there and empty.

    `previous_hash` is the `header_hash` of the block before, empty for block 0.
    """
    return common_pb2.Block(
        header=common_pb2.BlockHeader(
            number=number, previous_hash=previous_hash, data_hash=data_hash(envelopes)
        ),
        data=common_pb2.BlockData(data=envelopes),
        metadata=common_pb2.BlockMetadata(metadata=[b""] * METADATA_ENTRIES),
    )


def parse_block(data: bytes) -> common_pb2.Block:
    """Parse a marshalled block. Raises MalformedBlock."""
    try:
        return parse(common_pb2.Block, data, "block")
    except MalformedMessage as error:
        raise MalformedBlock(str(error)) from error


def data_hash(envelopes: Iterable[bytes]) -> bytes:
    """Give the SHA-256 over the marshalled envelopes, one after the other."""
    digest = hashlib.sha256()
    for envelope in envelopes:
        digest.update(envelope)
    return digest.digest()


def header_bytes(header: common_pb2.BlockHeader) -> bytes:
    """Give the header in DER: a SEQUENCE of INTEGER number and two OCTET STRINGs, the hashes."""
    number = header.number.to_bytes(header.number.bit_length() // 8 + 1, "big")
    return _der(
        0x30, _der(0x02, number) + _der(0x04, header.previous_hash) + _der(0x04, header.data_hash)
    )


def header_hash(header: common_pb2.BlockHeader) -> bytes:
    """Give the SHA-256 over `header_bytes`: the hash that the next block points to."""
    return hashlib.sha256(header_bytes(header)).digest()


def sign_block(block: common_pb2.Block, signer: Signer, last_config: int) -> None:
    """Sign the block as an orderer, in SIGNATURES and LAST_CONFIG.

    `last_config` is the number of the last configuration block. Each signature covers the
    metadata's value, the signature header and the DER form of the block's header.
    """
    header = header_bytes(block.header)
    config = common_pb2.LastConfig(index=last_config)
    values = {
        common_pb2.SIGNATURES: marshal(common_pb2.OrdererBlockMetadata(last_config=config)),
        common_pb2.LAST_CONFIG: marshal(config),
    }
    for index, value in values.items():
        signature_header = marshal(
            common_pb2.SignatureHeader(creator=signer.serialized, nonce=new_nonce())
        )
        signature = common_pb2.MetadataSignature(
            signature_header=signature_header,
            signature=signer.sign(value + signature_header + header),
        )
        metadata = common_pb2.Metadata(value=value, signatures=[signature])
        set_metadata(block, index, marshal(metadata))


def block_signatures(
    block: common_pb2.Block,
    index: MetadataIndex = common_pb2.SIGNATURES,
    consenters: Mapping[int, bytes] = MappingProxyType({}),
) -> list[SignedData]:
    """Give the orderers' signatures of the block with what each covers. Raises MalformedBlock.

    Args:
        index: SIGNATURES, or LAST_CONFIG, which orderers of 1.x sign as well.
        consenters: the serialized identities of a BFT channel's orderers, which sign by number.
            As in Fabric a signature by any other number is none.
    """
    metadata = get_metadata(block, index)
    header = header_bytes(block.header)
    where = f"in the metadata of block {block.header.number}"
    found = []
    try:
        for signature in metadata.signatures:
            signer: bytes | None
            if signature.identifier_header and not signature.signature_header:
                said = signature.identifier_header
                identifier = parse(common_pb2.IdentifierHeader, said, f"identifier header {where}")
                signer = consenters.get(identifier.identifier)
            else:
                said = signature.signature_header
                signer = parse(
                    common_pb2.SignatureHeader, said, f"signature header {where}"
                ).creator
            if signer is not None:
                found.append(
                    SignedData(metadata.value + said + header, signer, signature.signature)
                )
    except MalformedMessage as error:
        raise MalformedBlock(str(error)) from error
    return found


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content
