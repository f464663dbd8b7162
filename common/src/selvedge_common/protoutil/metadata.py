"""The metadata of a block: one entry for each BlockMetadataIndex.

Follows Fabric 2.5's protoutil/blockutils.go and internal/pkg/txflags/validation_flags.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from selvedge_common.protoutil.errors import MalformedBlock, MalformedMessage, ValidationCode
from selvedge_common.protoutil.field_count import has_more_fields
from selvedge_common.protoutil.wire import parse
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2

# Each is verified, which takes about 0.1 ms, whoever sends the block.
MAX_SIGNATURES = 256
METADATA_ENTRIES = len(common_pb2.BlockMetadataIndex.values())
MetadataIndex: TypeAlias = common_pb2.BlockMetadataIndex.ValueType


def get_metadata(block: common_pb2.Block, index: MetadataIndex) -> common_pb2.Metadata:
    """Give the metadata at `index`, empty where there is none. Raises MalformedBlock.

    TRANSACTIONS_FILTER is no Metadata message: see `validation_codes`.
    """
    entry = _entry(block, index)
    # Beside the value; counted before parsing, which would make an object of each.
    if has_more_fields(entry, MAX_SIGNATURES + 1):
        raise MalformedBlock(
            f"Metadata {index} of block {block.header.number} has more than {MAX_SIGNATURES}"
            " signatures: no channel has so many orderers."
        )
    try:
        return parse(
            common_pb2.Metadata,
            entry,
            f"metadata {index} of block {block.header.number}",
        )
    except MalformedMessage as error:
        raise MalformedBlock(str(error)) from error


def set_metadata(block: common_pb2.Block, index: MetadataIndex, data: bytes) -> None:
    """Put marshalled `data` at `index`; missing entries up to the usual five become empty."""
    entries = block.metadata.metadata
    entries.extend([b""] * (METADATA_ENTRIES - len(entries)))
    entries[index] = data


def validation_codes(block: common_pb2.Block) -> list[ValidationCode]:
    """Give the code of each transaction; NOT_VALIDATED where the block holds none."""
    filter_ = _entry(block, common_pb2.TRANSACTIONS_FILTER)
    missing = len(block.data.data) - len(filter_)
    codes = [*filter_[: len(block.data.data)], *[int(transaction_pb2.NOT_VALIDATED)] * missing]
    return [ValidationCode(code) for code in codes]


def set_validation_codes(block: common_pb2.Block, codes: Sequence[ValidationCode]) -> None:
    """Put one code for each transaction, in their order."""
    if len(codes) != len(block.data.data):
        raise MalformedBlock(
            f"Block {block.header.number} has {len(block.data.data)} transactions and was given"
            f" {len(codes)} validation codes: give one for each."
        )
    set_metadata(block, common_pb2.TRANSACTIONS_FILTER, bytes(codes))


def last_config(block: common_pb2.Block) -> int:
    """Give the number of the last configuration block before or at this one.

    Read from SIGNATURES, or as before release 1.4.1 from LAST_CONFIG. Raises MalformedBlock.
    """
    try:
        value = get_metadata(block, common_pb2.SIGNATURES).value
        if value:
            return parse(
                common_pb2.OrdererBlockMetadata, value, "orderer's block metadata"
            ).last_config.index
        value = get_metadata(block, common_pb2.LAST_CONFIG).value
        return parse(common_pb2.LastConfig, value, "last configuration's number").index
    except MalformedBlock:
        raise
    except MalformedMessage as error:
        raise MalformedBlock(str(error)) from error


def _entry(block: common_pb2.Block, index: MetadataIndex) -> bytes:
    entries = block.metadata.metadata
    return entries[index] if index < len(entries) else b""
