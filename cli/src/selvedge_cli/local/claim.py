"""One `selvedge up` per home, on ports that nobody else has."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selvedge_cli.addresses import port_of
from selvedge_cli.errors import CommandError
from selvedge_cli.local.services import LOOPBACK, Service


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Hold a home; the system lets go of it when this process ends, however it ends.

    Raises:
        CommandError: it cannot be written, or another process holds it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "up.lock").open("a+")
    except OSError as error:
        raise CommandError(
            f"{home} cannot be written ({error.strerror}): choose another folder with --home"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise CommandError(
                f"`selvedge up` runs on {home} already, as process {lock.read().strip()}: use it, "
                "stop it with Ctrl-C, or choose another folder with --home"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def check_ports(services: Iterable[Service]) -> None:
    """See that every port is free, before anything is started.

    Raises:
        CommandError: naming all that are not.
    """
    wanted = {
        address: f"{service.name}'s {what}"
        for service in services
        for what, address in [*service.listeners.items(), *_operations(service)]
    }
    taken = [f"{port_of(address)} ({who})" for address, who in wanted.items() if _taken(address)]
    if taken:
        raise CommandError(
            f"in use by another program: port {', '.join(taken)}; stop that program (perhaps "
            "`docker compose down`), or move all ports with --port-offset"
        )


def _operations(service: Service) -> list[tuple[str, str]]:
    return [("operations", service.operations)] if service.operations else []


def _taken(address: str) -> bool:
    with socket.socket() as probe:
        # Ports of connections that have just been closed are free for a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port_of(address)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise CommandError(
                f"port {port_of(address)} cannot be used: {error.strerror}"
            ) from error
    return False
