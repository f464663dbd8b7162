"""Cancellations that gRPC loses."""

from __future__ import annotations

import asyncio


class Cancellations:
    """Those of the task that runs, from here on, for whoever tries a failed call again.

    A call of grpc.aio that is cancelled while it fails by itself tells of its failure alone, and
    the task would go on as if it had not been told to end.
    """

    def __init__(self) -> None:
        self._before = _cancellations()

    def raise_if_lost(self) -> None:
        """Raises CancelledError if there was one."""
        if _cancellations() > self._before:
            raise asyncio.CancelledError


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
