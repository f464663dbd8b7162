"""Which stream serves which chaincode.

Follows core/chaincode/handler_registry.go of Fabric 2.5, with the name without its version as
key (a proposal names no version), and with a deregistration that only ever removes the stream
that asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from chaincode_support.chaincode.errors import DuplicateChaincode
from chaincode_support.chaincode.known_names import KnownNames


class Registered(Protocol):
    """What the registry needs of a stream."""

    @property
    def name(self) -> str: ...

    @property
    def registered_name(self) -> str: ...

    @property
    def peer(self) -> str: ...


S = TypeVar("S", bound=Registered)


class Registry(Generic[S]):
    """The ready streams by chaincode name. Belongs to one event loop."""

    def __init__(self, known: KnownNames) -> None:
        """`known`: the names that registered before, to which more are added."""
        self._streams: dict[str, S] = {}
        self._known = known
        self._waiting: dict[str, set[asyncio.Future[S]]] = {}

    def __iter__(self) -> Iterator[S]:
        return iter(list(self._streams.values()))

    def register(self, stream: S) -> None:
        """Take the stream's name for it. Raises DuplicateChaincode when another stream holds it."""
        holder = self._streams.get(stream.name)
        if holder is not None:
            raise DuplicateChaincode(
                f'Duplicate chaincodeID error: name:"{stream.registered_name}": another stream '
                f"(from {holder.peer}, registered as {holder.registered_name}) already serves "
                f"chaincode {stream.name}; stop that process first, or register another name"
            )
        self._streams[stream.name] = stream
        self._known.add(stream.name)

    def ready(self, stream: S) -> None:
        """Say that READY was sent: whoever waits for this chaincode may go on."""
        for waiting in self._waiting.pop(stream.name, ()):
            if not waiting.done():
                waiting.set_result(stream)

    def deregister(self, stream: S) -> None:
        """Free the name, if it is this stream that holds it."""
        if self._streams.get(stream.name) is stream:
            del self._streams[stream.name]

    def get(self, name: str) -> S | None:
        """The stream that serves the chaincode now, or None."""
        return self._streams.get(name)

    def known(self, name: str) -> bool:
        """Whether the chaincode is here, or was before, also before the peer restarted."""
        return name in self._known

    def waiting(self, name: str) -> int:
        """How many callers wait for the chaincode."""
        return len(self._waiting.get(name, ()))

    async def wait_for(self, name: str) -> S:
        """The stream that serves the chaincode, as soon as there is one."""
        stream = self._streams.get(name)
        if stream is not None:
            return stream
        waiting: asyncio.Future[S] = asyncio.get_running_loop().create_future()
        others = self._waiting.setdefault(name, set())
        others.add(waiting)
        try:
            return await waiting
        finally:
            others.discard(waiting)
            if not others and self._waiting.get(name) is others:
                del self._waiting[name]
