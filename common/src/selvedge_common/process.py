"""The life of a service's process: one event loop, signals that drain or end it."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvloop

from selvedge_common import logs

log = logs.get_logger("process")


class Shutdown(asyncio.Event):
    """Set once the process was asked to end; await `wait()`, then drain and return."""

    async def unless_set(self, work: Coroutine[Any, Any, object]) -> bool:
        """Await `work`, such as waiting for another service at start, unless asked to end.

        Returns whether the work was done; otherwise it was cancelled. Raises what it raises.
        """
        working = asyncio.create_task(work)
        ending = asyncio.create_task(self.wait())
        try:
            await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
                return True
            return False
        finally:
            ending.cancel()
            working.cancel()
            await asyncio.wait((working,))


def run(main: Callable[[Shutdown], Awaitable[None]]) -> None:
    """Run `main` on uvloop until it returns; what it raises is raised here.

    The first SIGTERM or SIGINT sets the event that `main` was given. A second one ends the
    process at once, without any draining, with the shell's status for that signal (128 + n).
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(main))


async def _main(main: Callable[[Shutdown], Awaitable[None]]) -> None:
    shutdown = Shutdown()
    loop = asyncio.get_running_loop()

    def on_signal(signum: signal.Signals) -> None:
        if shutdown.is_set():
            log.warning("stopping at once", signal=signum.name)
            os._exit(128 + signum)
        log.info("stopping", signal=signum.name)
        shutdown.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, on_signal, signum)
    try:
        await main(shutdown)
    finally:
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signum)
