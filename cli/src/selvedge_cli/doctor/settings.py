"""The variables of this shell that a service would read, or was meant to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import yaml

from selvedge_cli.doctor.findings import Finding, note, warning
from selvedge_cli.doctor.installation import Installation
from selvedge_cli.doctor.shell import CHAINCODE_VARIABLES, VARIABLES
from selvedge_cli.doctor.tools import PACKAGES
from selvedge_common.config import misspelt


def examine(installation: Installation) -> Iterator[Finding]:
    """Compare the variables with the keys of the services' packaged core.yaml."""
    known: dict[str, dict[str, Any]] = {}
    for service, package in PACKAGES.items():
        if find_spec(package) is not None:
            packaged = yaml.safe_load((files(package) / "core.yaml").read_text())
            for variable, default in _keys(packaged, "CORE"):
                known.setdefault(variable, {})[service] = default
    for variable, meant in misspelt(installation.environ, [*known, *VARIABLES]).items():
        yield warning(
            variable,
            "no service and no chaincode reads it",
            f"perhaps {meant} was meant",
        )
    for variable, value in sorted(installation.environ.items()):
        if value and variable in known and variable not in CHAINCODE_VARIABLES:
            yield from _override(variable, value, known[variable])


def _keys(section: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """The variable of each key, and the key's default."""
    for key, value in section.items():
        variable = f"{name}_{key.replace('_', '').upper()}"
        if isinstance(value, dict) and value:
            yield from _keys(value, variable)
        else:
            yield variable, value


def _override(variable: str, value: str, defaults: Mapping[str, Any]) -> Iterator[Finding]:
    changed = [
        service for service, default in defaults.items() if str(default).lower() != value.lower()
    ]
    if changed:
        yield note(
            variable,
            f"a setting of {', '.join(changed)} that is started from this shell: {value!r}",
            "unset it if that is not meant; `selvedge up` hands on what is not for chaincodes",
        )
