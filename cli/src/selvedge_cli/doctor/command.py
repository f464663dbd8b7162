"""`selvedge doctor`: find what is wrong, and say what to do about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from selvedge_cli.chaincode_name import CHAINCODE_NAME
from selvedge_cli.errors import FAILED
from selvedge_cli.options import Settings, common_options

if TYPE_CHECKING:
    from selvedge_cli.doctor.findings import Finding

EXIT_STATUSES = """\b
Exit status:
  0  nothing is in the way of working; there may be warnings and notes
  1  there are errors

Example: selvedge doctor --chaincode mycc"""


@click.command(epilog=EXIT_STATUSES)
@click.option(
    "--chaincode",
    type=CHAINCODE_NAME,
    metavar="NAME",
    help="Follow this chaincode from its shell to the peer, too.",
)
@common_options
def doctor(settings: Settings, chaincode: str | None) -> None:
    """Look for common mistakes by trying, and say cause and remedy in a line each.

    Examined are the home and its disk, certificates and keys, the variables of this shell, the
    programs that the commands use, every port of the services, their health and clocks, and the
    chaincodes. Nothing is changed.
    """
    from datetime import UTC, datetime

    from selvedge_cli import ENVIRONMENT
    from selvedge_cli.doctor.examinations import examine
    from selvedge_cli.doctor.installation import Installation

    findings = examine(Installation(settings, ENVIRONMENT, datetime.now(UTC), chaincode))
    failed = any(finding.severity == "error" for finding in findings)
    if settings.as_json:
        record = {"well": not failed, "findings": [finding.record() for finding in findings]}
        click.echo(json.dumps(record, ensure_ascii=False))
    else:
        for finding in findings:
            click.echo(str(finding))
        click.echo(_summary(findings))
    raise SystemExit(FAILED if failed else 0)


def _summary(findings: list[Finding]) -> str:
    from selvedge_cli.doctor.findings import Severity

    counts = [
        f"{count} {severity}{'s' * (count > 1)}"
        for severity in Severity
        if (count := sum(finding.severity is severity for finding in findings))
    ]
    return ", ".join(counts) if counts else "all is well"
