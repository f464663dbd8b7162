"""Proposals that wait for a chaincode to be there: bounded in number, and in time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from chaincode_support.chaincode.errors import ChaincodeError, LaunchTimeout, TooManyWaiting
from chaincode_support.chaincode.metrics import limit_refusals
from chaincode_support.chaincode.registry import Registry
from chaincode_support.launchers import metrics


class Waiting:
    """Those that wait for any chaincode of the peer.

    Args:
        registry: tells when a chaincode is there, or that it will not come.
        startup_timeout: seconds that each may wait.
        limit: how many may wait for one chaincode.
    """

    def __init__(self, registry: Registry, startup_timeout: float, limit: int) -> None:
        self._registry = registry
        self._startup_timeout = startup_timeout
        self._limit = limit
        self._counts: Counter[str] = Counter()

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    async def wait_for(self, name: str, missing: Callable[[], str]) -> None:
        """Return once the chaincode is there; what is raised instead is its last error.

        Args:
            name: the chaincode's, of one that is known or has a package: others could be any.
            missing: why it is not, and what to do about it, should it not come; it continues a
                sentence.

        Raises:
            ChaincodeError: LaunchTimeout, TooManyWaiting, or what the registry was told.
        """
        try:
            await self._wait_for(name, missing)
        except ChaincodeError as error:
            self._registry.tally(name).note(str(error))
            raise

    async def _wait_for(self, name: str, missing: Callable[[], str]) -> None:
        if self._counts[name] >= self._limit:
            limit_refusals.labels("waiting").inc()
            raise TooManyWaiting(
                f"RESOURCE_EXHAUSTED: {self._limit} proposals already wait for chaincode {name}, "
                f"the limit of chaincode.limits.transactions; {missing()}"
            )
        started = time.perf_counter()
        success = False
        self._counts[name] += 1
        try:
            async with asyncio.timeout(self._startup_timeout):
                await self._registry.wait_for(name)
            success = True
        except TimeoutError:
            metrics.launch_timeouts.labels(name).inc()
            raise LaunchTimeout(
                f"chaincode {name} did not register within chaincode.startuptimeout "
                f"({self._startup_timeout:g} s); {missing()}"
            ) from None
        finally:
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]
            if not success:
                metrics.launch_failures.labels(name).inc()
            metrics.launch_duration.labels(name, str(success).lower()).observe(
                time.perf_counter() - started
            )
