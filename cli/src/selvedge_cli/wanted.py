"""Which events somebody wants to see."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Wanted:
    """Which events.

    Attributes:
        kind: block, filtered, chaincode, rejection or transaction.
        chaincodes, names, creators: only those of these; empty means any. A * in a name stands for
            any characters.
    """

    kind: str
    chaincodes: Collection[str] = ()
    names: Collection[str] = ()
    creators: Collection[str] = ()

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint of runs that print just these."""
        filters = [sorted(each) for each in (self.chaincodes, self.names, self.creators)]
        if not any(filters):
            return self.kind
        return f"{self.kind}-{hashlib.sha256(json.dumps(filters).encode()).hexdigest()[:16]}"
