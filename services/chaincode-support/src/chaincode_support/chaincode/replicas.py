"""The executors of one chaincode, and whose turn it is.

Fabric has one stream a name. Here a chaincode may have replicas, as anything else on Kubernetes
has; while one release of it replaces another, the newer one gets what begins.
"""

from __future__ import annotations

from collections.abc import Iterator

from chaincode_support.chaincode.executor import Executor


class Replicas:
    """Those that serve one name, in the order in which they registered."""

    def __init__(self) -> None:
        self._members: list[Executor] = []
        # In the order in which their first members came.
        self._releases: list[str] = []

    def __iter__(self) -> Iterator[Executor]:
        return iter(list(self._members))

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Executor) -> None:
        """If nobody registered the same release, it is the current one from now on."""
        self._members.append(member)
        if member.registered_name not in self._releases:
            self._releases.append(member.registered_name)

    def remove(self, member: Executor) -> None:
        """It is gone; a release without members may come again as a new one."""
        self._members.remove(member)
        release = member.registered_name
        if all(other.registered_name != release for other in self._members):
            self._releases.remove(release)

    def current(self, member: Executor) -> bool:
        """Whether it is of the release that gets new transactions."""
        return member.registered_name == self._release()

    def next(self) -> Executor | None:
        """Who gets the next transaction, and has had its turn now."""
        chosen = self.peek()
        if chosen is not None and len(self._members) > 1:
            # To the end of the line: among equals turns go round.
            self._members.remove(chosen)
            self._members.append(chosen)
        return chosen

    def peek(self) -> Executor | None:
        """Whose turn it is: of the current release whoever runs the fewest.

        One that let a transaction time out and said nothing since comes after the others.
        """
        if len(self._members) == 1:
            (only,) = self._members
            return only if only.available else None
        release = self._release()
        candidates = [
            member
            for member in self._members
            if member.available and member.registered_name == release
        ]
        return min(
            candidates, key=lambda member: (not member.responsive, member.running), default=None
        )

    def _release(self) -> str:
        """The newest with an available member; empty when there is none."""
        available = {member.registered_name for member in self._members if member.available}
        return next((name for name in reversed(self._releases) if name in available), "")
