"""How a channel stands with its source, for operators to see."""

from dataclasses import dataclass


@dataclass
class SourceStatus:
    """What whoever reads the source knows of it now.

    Attributes:
        address: the one that is read now; empty while none is.
        newest: the number of the source's newest block, as far as it was seen; None before any was.
        trouble: why the channel is not read, or cannot be read on; empty when all is well.
    """

    address: str = ""
    newest: int | None = None
    trouble: str = ""

    def behind(self, height: int) -> int:
        """How many blocks the source has beyond so many."""
        return max(0, self.newest + 1 - height) if self.newest is not None else 0
