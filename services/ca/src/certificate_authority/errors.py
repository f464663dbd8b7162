"""Why the authority refuses: one class per status, each with a sentence and a cause to count."""

from __future__ import annotations


class AuthorityError(Exception):
    """The authority itself cannot work: its volume, its configuration, its roots. One sentence."""


class Refused(Exception):
    """A request is refused.

    Args:
        cause: the value of the metric's label `reason`, one of few.
        sentence: what was wrong and what to do, for the caller.
    """

    def __init__(self, cause: str, sentence: str) -> None:
        super().__init__(sentence)
        self.cause = cause


class InvalidRequest(Refused):
    """The request itself is unreadable or asks for what no token could allow."""


class NotAllowed(Refused):
    """The token does not give a right to this certificate."""


class TooManyRequests(Refused):
    """The rate that the configuration allows is used up."""
