"""All examinations, in the order in which their findings explain each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from selvedge_cli.doctor import (
    certificates,
    chaincodes,
    disk,
    home,
    listeners,
    operations,
    settings,
    shell,
    tools,
    way,
)
from selvedge_cli.doctor.findings import Finding
from selvedge_cli.doctor.site import Site

EXAMINATIONS: tuple[Callable[[Site], Iterator[Finding]], ...] = (
    shell.examine,
    settings.examine,
    tools.examine,
    home.examine,
    disk.examine,
    certificates.examine,
    listeners.examine,
    operations.examine,
    chaincodes.examine,
    way.examine,
)


def examine(site: Site) -> list[Finding]:
    """Everything that is found."""
    return [finding for examination in EXAMINATIONS for finding in examination(site)]
