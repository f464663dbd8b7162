"""All examinations, in the order in which their findings explain each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from selvedge_cli.doctor import (
    address,
    certificates,
    chaincodes,
    disk,
    home,
    hub,
    listeners,
    operations,
    registration,
    settings,
    shell,
    tools,
)
from selvedge_cli.doctor.findings import Finding
from selvedge_cli.doctor.installation import Installation

EXAMINATIONS: tuple[Callable[[Installation], Iterator[Finding]], ...] = (
    shell.examine,
    address.examine,
    settings.examine,
    tools.examine,
    home.examine,
    disk.examine,
    certificates.examine,
    listeners.examine,
    operations.examine,
    chaincodes.examine,
    registration.examine,
    hub.examine,
)


def examine(installation: Installation) -> list[Finding]:
    """Everything that is found."""
    return [finding for examination in EXAMINATIONS for finding in examination(installation)]
