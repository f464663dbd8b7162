"""`selvedge up`: all services on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from selvedge_cli import STARTED
from selvedge_cli.addresses import forget_addresses
from selvedge_cli.errors import CommandError
from selvedge_cli.local.claim import claimed
from selvedge_cli.local.process import ServiceDied
from selvedge_cli.local.services import services
from selvedge_cli.local.supervisor import Supervisor
from selvedge_cli.options import Settings, local_options

if TYPE_CHECKING:
    from selvedge_cli.local.demo import Demonstration


@click.command(epilog="Example: selvedge up --demo")
@click.option("--demo", is_flag=True, help="Start the sample chaincode and commit a transaction.")
@click.option(
    "--port-offset",
    type=click.IntRange(0, 50_000),
    default=0,
    show_default=True,
    help="Add this to every port; other commands on the same home learn of it.",
)
@local_options
def up(settings: Settings, demo: bool, port_offset: int) -> None:
    """Run ca, chaincode-support and event-hub as processes of this machine, until Ctrl-C.

    They listen on 127.0.0.1 only. The home keeps the ledger and the certificates, so the next start
    goes on where this one stopped. Logs are in HOME/logs. A service that dies is started again;
    when that does not help, all are stopped, and the exit status is 1.
    """
    sample = None
    if demo:
        from selvedge_cli.local.sample import find_sample

        sample = find_sample()
    settings = replace(
        settings,
        home=settings.home.absolute(),
        addresses=settings.addresses.shifted(port_offset),
    )
    report = Report(settings)

    async def when_ready() -> None:
        if demo:
            report.step("committing a transaction ...")
            from selvedge_cli.connection import Connection, load_user
            from selvedge_cli.local.demo import demonstrate

            user = await asyncio.to_thread(load_user, settings)
            async with Connection(user, settings) as connection:
                report.demonstrated(await demonstrate(connection))
        report.ready()
        report.table(demo=demo)

    with claimed(settings.home):
        try:
            asyncio.run(Supervisor(settings, sample, report.tell, report.step).run(when_ready))
        except ServiceDied as death:
            raise CommandError(
                f"{death}\n  mend what it says and run `selvedge up` again: the ledger is kept"
            ) from death
        finally:
            forget_addresses(settings.home)
    report.tell("stopped")


class Report:
    """What `selvedge up` prints."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def tell(self, sentence: str) -> None:
        """A sentence on what is going on."""
        click.echo(f"selvedge: {sentence}", err=True)

    def step(self, step: str) -> None:
        """How far the start has come, for somebody who waits for it at a terminal."""
        if not self._settings.as_json and sys.stdout.isatty():
            click.echo(step)

    def ready(self) -> None:
        """Everything serves, and the demonstration is done."""
        seconds = time.monotonic() - STARTED
        if self._settings.as_json:
            addresses = asdict(self._settings.addresses)
            self._json({"type": "ready", "seconds": round(seconds, 3), "addresses": addresses})
        else:
            click.echo(f"\nReady in {seconds:.1f} s.")

    def demonstrated(self, demonstration: Demonstration) -> None:
        """What the sample's transaction brought about."""
        from selvedge_cli.rendering import render

        submission = demonstration.submission
        if self._settings.as_json:
            self._json({"type": "transaction", "txid": submission.txid, "call": demonstration.call})
        else:
            click.echo(f"$ selvedge invoke {demonstration.call}")
            click.echo(f"{submission.payload.decode()}\n\nThe event hub told of it:")
        for event in demonstration.events:
            click.echo(render(event, as_json=self._settings.as_json))

    def table(self, *, demo: bool) -> None:
        """Where everything is, and what to try next."""
        if self._settings.as_json:
            return
        home = _shown(self._settings.home)
        rows = [
            (address, f"{service.name}: {what}")
            for service in services(
                self._settings.home, self._settings.addresses, self._settings.channel
            )
            for what, address in [
                *service.listeners.items(),
                ("operations (HTTPS: /healthz, /metrics)", service.operations),
            ]
        ]
        rows += [
            (f"{home}/crypto/users/user1", "certificates of a user"),
            (f"{home}/crypto/users/admin", "certificates of an administrator"),
            (f"{home}/logs", "logs"),
        ]
        width = max(len(str(place)) for place, _ in rows)
        click.echo()
        for place, what in rows:
            click.echo(f"  {place!s:<{width}}  {what}")
        click.echo("\nTry, in another shell:\n")
        for command in _next_commands(self._settings.home, demo=demo):
            click.echo(f"  {command}")
        click.echo("\nCtrl-C stops everything; the ledger is kept.")

    def _json(self, record: dict[str, object]) -> None:
        click.echo(json.dumps(record))


def _next_commands(home: Path, *, demo: bool) -> list[str]:
    program = "selvedge" if shutil.which("selvedge") else _shown(Path(sys.argv[0]).absolute())
    # Said only where a new shell would not come to the same home by itself.
    away = "" if home == Path.cwd() / ".selvedge" else f" --home {_shown(home)}"
    commands = [f"status{away}", f"events{away} --from oldest"]
    if demo:
        commands += [
            f"invoke{away} asset-transfer CreateAsset a1 ada 100",
            f"query{away} asset-transfer ReadAsset a1",
            f"events{away} --type chaincode --from oldest",
        ]
    else:
        commands.append(f"ca issue{away} --chaincode NAME")
    return [f"{program} {command}" for command in commands]


def _shown(path: Path) -> str:
    """A path as short as it can be typed here."""
    short = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(short))
