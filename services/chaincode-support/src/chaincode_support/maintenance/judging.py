"""Transactions of stored blocks, judged as the service judges them."""

from __future__ import annotations

import os
import sqlite3

from chaincode_support.chain import make_validator
from chaincode_support.ledger import index
from chaincode_support.ledger.admission import Admission
from selvedge_common.protoutil.config_block import open_config
from selvedge_common.protoutil.errors import ValidationCode
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2


class Judging:
    """Judges the blocks of a channel, each on a ledger that what comes before it led to.

    By the configuration in block 0, as the service, which refuses to change it; and like there the
    clock is not looked at, so it makes no difference when it is done.
    """

    def __init__(
        self, connection: sqlite3.Connection, channel: str, first: common_pb2.Block
    ) -> None:
        """`connection` shows that ledger; `first` is block 0. Raises MalformedBlock."""
        self._connection = connection
        self._channel = channel
        config = open_config(first)
        self._validator = make_validator(channel, config.policies, config.msps, os.cpu_count() or 1)

    def judge(self, block: common_pb2.Block) -> list[ValidationCode]:
        """The verdict on each transaction; the ledger is what the block leads to by them, then.

        Raises sqlite3.Error, MemoryError.
        """
        number = block.header.number
        if number == 0:
            return [transaction_pb2.VALID for _ in block.data.data]
        checked = self._validator.check_and_wait(block)
        codes = Admission(self._connection, self._channel, number).admit(checked)
        index.add(self._connection, number, [transaction.txid for transaction in checked], codes)
        return codes

    def close(self) -> None:
        """End its threads."""
        self._validator.close()
