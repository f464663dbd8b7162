"""What the services say of themselves: `/healthz`, and by which clock."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

from selvedge_cli.addresses import port_of
from selvedge_cli.doctor.findings import Finding, error, warning
from selvedge_cli.doctor.installation import Installation
from selvedge_cli.doctor.listener import TIMEOUT
from selvedge_cli.inspection import listeners_of

REFUSED, NEAR = timedelta(minutes=15), timedelta(minutes=5)
"""How far clocks may be apart before a service refuses what is signed here, and before that is
worth a warning."""
ANSWER = 7.0
"""Seconds for an answer; a service gives each of its own checks five."""
_MOST_BYTES = 1 << 20


class _NoAnswer(Exception):
    """An endpoint was dialled, and then it did not answer."""


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    date: datetime | None


def examine(installation: Installation) -> Iterator[Finding]:
    """Ask every operations endpoint; those that cannot be dialled are the listeners' subject."""
    endpoints = {
        service: operations
        for service, (_, operations) in listeners_of(installation.settings.addresses).items()
    }
    with ThreadPoolExecutor(len(endpoints)) as pool:
        asked = pool.map(partial(_ask, root=installation.root), endpoints.values())
        for (service, address), answer in zip(endpoints.items(), asked, strict=True):
            where = f"{address}, {service}"
            if isinstance(answer, _NoAnswer):
                yield error(
                    where, f"/healthz does not answer ({answer})", _see(installation, service)
                )
            elif answer is not None:
                yield from _health(where, answer, _see(installation, service))
                yield from _clock(installation, service, answer)


def _ask(address: str, *, root: Path | None) -> _Answer | _NoAnswer | None:
    context = ssl.create_default_context(cafile=root)
    if root is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    host = address.rpartition(":")[0].strip("[]")
    connection = http.client.HTTPSConnection(
        host, port_of(address), timeout=TIMEOUT, context=context
    )
    try:
        connection.connect()
    except OSError:
        return None
    try:
        connection.sock.settimeout(ANSWER)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return _Answer(answer.status, answer.read(_MOST_BYTES), _date(answer.headers["Date"]))
    except (OSError, http.client.HTTPException) as failure:
        return _NoAnswer(str(failure) or type(failure).__name__)
    finally:
        connection.close()


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text is not None else None
    except ValueError:
        return None


def _see(installation: Installation, service: str) -> str:
    log = installation.home / "logs" / f"{service}.log"
    return f"{log} says more" if log.exists() else "its log says more"


def _health(where: str, answer: _Answer, remedy: str) -> Iterator[Finding]:
    if answer.status == http.HTTPStatus.OK:
        return
    try:
        failed = [
            (str(check["component"]), str(check["reason"]))
            for check in json.loads(answer.body)["failed_checks"]
        ]
    except (ValueError, TypeError, LookupError, RecursionError):
        yield error(where, f"/healthz answers {answer.status}", remedy)
        return
    for component, reason in failed:
        yield error(where, f"its {component} is not well: {reason}", remedy)


def _clock(installation: Installation, service: str, answer: _Answer) -> Iterator[Finding]:
    if answer.date is None:
        return
    apart = abs(installation.now - answer.date)
    if apart > NEAR:
        found, so = (error, "refused") if apart > REFUSED else (warning, "soon refused")
        yield found(
            service,
            f"its clock and this machine's are {apart.total_seconds():.0f} s apart: what is signed "
            f"here is {so} there",
            "set both clocks right",
        )
