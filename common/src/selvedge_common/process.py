"""The life of a service's process: one event loop, signals that drain or end it."""

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

import uvloop

from selvedge_common import logs
from selvedge_common.config import ConfigError, misspelt, variables
from selvedge_common.config.sections import Logging

log = logs.get_logger("process", bounded=False)

_SETTINGS = """Every setting, with its default, stands in the file core.yaml of this package;
--config names a file with the ones to change, and CORE_* variables override both."""


# Containers that are made and not freed before the collector looks at the new ones.
_NEW_OBJECTS = 10_000


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


class Configured(Protocol):
    """The settings of a service, as far as its process needs them."""

    @property
    def logging(self) -> Logging:
        """How the process logs."""


Config = TypeVar("Config", bound=Configured)


def command(
    name: str,
    description: str,
    example: str,
    read: Callable[[Path | None], Config],
    serve: Callable[[Config, Shutdown], Awaitable[None]],
    fatal: tuple[type[Exception], ...],
) -> None:
    """Run a service as its console command does, until it is told to stop.

    A mistake that the operator can mend ends the process with status 1 and one sentence.

    Args:
        name: the command's.
        description: of the command, for ``--help``.
        example: a call of the command that works.
        read: makes the settings of the file given with ``--config``. Raises ConfigError.
        serve: the service; see `run`.
        fatal: what an operator can mend, beside the settings; each says in one sentence how.
    """
    parser = argparse.ArgumentParser(
        prog=name,
        description=description,
        epilog=f"example:\n  {example}\n\n{_SETTINGS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, in YAML")
    arguments = parser.parse_args()
    mendable: tuple[type[Exception], ...] = (ConfigError, logs.LogSpecError, *fatal)
    try:
        config = read(arguments.config)
        logs.configure(config.logging.spec, config.logging.format)
        warn_of_misspelt(type(config))
        run(lambda shutdown: serve(config, shutdown))
    except mendable as error:
        sys.exit(f"{name}: {error}")


def warn_of_misspelt(config: type) -> None:
    """Log the variables of this process that name no setting in `config`, but nearly do."""
    for variable, meant in misspelt(os.environ, variables(config)).items():
        log.warning("variable names no setting", variable=variable, perhaps=meant)


def run(main: Callable[[Shutdown], Awaitable[None]]) -> None:
    """Run `main` on uvloop until it returns; what it raises is raised here.

    The first SIGTERM or SIGINT sets the event that `main` was given. A second one ends the
    process at once, without any draining, with the shell's status for that signal (128 + n).
    """
    _allow_files()
    _collect_less()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(main))


def _collect_less() -> None:
    """Look for cycles of garbage less often: what was imported stays, and most of what a call makes
    is gone with it, in no cycle."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])


def _allow_files() -> None:
    """Raise the limit of open files as far as the process may: each connection is one, and what is
    allowed at first is meant for programs of another kind."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems promise more than they give
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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
