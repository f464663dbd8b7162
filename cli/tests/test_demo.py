"""The demonstration waits for its chaincode, and not for longer than it is asked to."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from cli.tests.fake_services import Network, answering, make_signer, serving

from selvedge_cli.errors import CommandError
from selvedge_cli.local import demo


async def test_waiting_for_the_chaincode_ends_when_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the peer goes away at that moment, of which alone grpc.aio would tell."""
    calls = 0

    async def fails_when_cancelled(*_: object) -> None:
        nonlocal calls
        calls += 1
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        raise CommandError("the peer has just gone away")

    monkeypatch.setattr(demo, "endorse", fails_when_cancelled)
    async with serving(Network(make_signer(), answering()), tmp_path) as connection:
        waiting = asyncio.create_task(demo.demonstrate(connection))
        while not calls:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert calls == 1
