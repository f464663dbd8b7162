"""Health checks by component, answered in the form of Fabric's healthz library."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

Check = Callable[[], Awaitable[None] | None]
_CHECK_TIMEOUT = 5.0  # seconds; probes give up soon after


class HealthChecks:
    """Named checks; a check that raises, or takes too long, fails with its error's text."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks

    async def run(self) -> tuple[bool, dict[str, Any]]:
        """Run all checks at once; whether all passed, and Fabric's JSON object."""
        reasons = await asyncio.gather(*(_reason(check) for check in self._checks.values()))
        failed = [
            {"component": component, "reason": reason}
            for component, reason in zip(self._checks, reasons, strict=True)
            if reason is not None
        ]
        now = datetime.now().astimezone().isoformat()
        if failed:
            return False, {"status": "Service Unavailable", "time": now, "failed_checks": failed}
        return True, {"status": "OK", "time": now}


async def _reason(check: Check) -> str | None:
    try:
        result = check()
        if inspect.isawaitable(result):
            async with asyncio.timeout(_CHECK_TIMEOUT):
                await result
    except TimeoutError:
        return f"the check took longer than {_CHECK_TIMEOUT:g} seconds"
    except Exception as error:  # whatever a component raises is its reason
        return str(error) or type(error).__name__
    return None
