"""Sizes of the container images, where there are any."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.effort import Effort
from bench.process import ROOT
from bench.row import Row

GROUP = "images"


async def measure(effort: Effort, folder: Path) -> list[Row]:
    """Ask the engine for what docker-compose.yml builds."""
    if await _docker("version", "--format", "{{.Server.Version}}") is None:
        return [_missing("no container engine answers")]
    named = await _docker("compose", "--profile", "demo", "config", "--images")
    if named is None:
        return [_missing("the engine lacks Compose v2, which names the images")]
    return [await _size(image) for image in sorted(named.split())]


async def _size(image: str) -> Row:
    size = await _docker("image", "inspect", "--format", "{{.Size}}", image)
    if size is None:
        return _missing(f"there is no {image}: run `docker compose --profile demo build`")
    return Row(GROUP, image, int(size) / 1e6, "MB")


def _missing(why: str) -> Row:
    return Row(GROUP, "not measured", None, note=why)


async def _docker(*words: str) -> str | None:
    """What docker prints; None where there is none or it refuses."""
    try:
        docker = await asyncio.create_subprocess_exec(
            "docker",
            *words,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    output, _ = await docker.communicate()
    return output.decode().strip() if docker.returncode == 0 else None
