"""`python -m selvedge_common.enrolment`: enrolment from a container's start script."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from selvedge_common.enrolment import (
    EnrolmentError,
    enrol_chaincode,
    enrol_producer,
    enrol_service,
    enrol_user,
)
from selvedge_common.enrolment.client import DEFAULT_PATIENCE

_EXAMPLE = """example:
  python -m selvedge_common.enrolment chaincode --name asset-transfer \\
      --folder /var/lib/selvedge --enrolment /enrol/enrolment.json
"""


def main() -> None:
    """Parses the command line, enrols, and ends with status 1 and one sentence where that fails."""
    arguments = _parser().parse_args()
    try:
        asyncio.run(_enrol(arguments))
    except EnrolmentError as error:
        sys.exit(f"enrolment: {error}")


async def _enrol(arguments: argparse.Namespace) -> None:
    folder, enrolment = arguments.folder, arguments.enrolment
    address, timeout = arguments.ca_address, arguments.timeout
    if arguments.holder == "chaincode":
        await enrol_chaincode(
            folder, enrolment, name=arguments.name, ca_address=address, patience=timeout
        )
    elif arguments.holder == "producer":
        await enrol_producer(
            folder, enrolment, name=arguments.name, ca_address=address, patience=timeout
        )
    elif arguments.holder == "user":
        await enrol_user(
            folder, enrolment, profile=arguments.profile, ca_address=address, patience=timeout
        )
    else:
        await enrol_service(
            folder,
            enrolment,
            identities=arguments.identity or ["peer"],
            ca_address=address,
            patience=timeout,
        )


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--folder", type=Path, required=True, help="where the certificates go")
    common.add_argument("--enrolment", type=Path, required=True, help="the enrolment.json to use")
    common.add_argument("--ca-address", help="host:port, where it is not the one in the file")
    common.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_PATIENCE,
        help="seconds to wait for the file and the ca (default %(default)g)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m selvedge_common.enrolment",
        description="Get certificates from the ca; nothing happens where good ones are there.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    holders = parser.add_subparsers(dest="holder", required=True)
    chaincode = holders.add_parser(
        "chaincode", parents=[common], help="ca.crt, client.crt, client.key"
    )
    chaincode.add_argument("--name", required=True, help="the chaincode's name")
    producer = holders.add_parser(
        "producer", parents=[common], help="ca.crt, client.crt, client.key, to publish events with"
    )
    producer.add_argument("--name", required=True, help="the producer's name")
    user = holders.add_parser("user", parents=[common], help="msp/ and tls/ of a user")
    user.add_argument("--profile", choices=("user", "admin"), default="user")
    service = holders.add_parser("service", parents=[common], help="tls/ and msp/ of a service")
    service.add_argument("--identity", action="append", choices=("peer", "orderer"))
    return parser


if __name__ == "__main__":
    main()
