"""Whether the blocks of a source continue the channel the hub has been reading."""

from dataclasses import dataclass

from selvedge_common.protoutil import blocks
from selvedge_common.protoutil.config_block import is_config_block
from selvedge_common.protoutil.metadata import METADATA_ENTRIES, validation_codes
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2

# Twice as many as there are kinds.
MAX_METADATA = 2 * METADATA_ENTRIES


class ChainError(Exception):
    """A source's block that the hub must not pass on. ``cause`` is what the metric calls it."""

    cause = "chain"


class Gap(ChainError):
    """The source left blocks out, or repeats some."""

    cause = "gap"


class Fork(ChainError):
    """The source's channel has another history than the one the hub has read."""

    cause = "fork"


class Behind(ChainError):
    """The source has less of the channel than the hub has read."""

    cause = "behind"


class DamagedBlock(ChainError):
    """The block contradicts itself."""

    cause = "damaged_block"


class NotSigned(ChainError):
    """The orderers of the channel did not sign the block."""

    cause = "signature"


class UnusableConfiguration(ChainError):
    """The source's configuration of the channel cannot be used to judge its blocks."""

    cause = "configuration"


@dataclass(frozen=True)
class Position:
    """A place in a channel.

    Args:
        number: the block's number.
        hash: the hash of its header, which the next block has to name.
    """

    number: int
    hash: bytes


def check_data(block: common_pb2.Block) -> None:
    """Check that a block's data are those that its header was made for, and that what nothing
    vouches for, its metadata, is no more than there may be. Raises DamagedBlock."""
    entries = len(block.metadata.metadata)
    if entries > MAX_METADATA:
        raise DamagedBlock(
            f"block {block.header.number} has {entries} entries of metadata, and no release of "
            f"Fabric has more than {MAX_METADATA}; the source's ledger is damaged or altered"
        )
    if blocks.data_hash(block.data.data) != block.header.data_hash:
        raise DamagedBlock(
            f"the data of block {block.header.number} do not fit the hash in its header; "
            "the source's ledger is damaged or altered"
        )


def check_codes(block: common_pb2.Block) -> None:
    """Check that a peer's block says of each transaction whether it is valid. Raises DamagedBlock.

    No signature covers that, so that a source could have transactions left out by leaving out their
    codes. A peer commits no block without them (release 2.5, core/committer/txvalidator), but older
    ones have none for the first configuration.
    """
    if transaction_pb2.NOT_VALIDATED in validation_codes(block) and not is_config_block(block):
        raise DamagedBlock(
            f"block {block.header.number} does not say of all its {len(block.data.data)} "
            "transactions whether they are valid; the source's ledger is damaged or altered"
        )


def position_of(block: common_pb2.Block) -> Position:
    """Where a block is."""
    return Position(block.header.number, blocks.header_hash(block.header))


class Chain:
    """The channel as far as it has been read.

    Args:
        channel: its name.
        last: the last block that was read, or None before the first. Whoever reads moves it on,
            once the block is safe with those it is for.
        key: of the source in the settings, for sentences.

    Attributes:
        first: the number of the block that it begins with.
    """

    def __init__(self, channel: str, last: Position | None, key: str = "source") -> None:
        self.last = last
        self.first = 0
        self._channel = channel
        self._key = key

    def check(self, block: common_pb2.Block, after: Position | None = None) -> Position:
        """Check that a block follows, and give its position.

        Args:
            block: the next one.
            after: what it has to follow; the last block that was read, if not given.

        Raises:
            Gap: its number is not the next one, or, of the first block, not that to begin with.
            Fork: it does not follow the block that was read last.
            DamagedBlock: its data are not those its header was made for.
        """
        header, last = block.header, after or self.last
        if last is not None:
            if header.number != last.number + 1:
                raise Gap(
                    f"the source sent block {header.number} after block {last.number}; "
                    "check that it serves the whole channel"
                )
            if header.previous_hash != last.hash:
                raise Fork(
                    f"block {header.number} of the source does not follow the block "
                    f"{last.number} that this hub has read; the source serves another history "
                    f"of the channel; {self._remedy}"
                )
        elif header.number != self.first:
            raise Gap(
                f"the source sent block {header.number}, and the hub has to begin with block "
                f"{self.first}; check that it serves the whole channel"
            )
        check_data(block)
        return position_of(block)

    def recognise(self, block: common_pb2.Block) -> None:
        """Check that a source's copy of the block that was read last is that block.

        Raises:
            Fork: it is another one.
        """
        if position_of(block) != self.last:
            raise Fork(
                f"block {block.header.number} of the source is not the one this hub has read; "
                f"the source serves another history of the channel; {self._remedy}"
            )

    def reaches(self, newest: int) -> None:
        """Check that a source has what was read.

        Args:
            newest: the number of the source's newest block.

        Raises:
            Behind: it has less.
        """
        if self.last is not None and newest < self.last.number:
            raise Behind(
                f"this hub has read {self._channel} up to block {self.last.number}, but the source "
                f"ends at block {newest}; wait until it has caught up, or {self._remedy}"
            )

    @property
    def _remedy(self) -> str:
        """What to do for whoever replaced a ledger, on purpose or by mistake."""
        return (
            f"point {self._key}.addresses to a peer with the history this hub has read, or, if the "
            f"ledger was replaced on purpose, stop the hub, delete {self._channel}.json in the "
            f"folder {self._key}.checkpoint and start it again"
        )
