"""What an examination finds: how bad it is, where, what, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from selvedge_common.quoting import printable

_CHARACTERS = 500  # of each part that is shown


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Something does not work because of it."""
    WARNING = "warning"
    """Something will not work, or not for everybody."""
    NOTE = "note"
    """Nothing is wrong with it; it explains what else may be strange."""


@dataclass(frozen=True)
class Finding:
    """One of them.

    Attributes:
        severity: how bad it is.
        where: a file, an address, a variable or a name.
        what: what is the case there.
        remedy: what to do about it.
    """

    severity: Severity
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        # Certificates, failures and variables are strangers' text.
        what = printable(f"{self.where}: {self.what}", _CHARACTERS)
        return f"{self.severity:<8} {what}; {printable(self.remedy, _CHARACTERS)}"

    def record(self) -> dict[str, str]:
        """As `--json` prints it."""
        return asdict(self)


def error(where: object, what: str, remedy: str) -> Finding:
    """A finding because of which something does not work."""
    return Finding(Severity.ERROR, str(where), what, remedy)


def warning(where: object, what: str, remedy: str) -> Finding:
    """A finding that is going to be one, or is one for others."""
    return Finding(Severity.WARNING, str(where), what, remedy)


def note(where: object, what: str, remedy: str) -> Finding:
    """A finding that explains."""
    return Finding(Severity.NOTE, str(where), what, remedy)
