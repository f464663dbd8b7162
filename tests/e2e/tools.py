"""Programs of others that the suite drives."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

REQUIRE_ALL = os.environ.get("SELVEDGE_TEST_REQUIRE") == "all"

_INSTALL = {
    "grpcurl": "run `go install` for github.com/fullstorydev/grpcurl/cmd/grpcurl",
    "prometheus": "install your system's prometheus package",
    "promtool": "install your system's prometheus package",
    "kubectl": "install your system's kubernetes-client package",
    "npm": "install Node.js 18 or 20",
    "node": "install Node.js 18 or 20",
    "cc": "install your system's C compiler",
    "go": "install Go 1.26",
    "java": "install a JDK, 17 or later",
    "javac": "install a JDK, 17 or later",
    "mvn": "install Maven",
    "h2spec": "build it in tests/conformance/go",
    "grpc-interop-go": "build google.golang.org/grpc/interop/client in tests/conformance/go",
    "grpc-interop-java": "have Maven copy what tests/conformance/java/pom.xml names",
}


def require(program: str) -> Path:
    """The program's path. Where it is missing the test says so: a failure if
    SELVEDGE_TEST_REQUIRE=all, as in the gate, and a skip with the remedy elsewhere."""
    found = shutil.which(program)
    if found:
        return Path(found)
    sentence = f"{program} is not on PATH; {_INSTALL[program]}, or run .ci/tools"
    if REQUIRE_ALL:
        pytest.fail(sentence)
    pytest.skip(sentence)


def npm_ci(folder: Path, cache: Path) -> None:
    """Install what the folder's lock file names, once for as long as it stays the same."""
    npm = require("npm")
    lock = (folder / "package-lock.json").read_bytes()
    stamp = folder / "node_modules" / ".installed-lock"
    if stamp.exists() and stamp.read_bytes() == lock:
        return
    subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--cache", str(cache)],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=300,
    )
    stamp.write_bytes(lock)


@cache
def engine_answers() -> bool:
    """Whether a Docker engine with Compose v2 can be used."""
    if shutil.which("docker") is None:
        return False
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        if subprocess.run(command, capture_output=True, timeout=30).returncode != 0:
            return False
    return True
