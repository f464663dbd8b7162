"""The programs in Go: in Python they would be what is measured."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from bench.process import ROOT, BenchError

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selvedge"


class NoGo(BenchError):
    """There is nothing to build the programs with."""


async def build(package: str) -> Path:
    """The program of a folder here, built if it is not what its source says.

    Raises:
        NoGo: there is no Go here.
        BenchError: it cannot be built.
    """
    # Where .ci/tools puts one of its own.
    go = shutil.which("go") or shutil.which("go", path=_CACHE / "go" / "bin")
    if go is None:
        raise NoGo(f"bench/{package} is built with Go, which is not on PATH: install 1.26 or newer")
    built = _CACHE / "bin" / f"bench-{package}"
    process = await asyncio.create_subprocess_exec(
        go,
        *("build", "-trimpath", "-buildvcs=false", "-o", built, f"./{package}"),
        cwd=ROOT / "bench",
        stdin=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise BenchError(f"bench/{package} cannot be built; what go said is above")
    return built
