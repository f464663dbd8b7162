"""`python -m selvedge_common.healthcheck URL [--root FILE]`: a container's health check.

Stands apart from `operations` and imports next to nothing: an engine runs it every few seconds.
"""

from __future__ import annotations

import argparse
import http.client
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT = 2.0
"""Seconds to wait for the connection and for each part of the answer."""

_MAX_BYTES = 4096
_EXAMPLE = """example:
  python -m selvedge_common.healthcheck https://localhost:9443/healthz --root tls/ca.crt
"""


class Unhealthy(Exception):
    """The service did not answer 200. One sentence: who, and what it did instead.

    Attributes:
        answer: what it said, if it answered.
    """

    def __init__(self, sentence: str, answer: str | None = None) -> None:
        super().__init__(sentence)
        self.answer = answer


def check(url: str, root: Path | None = None, timeout: float = TIMEOUT) -> None:
    """Asks an operations endpoint whether its service is healthy.

    Args:
        url: of its `/healthz`, https or http.
        root: certificate authority in PEM that an https endpoint must be vouched for by.
        timeout: seconds to wait for the connection and for each part of the answer.

    Raises:
        Unhealthy: anything but an answer with status 200.
        ValueError: `url` is neither https nor http, or names no host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError(
            f"{url!r} is no address to ask: give one like https://localhost:9443/healthz"
        )
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                parts.hostname,
                parts.port,
                timeout=timeout,
                context=ssl.create_default_context(cafile=root),
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        try:
            connection.request("GET", parts.path)
            answer = connection.getresponse()
            body = answer.read(_MAX_BYTES).decode(errors="replace").strip()
        finally:
            connection.close()
    except FileNotFoundError:
        raise Unhealthy(f"there is no {root} yet: the service has not enrolled") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unhealthy(f"{url} does not answer: {error or type(error).__name__}") from error
    if answer.status != http.HTTPStatus.OK:
        raise Unhealthy(f"{url} answers {answer.status}: {body}", body)


def main() -> None:
    """Ends with status 0 where the service is healthy, else with 1 and a sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m selvedge_common.healthcheck",
        description="Ask a service's operations endpoint whether it is healthy.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", help="of its /healthz")
    parser.add_argument("--root", type=Path, help="certificate authority of an https endpoint, PEM")
    arguments = parser.parse_args()
    try:
        check(arguments.url, arguments.root)
    except (Unhealthy, ValueError) as error:
        sys.exit(f"healthcheck: {error}")


if __name__ == "__main__":
    main()
