"""The driver that runs the services as containers, through compose."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.stack import ROOT, Stack

PROJECT = "selvedge-e2e"


class Containers(Stack):
    """`docker compose --profile demo up --build --wait`, as the README says it."""

    name = "containers"
    transport = "native"

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "COMPOSE_FILE": str(ROOT / "docker-compose.yml"),
            "COMPOSE_PROJECT_NAME": PROJECT,
        }

    def up(self) -> None:
        self._compose("--profile", "demo", "up", "--build", "--wait", timeout=900)
        for user in ("admin", "user1"):
            self.selvedge("ca", "issue", "--user", user)

    def down(self) -> None:
        if os.environ.get("SELVEDGE_E2E_KEEP"):
            return
        self._compose("--profile", "demo", "down", "--volumes", "--timeout", "10", timeout=120)

    def kill(self, service: str) -> None:
        self._compose("kill", "--signal", "KILL", service)
        # Compose takes a killed container for stopped on purpose, so its restart is ours.
        self._compose("up", "--no-deps", "--wait", service)

    @contextmanager
    def cut_off(self, service: str) -> Iterator[None]:
        container = self._compose("ps", "--quiet", service).stdout.strip()
        network = f"{PROJECT}_default"
        self.run("docker", "network", "disconnect", network, container)
        try:
            yield
        finally:
            self.run("docker", "network", "connect", "--alias", service, network, container)

    def log(self, service: str) -> str:
        return self._compose("logs", "--no-color", "--no-log-prefix", service).stdout

    def _compose(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return self.run("docker", "compose", *words, timeout=timeout)
