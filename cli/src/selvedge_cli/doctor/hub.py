"""The event hub, as it tells its administrators: does it read its channels, and who is too slow?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import click
import grpc

from selvedge_cli.connection import Connection, read_user
from selvedge_cli.doctor.findings import Finding, error, note, warning
from selvedge_cli.doctor.installation import Installation
from selvedge_cli.doctor.listener import TIMEOUT
from selvedge_cli.errors import CallRefused
from selvedge_cli.hub_watch import look_at_hub
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import HubState

# Reasons that say that a client does not take what it is sent.
_SLOW = ("SLOW_CONSUMER", "SEND_TIMEOUT")


def examine(installation: Installation) -> Iterator[Finding]:
    """Ask the hub, where the home has an administrator, and look at what it tells."""
    try:
        state = _ask(installation)
    except CallRefused as refused:
        found = note if refused.code == grpc.StatusCode.UNIMPLEMENTED else warning
        yield found(
            installation.settings.addresses.events,
            refused.message,
            "until it tells, its channels cannot be examined",
        )
        return
    if state is not None:
        yield from _examine(state)


def _ask(installation: Installation) -> HubState | None:
    """What the hub tells; None where it cannot be asked, which other examinations explain.

    Raises:
        CallRefused: it can, and does not tell.
    """
    if installation.administrator is None:
        return None
    try:
        return asyncio.run(_look(installation, installation.administrator))
    except CallRefused:
        raise
    except click.ClickException:
        return None


async def _look(installation: Installation, administrator: Path) -> HubState:
    async with Connection(read_user(administrator), installation.settings) as connection:
        return await look_at_hub(connection, 1, TIMEOUT)


def _examine(state: HubState) -> Iterator[Finding]:
    for channel in state.channels:
        if channel.trouble:
            yield error(
                f"event hub, channel {channel.name}",
                f"it is not read beyond block {channel.height - 1}: {channel.trouble}"
                if channel.height
                else f"it is not read: {channel.trouble}",
                "its consumers hear nothing new until that is mended",
            )
    slow = sum(state.ended[reason] for reason in _SLOW if reason in state.ended)
    if slow:
        yield note(
            "event hub",
            f"{slow} streams ended since it started, whose clients did not take their events",
            "its log names them; `selvedge events --consumers` shows who is behind now",
        )
