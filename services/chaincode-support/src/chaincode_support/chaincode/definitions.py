"""What a channel says of its chaincodes; so far every chaincode has a definition by default.

A chaincode that registers is defined by that: its version is the one that it registered, its
endorsement policy is the channel's, and it needs no initialisation unless the settings say so.
Follows CheckInvocation in core/chaincode/chaincode_support.go of Fabric 2.5.
"""

from __future__ import annotations

from collections.abc import Collection

from chaincode_support.chaincode.errors import NotInitialized
from chaincode_support.chaincode.simulator import Simulator

# The key under which Fabric keeps, in the chaincode's own namespace, the version it initialised.
INITIALIZED_KEY = "\x00" + chr(0x10FFFF) + "initialized"


class Definitions:
    """The definitions by default."""

    def __init__(self, init_required: Collection[str]) -> None:
        """`init_required`: names of chaincodes that must be initialised before they are invoked,
        each version of them once."""
        self._init_required = frozenset(init_required)

    def init_required(self, chaincode: str) -> bool:
        """Whether the chaincode's Init must be run first."""
        return chaincode in self._init_required

    def check_invocation(
        self, chaincode: str, version: str, simulator: Simulator, *, is_init: bool
    ) -> None:
        """Return when Init, or Invoke, is what the chaincode may run now; an Init is recorded.

        Raises NotInitialized, and LedgerError.
        """
        if not self.init_required(chaincode):
            if is_init:
                raise NotInitialized(
                    f"chaincode '{chaincode}' does not require initialization but called as init: "
                    "invoke it without, or name it in chaincode.initRequired"
                )
            return
        initialized = simulator.get_state(chaincode, INITIALIZED_KEY) == version.encode()
        if is_init:
            if initialized:
                raise NotInitialized(
                    f"chaincode '{chaincode}' is already initialized but called as init: version "
                    f"{version} was; invoke it without"
                )
            simulator.put_state(chaincode, INITIALIZED_KEY, version.encode())
        elif not initialized:
            raise NotInitialized(
                f"chaincode '{chaincode}' has not been initialized for this version, must call as "
                f"init first: submit its Init for version {version} (selvedge invoke --init)"
            )
