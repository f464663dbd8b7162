"""Who serves which chaincode.

Follows core/chaincode/handler_registry.go of Fabric 2.5, with the name without its version as
key (a proposal names no version), with replicas where certificates vouch for them, and with a
deregistration that only ever removes the stream that asks for it.
"""

from __future__ import annotations

import asyncio

from chaincode_support.chaincode.errors import DuplicateChaincode, TooManyReplicas
from chaincode_support.chaincode.executor import Executor
from chaincode_support.chaincode.known_names import MAX_NAMES, KnownNames
from chaincode_support.chaincode.replicas import Replicas
from chaincode_support.chaincode.tally import Tally


class Registry:
    """Whoever is registered, by chaincode name. Belongs to one event loop."""

    def __init__(self, known: KnownNames, max_replicas: int = 16) -> None:
        """`known`: the names that registered before, to which more are added; `max_replicas` may
        serve one name."""
        self._replicas: dict[str, Replicas] = {}
        self._known = known
        self._max_replicas = max_replicas
        self._tallies: dict[str, Tally] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def register(self, executor: Executor) -> None:
        """Let it serve its name, once `ready` says so.

        Raises DuplicateChaincode when others hold the name and not all of them, and it, can prove
        theirs; TooManyReplicas at the limit.
        """
        name = executor.name
        replicas = self._replicas.get(name)
        for holder in replicas or ():
            if not (holder.certified and executor.certified):
                raise DuplicateChaincode(
                    f'Duplicate chaincodeID error: name:"{executor.registered_name}": another '
                    f"stream (from {holder.peer}, registered as {holder.registered_name}) already "
                    f"serves chaincode {name}; stop that process first, or register another name; "
                    "replicas need mutual TLS, each with a certificate of this name"
                )
        if replicas is None:
            replicas = self._replicas[name] = Replicas()
        if len(replicas) >= self._max_replicas:
            raise TooManyReplicas(
                f"{len(replicas)} streams serve chaincode {name} already, the limit of "
                "chaincode.limits.replicas; stop one, or raise the limit"
            )
        replicas.add(executor)
        self._known.add(name)

    def ready(self, executor: Executor) -> None:
        """Say that READY was sent: whoever waits for this chaincode may go on."""
        for waiting in self._waiting.pop(executor.name, ()):
            if not waiting.done():
                waiting.set_result(None)

    def failed(self, name: str, cause: Exception) -> None:
        """Say that the chaincode will not come: whoever waits for it is told why."""
        for waiting in self._waiting.pop(name, ()):
            if not waiting.done():
                waiting.set_exception(cause)

    def deregister(self, executor: Executor) -> None:
        """Free its place; the others of its name keep theirs."""
        replicas = self._replicas.get(executor.name)
        if replicas is None or executor not in replicas:
            return
        replicas.remove(executor)
        if not len(replicas):
            del self._replicas[executor.name]

    def next(self, name: str) -> Executor | None:
        """Who gets the chaincode's next transaction, and has had its turn now; None when nobody
        serves it."""
        replicas = self._replicas.get(name)
        return replicas.next() if replicas is not None else None

    def peek(self, name: str) -> Executor | None:
        """Whose turn it is; None when nobody serves the chaincode now."""
        replicas = self._replicas.get(name)
        return replicas.peek() if replicas is not None else None

    def replicas(self, name: str) -> Replicas:
        """All that serve the chaincode now."""
        return self._replicas.get(name) or Replicas()

    def names(self) -> list[str]:
        """Every name that is served now or was before, in alphabetical order."""
        return sorted({*self._known, *self._replicas})

    def known(self, name: str) -> bool:
        """Whether the chaincode is here, or was before, also before the peer restarted."""
        return name in self._replicas or name in self._known

    def tally(self, name: str) -> Tally:
        """How the chaincode's transactions went since the peer started."""
        tally = self._tallies.get(name)
        if tally is None:
            if len(self._tallies) >= 2 * MAX_NAMES:
                self._tallies = {
                    known: tally for known, tally in self._tallies.items() if self.known(known)
                }
            tally = self._tallies[name] = Tally()
        return tally

    def waiting(self, name: str) -> int:
        """How many callers wait for the chaincode."""
        return len(self._waiting.get(name, ()))

    async def wait_for(self, name: str) -> None:
        """Return as soon as somebody serves the chaincode. Raises what `failed` was told."""
        if self.peek(name) is not None:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        others = self._waiting.setdefault(name, set())
        others.add(waiting)
        try:
            await waiting
        finally:
            others.discard(waiting)
            if not others and self._waiting.get(name) is others:
                del self._waiting[name]
