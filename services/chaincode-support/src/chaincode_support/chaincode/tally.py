"""How transactions went: counts, and what failed last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(slots=True)
class Tally:
    """Of one chaincode, or of one of its streams."""

    completed: int = 0
    failed: int = 0
    last_error: str = ""
    last_error_at: datetime | None = None

    def fail(self, reason: str) -> None:
        """A transaction failed."""
        self.failed += 1
        self.note(reason)

    def note(self, reason: str) -> None:
        """Something failed that was no transaction, such as registering."""
        self.last_error = reason
        self.last_error_at = datetime.now(UTC)
