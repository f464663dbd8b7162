"""What a chaincode author writes, and what each transaction returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selvedge_shim.stub import Stub

OK = 200
ERROR = 500


@dataclass(frozen=True, slots=True)
class Response:
    """The outcome of one transaction; a peer endorses those with a status below 400."""

    status: int
    message: str = ""
    payload: bytes = b""


def success(payload: bytes | str = b"") -> Response:
    """Make the response of a transaction that went well; text is sent as UTF-8."""
    return Response(OK, payload=payload.encode() if isinstance(payload, str) else payload)


def error(message: str, status: int = ERROR) -> Response:
    """Make the response of a transaction that must not be endorsed (status 400 and up)."""
    return Response(status, message)


class Chaincode:
    """A chaincode: override `invoke`, and `init` where there is something to prepare.

    Both are coroutines. All transactions run on one event loop, many at a time: whatever is kept on
    `self` is shared by them, and blocking calls hold up the others.
    """

    async def init(self, stub: Stub) -> Response:
        """Run once per deployment where the channel's definition asks for it."""
        return success()

    async def invoke(self, stub: Stub) -> Response:
        """Run one transaction."""
        raise NotImplementedError(f"{type(self).__name__} has no invoke")
