"""Where the services answer: Fabric's ports, unless `selvedge up` moved them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from selvedge_cli.errors import CommandError


@dataclass(frozen=True)
class Addresses:
    """Every listener of the three services, as host:port."""

    peer: str = "localhost:7051"
    chaincode: str = "localhost:7052"
    orderer: str = "localhost:7050"
    events: str = "localhost:7053"
    ca: str = "localhost:7055"
    peer_operations: str = "localhost:9443"
    events_operations: str = "localhost:9444"
    ca_operations: str = "localhost:9445"

    def shifted(self, offset: int) -> Addresses:
        """The same hosts with every port higher by `offset`."""
        return Addresses(**{name: _shift(value, offset) for name, value in asdict(self).items()})

    def overridden(self, values: Mapping[str, str | None]) -> Addresses:
        """With those of `values` that are given.

        Raises:
            CommandError: one is no address.
        """
        given = {name: value for name, value in values.items() if value}
        for address in given.values():
            port_of(address)
        return replace(self, **given)


def port_of(address: str) -> int:
    """The port of host:port.

    Raises:
        CommandError: it has none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise CommandError(
            f"{address!r} is no address: give host:port, as in localhost:7051, the port at most "
            "65535"
        )
    return int(port)


def load_addresses(home: Path, environ: Mapping[str, str] = os.environ) -> Addresses:
    """The addresses of a home whose services `selvedge up` runs, else the usual ones.

    Each can be overridden by a variable: SELVEDGE_ and the field's name in capitals.
    """
    try:
        stored = Addresses(**json.loads(_file(home).read_text()))
    except FileNotFoundError:
        stored = Addresses()
    except (OSError, ValueError, TypeError) as error:
        raise CommandError(f"{_file(home)} cannot be read ({error}): delete it") from None
    return stored.overridden(
        {field.name: environ.get(f"SELVEDGE_{field.name.upper()}") for field in fields(Addresses)}
    )


def save_addresses(home: Path, addresses: Addresses) -> None:
    """Leave the addresses for the other commands on this home."""
    _file(home).write_text(json.dumps(asdict(addresses), indent=2) + "\n")


def forget_addresses(home: Path) -> None:
    """Take them back: the services have stopped."""
    _file(home).unlink(missing_ok=True)


def _file(home: Path) -> Path:
    return home / "addresses.json"


def _shift(address: str, offset: int) -> str:
    host, _, _ = address.rpartition(":")
    return f"{host}:{port_of(address) + offset}"
