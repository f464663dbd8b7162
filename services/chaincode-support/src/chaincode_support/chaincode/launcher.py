"""How a chaincode comes to be there when a proposal asks for it.

`external` is Fabric's development mode: whoever runs the chaincode starts it, and it dials in.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from chaincode_support.chaincode import metrics
from chaincode_support.chaincode.errors import LaunchTimeout, TooManyWaiting, UnknownChaincode
from chaincode_support.chaincode.registry import Registry
from chaincode_support.system.names import SYSTEM_CHAINCODES
from selvedge_common.quoting import printable


class Launcher(Protocol):
    """Brings a chaincode's stream."""

    async def launch(self, name: str) -> None:
        """Return when chaincode `name` is there; raises a ChaincodeError when it does not come."""


class ExternalLauncher:
    """Waits for chaincode that others start.

    A name that never registered is refused at once: waiting would only hide a typing error or a
    chaincode that nobody started. One that was here before is probably being restarted: it is
    given `startup_timeout` seconds to come back.
    """

    def __init__(
        self,
        registry: Registry,
        startup_timeout: float,
        address: str,
        *,
        max_waiting: int,
    ) -> None:
        """`max_waiting`: callers that may wait for one chaincode at a time."""
        self._registry = registry
        self._startup_timeout = startup_timeout
        self._address = address
        self._max_waiting = max_waiting

    async def launch(self, name: str) -> None:
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
        if self._registry.waiting(name) >= self._max_waiting:
            metrics.limit_refusals.labels("waiting").inc()
            raise TooManyWaiting(
                f"RESOURCE_EXHAUSTED: {self._max_waiting} proposals already wait for chaincode "
                f"{name} to come back, the limit of chaincode.limits.transactions; start it again "
                f"against {self._address}"
            )
        started = time.perf_counter()
        success = False
        try:
            async with asyncio.timeout(self._startup_timeout):
                await self._registry.wait_for(name)
            success = True
        except TimeoutError:
            metrics.launch_timeouts.labels(name).inc()
            raise LaunchTimeout(
                f"chaincode {name} was connected before and is gone, and did not register again "
                f"within chaincode.startuptimeout ({self._startup_timeout:g} s): start it again "
                f"against {self._address}"
            ) from None
        finally:
            if not success:
                metrics.launch_failures.labels(name).inc()
            metrics.launch_duration.labels(name, str(success).lower()).observe(
                time.perf_counter() - started
            )
