"""The programs and packages that the commands use."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec

from selvedge_cli.ca import is_compose_folder
from selvedge_cli.doctor.findings import Finding, warning
from selvedge_cli.doctor.installation import Installation

PACKAGES = {
    "ca": "certificate_authority",
    "chaincode-support": "chaincode_support",
    "event-hub": "event_hub",
}
"""The services' packages, each with a core.yaml that has all of its settings."""


def examine(installation: Installation) -> Iterator[Finding]:
    """Look for the services' packages, and for docker where a compose file lies."""
    missing = [name for name, package in PACKAGES.items() if find_spec(package) is None]
    if missing:
        yield warning(
            ", ".join(missing),
            "not installed beside this command: `selvedge up` cannot start it",
            "install it (`make run` does), or run the services with docker compose",
        )
    # A ca in the home gives its tokens here; one in a container is asked through docker.
    in_container = is_compose_folder() and not (installation.home / "ca").is_dir()
    if in_container and shutil.which("docker", path=installation.environ.get("PATH")) is None:
        yield warning(
            "docker",
            "it is not on PATH, and `selvedge ca issue` asks a ca in a container through it",
            "install docker with its compose plugin, or run `selvedge up` instead",
        )
