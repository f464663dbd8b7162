"""What can be wrong with a message; every text is one sentence: what, where and what to do."""

from __future__ import annotations

from typing import TypeAlias

from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2

ValidationCode: TypeAlias = transaction_pb2.TxValidationCode.ValueType


class MalformedMessage(ValueError):
    """The root of everything that can be wrong with the form of a message."""


class MalformedProposal(MalformedMessage):
    """A signed proposal lacks what an endorser needs, or contradicts itself."""


class MalformedTransaction(MalformedMessage):
    """A transaction lacks what a committer needs, or contradicts itself.

    Attributes:
        code: the validation code that Fabric's committer gives such a transaction.
    """

    def __init__(self, code: ValidationCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class MismatchedEndorsements(MalformedMessage):
    """Proposal responses that cannot be made into one transaction."""


class MalformedBlock(MalformedMessage):
    """A block, or its metadata, is not what a block is."""


class MalformedSeek(MalformedMessage):
    """A Deliver request lacks what is needed to answer it, or contradicts itself."""


class BlockUnavailable(Exception):
    """A block that is in a channel and cannot be given now, or no more.

    Attributes:
        status: what a Deliver request for it is answered with, a common.Status.
    """

    def __init__(self, status: common_pb2.Status.ValueType, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
