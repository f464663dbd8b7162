"""What is going on, for whoever waits."""

from __future__ import annotations

import sys


def say(what: str) -> None:
    """Print a line, beside the results."""
    print(f"bench: {what} …", file=sys.stderr, flush=True)
