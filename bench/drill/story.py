"""What the sources have to tell, made block by block, and what a consumer hears of it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

from bench.event_source import EVENT, Maker
from selvedge_common.protoutil.block_events import chaincode_events
from selvedge_common.protoutil.blocks import header_hash
from selvedge_common.protoutil.metadata import validation_codes
from selvedge_common.protoutil.responses import block_response
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2

VALID, REJECTED = transaction_pb2.VALID, transaction_pb2.MVCC_READ_CONFLICT
_CONFIGURATIONS = 0.03
"""So many of the blocks hold a configuration, for which the next ones are judged anew."""
_TRANSACTIONS = (1, 1, 2, 2, 3, 3, 4, 4, 4, 100)
"""In a block, by chance: the most are more than what is told of in one turn."""
_SIZES = (10,) * 10 + (200,) * 5 + (2_000,) * 3 + (30_000,)
"""Bytes of an event's payload, by chance."""

Chapters = list[list[str]]
"""By block, what is heard of it: words in order."""


class Story:
    """The channel so far.

    Args:
        home: of whose orderer, peer and user it is.

    Attributes:
        filtered: what Chat tells whoever is registered for CHAINCODE, REJECTION and FILTEREDBLOCK.
        whole: the same for CHAINCODE and BLOCK.
        delivered: what Deliver gives.
        noticed: what a subscription to everything is told.
    """

    def __init__(self, home: Path) -> None:
        self.filtered: Chapters = []
        self.whole: Chapters = []
        self.delivered: Chapters = []
        self.noticed: Chapters = []
        self._maker = Maker(home)

    @property
    def height(self) -> int:
        """How many blocks there are."""
        return len(self.delivered)

    def go_on(self, chosen: random.Random) -> bytes:
        """Make the next block, marshalled."""
        if not self.height or chosen.random() < _CONFIGURATIONS:
            return self._told(self._maker.configuration())
        envelopes, codes = [], []
        for _ in range(chosen.choice(_TRANSACTIONS)):
            event = EVENT if chosen.random() < 0.8 else None
            envelopes.append(self._maker.transaction(bytes(chosen.choice(_SIZES)), event))
            codes.append(VALID if chosen.random() < 0.8 else REJECTED)
        return self._told(self._maker.block(envelopes, codes))

    def _told(self, marshalled: bytes) -> bytes:
        block = common_pb2.Block.FromString(marshalled)
        number, codes = block.header.number, validation_codes(block)
        opened = [*map(_open, block.data.data)]
        txids = [txid for txid, _, _ in opened]
        events = [
            event(txid)
            for (txid, named, _), code in zip(opened, codes, strict=True)
            if named and code == VALID
        ]
        rejections = [rejection(t) for t, c in zip(txids, codes, strict=True) if c != VALID]
        self.filtered.append([*events, *rejections, filtered_block(number, txids, codes)])
        self.whole.append([*events, whole_block(block.header)])
        self.delivered.append([delivered_block(block_response(marshalled))])
        self.noticed.append(
            [
                notice(number, txid, transaction_pb2.TxValidationCode.Name(code), named, size)
                for (txid, named, size), code in zip(opened, codes, strict=True)
            ]
        )
        return marshalled


def event(txid: str) -> str:
    """A CHAINCODE event."""
    return f"event of {txid}"


def rejection(txid: str) -> str:
    """A REJECTION."""
    return f"rejection of {txid}"


def filtered_block(number: int, txids: Sequence[str], codes: Sequence[int]) -> str:
    """A FILTEREDBLOCK."""
    transactions = " ".join(f"{t}={c}" for t, c in zip(txids, codes, strict=True))
    return f"filtered block {number}: {transactions}"


def whole_block(header: common_pb2.BlockHeader) -> str:
    """A BLOCK, which has no read-write sets: so it is its header that is compared."""
    return f"block {header.number}: {header_hash(header).hex()}"


def delivered_block(response: bytes) -> str:
    """What Deliver sends, every byte of it."""
    return f"response with SHA-256 {hashlib.sha256(response).hexdigest()}"


def notice(number: int, txid: str, code: str, named: bool, size: int) -> str:
    """A transaction's notice."""
    event = f"with an event of {size} bytes" if named else "without event"
    return f"notice of {txid} in block {number}: {code}, {event}"


def _open(envelope: bytes) -> tuple[str, bool, int]:
    """A transaction's id, whether it has an event, and how long its payload is."""
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    for made, _ in chaincode_events(envelope):
        return header.tx_id, True, len(made.payload)
    return header.tx_id, False, 0
