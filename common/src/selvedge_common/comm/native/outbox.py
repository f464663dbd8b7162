"""What is to be sent on one stream and does not fit its windows yet."""

from collections import deque


class Outbox:
    """Messages in the order in which they are to leave, each as the pieces that are left of it.

    Attributes:
        bytes: what waits.
    """

    __slots__ = ("_begun", "_messages", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._messages: deque[list[bytes | memoryview]] = deque()
        self._begun = False  # some of the first message has gone

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._messages)

    def add(self, *pieces: bytes) -> int:
        """Have a message wait, such as its prefix and itself; gives its bytes."""
        size = sum(map(len, pieces))
        self._messages.append(list(pieces))
        self.bytes += size
        return size

    def take(self, size: int) -> list[bytes | memoryview]:
        """Take the next bytes, so many of those that wait, without copying them."""
        taken: list[bytes | memoryview] = []
        self.bytes -= size
        while size:
            pieces = self._messages[0]
            first = pieces[0]
            self._begun = True
            if len(first) > size:
                view = memoryview(first)
                taken.append(view[:size])
                pieces[0] = view[size:]
                return taken
            taken.append(first)
            size -= len(first)
            del pieces[0]
            if not pieces:
                self._messages.popleft()
                self._begun = False
        return taken

    def cut(self) -> int:
        """Drop what has not begun to leave; gives how many bytes that were.

        Clients take a message that is cut short for a fault and do not look at the status.
        """
        before = self.bytes
        rest = self._messages[0] if self._begun else None
        self.clear()
        if rest is not None:
            self._messages.append(rest)
            self._begun = True
            self.bytes = sum(map(len, rest))
        return before - self.bytes

    def clear(self) -> int:
        """Drop everything; gives how many bytes that were."""
        before, self.bytes = self.bytes, 0
        self._messages.clear()
        self._begun = False
        return before
