"""The places that there are for chaincode streams, and who may have how many.

Names are taken once, but streams without one could be anybody's: whoever holds back REGISTER must
not keep others out.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

import grpc

from chaincode_support.chaincode.stream import ChaincodeStream, State
from selvedge_common.comm import StatusError


class _Kind(enum.Enum):
    """Whose stream it is."""

    CHAINCODE = 1
    # Showed no certificate, where others do.
    ANONYMOUS = 2
    # Will be refused, but until REGISTER nobody can tell it which certificate it needs.
    STRANGER = 3


class Places:
    """At most `streams` at a time, of which `unregistered` may not have sent REGISTER yet.

    Half of either is for those that show a certificate, where they do; a quarter of the
    unregistered ones is what one certificate's name can have, and all strangers together.
    """

    def __init__(self, streams: int, unregistered: int) -> None:
        self._streams = streams
        self._unregistered = unregistered

    def check(self, newcomer: ChaincodeStream, others: Collection[ChaincodeStream]) -> None:
        """Return when there is one beside `others`. Raises StatusError RESOURCE_EXHAUSTED."""
        kind = _kind(newcomer)
        same = [stream for stream in others if _kind(stream) is kind]
        half = max(1, self._streams // 2)
        if len(others) >= self._streams or (kind is _Kind.ANONYMOUS and len(same) >= half):
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the peer serves {len(others)} chaincode streams, the limit of "
                f"chaincode.limits.streams ({self._streams}, without a certificate half of them); "
                "stop one, or raise the limit",
            )
        # What the peer dialled itself is in nobody's way.
        waiting = [each for each in same if each.state is State.CREATED and not each.dialled]
        most = {
            _Kind.CHAINCODE: self._unregistered,
            _Kind.ANONYMOUS: max(1, self._unregistered // 2),
            _Kind.STRANGER: max(1, self._unregistered // 4),
        }[kind]
        if len(waiting) >= most:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{len(waiting)} chaincode streams have not sent REGISTER yet, the limit of "
                "chaincode.limits.unregistered; try again in a moment",
            )
        own = sum(each.client == newcomer.client for each in waiting) if newcomer.client else 0
        if own >= max(1, self._unregistered // 4):
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{own} streams of {', '.join(newcomer.client)} have not sent REGISTER yet, its "
                "share of chaincode.limits.unregistered; send REGISTER on them",
            )


def _kind(stream: ChaincodeStream) -> _Kind:
    if stream.is_stranger:
        return _Kind.STRANGER
    return _Kind.ANONYMOUS if stream.is_anonymous else _Kind.CHAINCODE
