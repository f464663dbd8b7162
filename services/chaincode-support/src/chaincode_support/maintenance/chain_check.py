"""Whether blocks are a chain: each whole, signed by an orderer, and bound to the one before it."""

from __future__ import annotations

from contextlib import suppress

from chaincode_support.maintenance.errors import Damaged
from selvedge_common.msp import (
    Identity,
    IdentityError,
    IdentityExpired,
    IdentityNotYetValid,
    PolicyError,
)
from selvedge_common.msp.identity import parse_serialized
from selvedge_common.msp.policies import PolicyGroup
from selvedge_common.protoutil import blocks
from selvedge_common.protoutil.config_block import ChannelConfig, open_config
from selvedge_common.protoutil.errors import MalformedBlock
from selvedge_common.protoutil.metadata import MetadataIndex
from selvedge_protos.common import common_pb2

ORDERER_GROUP, BLOCK_VALIDATION = "Orderer", "BlockValidation"
_SIGNED = (common_pb2.SIGNATURES, common_pb2.LAST_CONFIG)


class ChainCheck:
    """Checks the blocks of a channel in their order, by the configuration in the first one."""

    def __init__(self) -> None:
        self._signatures: Signatures | None = None
        self._previous: bytes | None = b""

    def check(self, number: int, marshalled: bytes) -> common_pb2.Block:
        """Parse block `number` and check whether it can be the next. Raises Damaged."""
        block = parse(number, marshalled)
        if block.header.number != number:
            raise Damaged(f"block {number} says that it is block {block.header.number}")
        if blocks.data_hash(block.data.data) != block.header.data_hash:
            raise Damaged(f"the data of block {number} does not fit its header")
        if self._previous is not None and block.header.previous_hash != self._previous:
            raise Damaged(f"block {number} is not bound to block {number - 1}")
        try:
            signatures = Signatures(open_config(block)) if number == 0 else self._signatures
            if signatures is not None:
                signatures.check(block)
        except MalformedBlock as error:
            raise Damaged(str(error)) from error
        return block

    def accept(self, block: common_pb2.Block) -> None:
        """Go on to the next block: this one was checked, here or where it is the same."""
        if block.header.number == 0:
            self._signatures = Signatures(open_config(block))
        self._previous = blocks.header_hash(block.header)

    def skip(self) -> None:
        """Pass over a damaged block: the next one is not asked what it is bound to."""
        self._previous = None


class Signatures:
    """Who may sign a channel's blocks, at whatever time it was done."""

    def __init__(self, config: ChannelConfig) -> None:
        self._msps = config.msps
        self._policies = config.policies.groups.get(ORDERER_GROUP, PolicyGroup({}))
        self._signers: dict[bytes, Identity] = {}

    def check(self, block: common_pb2.Block) -> None:
        """Raises MalformedBlock when a signature that must be there is not, or does not hold."""
        number = block.header.number
        for index in _SIGNED:
            signatures = blocks.block_signatures(block, index)
            if number == 0 and not signatures:
                continue  # in Fabric no first block is signed
            signers: list[Identity] = []
            reasons: list[str] = []
            for signed in signatures:
                try:
                    signer = self._identify(signed.identity)
                    signer.verify(signed.message, signed.signature)
                    signers.append(signer)
                except IdentityError as error:
                    reasons.append(str(error))
            if not self._suffice(signers):
                raise MalformedBlock(
                    f"block {number} has no signature of an orderer that holds, in its metadata "
                    f"{_name(index)}. {' '.join(reasons)}".rstrip()
                )

    def _suffice(self, signers: list[Identity]) -> bool:
        try:
            return self._policies.satisfied(BLOCK_VALIDATION, signers, self._msps)
        except PolicyError as error:
            raise MalformedBlock(str(error)) from error

    def _identify(self, serialized: bytes) -> Identity:
        signer = self._signers.get(serialized)
        if signer is None:
            msp = self._msps.get(parse_serialized(serialized).mspid)
            if msp is None:
                raise IdentityError("The signer's organisation is not in the channel.")
            signer = msp.deserialize(serialized)
            # It was valid when the block was made: orderers that renewed since are still believed.
            with suppress(IdentityExpired, IdentityNotYetValid):
                msp.validate(signer)
            self._signers[serialized] = signer
        return signer


def parse(number: int, marshalled: bytes) -> common_pb2.Block:
    """Parse block `number` as this project writes it. Raises Damaged for any other bytes."""
    try:
        block = blocks.parse_block(marshalled)
    except MalformedBlock as error:
        raise Damaged(f"block {number} is damaged: its bytes are not those of a block") from error
    block.DiscardUnknownFields()
    if block.SerializeToString() != marshalled:
        raise Damaged(f"block {number} has bytes that belong to nothing in it")
    return block


def check_ordered(chain: ChainCheck, number: int, marshalled: bytes) -> common_pb2.Block:
    """The same for a block of an ordering log, which gives no verdicts. Raises Damaged."""
    block = chain.check(number, marshalled)
    if _has_verdicts(block):
        raise Damaged(f"block {number} has verdicts, which only a ledger gives")
    return block


def as_ordered(block: common_pb2.Block) -> bytes:
    """The marshalled block of a ledger as its ordering log has it: without verdicts."""
    ordered = common_pb2.Block()
    ordered.CopyFrom(block)
    if _has_verdicts(block):
        ordered.metadata.metadata[common_pb2.TRANSACTIONS_FILTER] = b""
    return ordered.SerializeToString()


def _has_verdicts(block: common_pb2.Block) -> bool:
    entries = block.metadata.metadata
    return len(entries) > common_pb2.TRANSACTIONS_FILTER and bool(
        entries[common_pb2.TRANSACTIONS_FILTER]
    )


def _name(index: MetadataIndex) -> str:
    return common_pb2.BlockMetadataIndex.Name(index)
