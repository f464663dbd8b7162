"""Chaincode that others start, and that dials in: Fabric's development mode."""

from __future__ import annotations

from chaincode_support.chaincode.errors import UnknownChaincode
from chaincode_support.chaincode.registry import Registry
from chaincode_support.launchers.waiting import Waiting
from chaincode_support.system.names import SYSTEM_CHAINCODES
from selvedge_common.quoting import printable


class ExternalLauncher:
    """Waits for chaincode.

    A name that never registered is refused at once: waiting would only hide a typing error or a
    chaincode that nobody started. One that was here before is probably being restarted.

    Args:
        registry: knows the names.
        waiting: bounds the time, and how many wait.
        address: where the chaincode is to dial.
    """

    def __init__(self, registry: Registry, waiting: Waiting, address: str) -> None:
        self._registry = registry
        self._waiting = waiting
        self._address = address

    async def launch(self, name: str) -> None:
        """Return once the chaincode is there. Raises UnknownChaincode, and what waiting raises."""
        if not self._registry.known(name):
            shown = printable(name)
            if name in SYSTEM_CHAINCODES:
                raise UnknownChaincode(
                    f"{name} is a system chaincode of Fabric, which this peer does not serve yet: "
                    "call an application's chaincode, and read blocks through Deliver"
                )
            raise UnknownChaincode(
                f"chaincode {shown} is not known to this peer: none of that name has registered; "
                f"check the name, or start the chaincode with CORE_CHAINCODE_ID_NAME={shown}:1.0 "
                f"and CORE_PEER_ADDRESS={self._address}"
            )
        await self._waiting.wait_for(
            name,
            lambda: f"it was connected before and is gone: start it again against {self._address}",
        )
