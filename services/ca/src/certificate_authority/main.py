"""The console command `certificate-authority`: `serve`, `token` and `init`."""

from __future__ import annotations

import argparse
import functools
import sys
from datetime import timedelta
from pathlib import Path

from certificate_authority import config, volume
from certificate_authority.errors import AuthorityError, InvalidRequest, Refused
from certificate_authority.hosts import alternative_name
from certificate_authority.profiles import CHAINCODE, PROFILES, profile_named
from certificate_authority.tokens import Grant
from selvedge_common import logs
from selvedge_common.config import ConfigError
from selvedge_common.config.values import parse_duration
from selvedge_common.enrolment.document import EnrolmentError

_EXAMPLES = {
    "serve": "certificate-authority serve --config /etc/selvedge/ca.yaml",
    "token": "certificate-authority token --name alice --profile user --profile tls-client "
    "> enrolment.json",
    "init": "CORE_CA_FILESYSTEMPATH=./ca CORE_ENROLMENT_FOLDER=./enrol certificate-authority init",
}


def main() -> None:
    """Runs one of the commands; ends with status 1 and one sentence where it cannot."""
    arguments = _parser().parse_args()
    try:
        settings = config.load(arguments.config)
        logs.configure(settings.logging.spec, settings.logging.format)
        arguments.command(settings, arguments)
    except (AuthorityError, Refused, ConfigError, EnrolmentError, logs.LogSpecError) as error:
        sys.exit(f"certificate-authority: {error}")


def _serve(settings: config.Config, _: argparse.Namespace) -> None:
    # gRPC and the operations endpoint cost half a second to import: not for a token.
    from certificate_authority.serving import serve
    from selvedge_common.comm import CommError
    from selvedge_common.operations import OperationsError
    from selvedge_common.process import run, warn_of_misspelt

    warn_of_misspelt(config.Config)
    try:
        run(functools.partial(serve, settings))
    except (CommError, OperationsError) as error:
        raise AuthorityError(str(error)) from error


def _token(settings: config.Config, arguments: argparse.Namespace) -> None:
    for profile in arguments.profile:
        profile_named(profile).check_name(arguments.name)
    hosts = tuple(arguments.host)
    if hosts and arguments.profile != [CHAINCODE]:
        raise InvalidRequest(
            "bad_host",
            f"--host is for profile {CHAINCODE} alone: the hosts of a service are its name and "
            "its extraSans in the ca's settings",
        )
    for host in hosts:
        alternative_name(host)
    opened = volume.open_existing(settings)
    lifetime = timedelta(seconds=arguments.lifetime or settings.ca.tokens.lifetime)
    grants = [Grant(arguments.name, profile, hosts) for profile in arguments.profile]
    for grant in grants:
        opened.enrolments.hosts(grant)  # Refused now rather than when the token is used.
    tokens = {grant.profile: opened.tokens.mint(grant, lifetime) for grant in grants}
    sys.stdout.write(opened.enrolments.document(tokens).to_json().decode())


def _init(settings: config.Config, _: argparse.Namespace) -> None:
    made = volume.make(settings)
    volume.server_pair(settings, made)
    sys.stdout.write(
        f"ca volume: {settings.ca.file_system_path}\n"
        f"TLS root SHA-256: {made.authority.tls_root.sha256}\n"
        + "".join(
            f"enrolment of {member.name}: {member.folder}\n"
            for member in settings.enrolment.all_members()
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="certificate-authority",
        description="Selvedge's certificate authority: mTLS and identities for one-time tokens.",
        epilog="settings: one YAML file (--config), and variables such as CORE_CA_LISTENADDRESS",
    )
    commands = parser.add_subparsers(required=True, metavar="{serve,token,init}")
    _command(commands, "serve", _serve, "answer requests for certificates until SIGTERM")
    token = _command(commands, "token", _token, "print an enrolment.json with one-time tokens")
    token.add_argument("--name", required=True, help="common name, or the chaincode's name")
    token.add_argument(
        "--profile",
        action="append",
        required=True,
        choices=sorted(PROFILES),
        help="what for; may be given several times",
    )
    token.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME|IP",
        help="what a chaincode that serves is dialled by; may be given several times",
    )
    token.add_argument(
        "--lifetime",
        type=_lifetime,
        help="how long the tokens work, e.g. 30m (default ca.tokens.lifetime)",
    )
    _command(commands, "init", _init, "make roots and enrolment files, and end")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: object,
    summary: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {_EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--config", type=Path, help="YAML file over the packaged defaults")
    command.set_defaults(command=run)
    return command


def _lifetime(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {error}") from error
    if seconds <= 0:
        raise argparse.ArgumentTypeError("must be positive")
    return seconds
