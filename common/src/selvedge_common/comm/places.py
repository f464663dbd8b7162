"""Places for streams, of which no single client may have more than its share."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal


class Places:
    """Places for the streams of a service.

    Args:
        limit: how many there are.
        of_client: how many of them a client may have.

    Attributes:
        taken: how many streams have one.
    """

    def __init__(self, limit: int, of_client: int) -> None:
        self.limit = limit
        self.of_client = of_client
        self.taken = 0
        self._taken_by: Counter[bytes] = Counter()

    def full_for(self, client: bytes) -> Literal["all", "client"] | None:
        """Say why there is no place for a client, if there is none: all are taken, or its share.

        A client is known by anything that is its own, such as the hash of its certificate. One that
        is not known, an empty one, has no share.
        """
        if self.taken >= self.limit:
            return "all"
        return "client" if client and self._taken_by[client] >= self.of_client else None

    def take(self, client: bytes) -> None:
        """Take a place for a stream of a client, full or not."""
        self.taken += 1
        if client:
            self._taken_by[client] += 1

    def give_back(self, client: bytes) -> None:
        """Give it back."""
        self.taken -= 1
        if client:
            self._taken_by[client] -= 1
            if not self._taken_by[client]:
                del self._taken_by[client]

    @contextmanager
    def held(self, client: bytes) -> Iterator[None]:
        """Hold a place."""
        self.take(client)
        try:
            yield
        finally:
            self.give_back(client)
