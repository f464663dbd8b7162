"""The `selvedge` command."""

from __future__ import annotations

import json
import sys
from importlib import import_module

import click

from selvedge_cli import options
from selvedge_cli.errors import FAILED
from selvedge_common import logs

# Module and what the list of commands says. A command is imported when it is called: most of the
# time of a short command would else go into what only others need.
COMMANDS = {
    "up": ("up", "Run all services here, until Ctrl-C."),
    "invoke": ("invoke", "Submit a transaction and wait for its commit."),
    "query": ("query", "Ask a chaincode without submitting anything."),
    "events": ("events", "Print blocks and events as they are committed."),
    "chaincode": ("chaincode", "List chaincodes, install and remove packages."),
    "status": ("status", "Say how the services are, or one transaction is."),
    "ledger": ("ledger", "Verify, back up, restore and rebuild the ledger."),
    "doctor": ("doctor.command", "Find what is wrong, and say what to do about it."),
    "ca": ("ca", "Get certificates for users and chaincodes."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"selvedge_cli.{COMMANDS[cmd_name][0]}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: selvedge up --demo",
)
@options.debug_option
@click.version_option(package_name="selvedge-cli", prog_name="selvedge")
def cli() -> None:
    """Hyperledger Fabric's chaincode and event listeners, in a few small services."""
    # What the libraries log is for services; here a failure is told in one sentence.
    logs.configure("debug" if options.debugging else "panic", "console")


def main() -> None:
    """Run a command; whatever goes wrong becomes one sentence and an exit status."""
    try:
        status = cli.main(prog_name="selvedge", standalone_mode=False)
    except click.ClickException as failure:
        if options.debugging:
            raise
        if options.printing_json:
            click.echo(json.dumps({"error": failure.message, **getattr(failure, "facts", {})}))
        if isinstance(failure, click.UsageError):
            failure.show()
        else:
            click.echo(f"selvedge: {failure.format_message()}", err=True)
        status = failure.exit_code
    except (KeyboardInterrupt, click.Abort):
        status = 130
    except OSError as failure:
        if options.debugging:
            raise
        where = f"{failure.filename}: " if failure.filename else ""
        click.echo(f"selvedge: {where}{failure.strerror or failure}", err=True)
        status = FAILED
    except Exception as failure:
        if options.debugging:
            raise
        click.echo(
            f"selvedge: this should not happen: {type(failure).__name__}: {failure} "
            "(run again with --debug and report what it prints)",
            err=True,
        )
        status = FAILED
    sys.exit(status if isinstance(status, int) else 0)
