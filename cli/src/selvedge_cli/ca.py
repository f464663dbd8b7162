"""`selvedge ca`: certificates for users, chaincodes and producers on this host.

Whoever can reach the ca's volume may mint a token: with local processes the volume is a folder
here, with containers it is behind `docker compose exec`.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

import click
import structlog

from selvedge_cli.addresses import load_addresses
from selvedge_cli.options import DEFAULT_HOME, debug_option, json_option
from selvedge_common import logs
from selvedge_common.enrolment import (
    Enrolment,
    EnrolmentError,
    enrol_chaincode,
    enrol_producer,
    enrol_user,
    layout,
)
from selvedge_common.enrolment.material import ageing, defect

AUTOMATIC_USERS = {"admin": "admin", "user1": "user"}
"""Users that are enrolled on first use, and their profiles."""

_COMPOSE_FILES = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
)
_HANDSHAKE_TIMEOUT = 3.0
_MINT_TIMEOUT = 30.0
_ENROL_PATIENCE = 10.0


class _Answer(Enum):
    """What a TLS handshake with the ca's address tells."""

    VERIFIED = "the ca with that root"
    OTHER = "something else"
    NOTHING = "nothing"


def ensure_user(home: Path, name: str, ca_address: str) -> Path:
    """The folder of a user's `msp/` and `tls/`, enrolled first where that is needed.

    Enrols admin and user1 where their certificates are missing, unfit, near their end, or from
    another ca than the one that answers; where no ca answers, good certificates are used as they
    are. Runs an event loop of its own: call it outside of one, or in a thread.

    Args:
        home: `$SELVEDGE_HOME`.
        name: the user.
        ca_address: host:port of the ca.

    Raises:
        click.ClickException: there is no such user and it is not one of those made automatically,
            or enrolling failed.
    """
    folder = _user_folder(home, name)
    with _only_one(home):
        profile = AUTOMATIC_USERS.get(name)
        reason = _user_defect(folder, profile or "user", ca_address)
        if reason is None:
            if profile is not None and _is_ageing(folder, profile):
                # Good certificates serve without a ca; a later command tries again.
                with suppress(click.ClickException):
                    _issue_user(home, name, profile, ca_address, renew=False)
            return folder
        if profile is None:
            raise click.ClickException(
                f"user {name} has no usable certificates in {folder} ({reason}): run "
                f"`selvedge ca issue --user {name}`"
            )
        return _issue_user(home, name, profile, ca_address, renew=False)


@click.group()
def ca() -> None:
    """Certificates for users, chaincodes and producers of events."""


@ca.command(epilog="Example: selvedge ca issue --user alice")
@click.option("--user", help="A user of the organisation, to sign proposals and dial with.")
@click.option("--chaincode", help="A chaincode by its name, to dial the chaincode listener with.")
@click.option("--producer", help="A producer by its name, to publish at the event hub with.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME|IP",
    help="What the peer dials the chaincode by, if it serves; may be given several times.",
)
@click.option(
    "--profile",
    type=click.Choice(["user", "admin"]),
    help="The user's role (admin for the user admin, else user).",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="SELVEDGE_HOME",
    default=DEFAULT_HOME,
    show_default=True,
    help="Where certificates are kept.",
)
@click.option(
    "--ca",
    "--ca-address",
    "ca_address",
    metavar="HOST:PORT",
    help="Address of the certificate authority.  [default: localhost:7055]",
)
@json_option
@debug_option
def issue(
    user: str | None,
    chaincode: str | None,
    producer: str | None,
    hosts: tuple[str, ...],
    profile: str | None,
    home: Path,
    ca_address: str | None,
    as_json: bool,
) -> None:
    """Make a key here and get a certificate for it."""
    # `selvedge up` may have left another address in the home.
    ca_address = ca_address or load_addresses(home).ca
    if sum(name is not None for name in (user, chaincode, producer)) != 1:
        raise click.UsageError("Give one of --user NAME, --chaincode NAME and --producer NAME.")
    if user is None and profile is not None:
        raise click.UsageError("--profile is for users; the others have one profile only.")
    if chaincode is None and hosts:
        raise click.UsageError("--host is for chaincodes; the others serve nothing.")
    with _only_one(home):
        replaced = _certificate_file(home, user, chaincode, producer).exists()
        if user is not None:
            role = profile or AUTOMATIC_USERS.get(user, "user")
            folder = _issue_user(home, user, role, ca_address, renew=True)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
        else:
            folder = (
                _issue_chaincode(home, chaincode, hosts, ca_address)
                if chaincode is not None
                else _issue_producer(home, str(producer), ca_address)
            )
            files = sorted(path for path in folder.iterdir() if path.is_file())
    environment = None if chaincode is None else chaincode_environment(home, folder, chaincode)
    if as_json:
        report: dict[str, Any] = {
            "folder": str(folder.absolute()),
            "files": [str(file.absolute()) for file in files],
            "replaced": replaced,
        }
        click.echo(json.dumps(report | {"environment": environment} if environment else report))
        return
    if replaced:
        click.echo(f"Replaced the keys and certificates in {folder}:")
    else:
        click.echo(f"Wrote into {folder}:")
    for file in files:
        click.echo(f"  {file.relative_to(folder)}")
    if environment:
        click.echo("Next, start the chaincode with:")
        for variable, value in environment.items():
            click.echo(f"  export {variable}={shlex.quote(value)}")
        if hosts:
            click.echo(
                f"To have it serve as {', '.join(hosts)}, set CHAINCODE_SERVER_ADDRESS too, to the "
                "host:port where it listens."
            )
    elif producer is not None:
        click.echo(
            f"Next: publish with this pair at {load_addresses(home).events}, the event hub, by "
            "selvedge.eventhub.v1.Producer/Publish"
        )
    else:
        click.echo(f"Next: selvedge events --user {user}")


def _issue_user(home: Path, name: str, profile: str, ca_address: str, *, renew: bool) -> Path:
    enrolment = _mint(home, name, [profile, "tls-client"], ca_address)
    folder = _user_folder(home, name)
    _run(
        enrol_user(
            folder,
            enrolment,
            profile=profile,
            ca_address=ca_address,
            patience=_ENROL_PATIENCE,
            renew=renew,
        )
    )
    return folder


def _issue_chaincode(home: Path, name: str, hosts: Sequence[str], ca_address: str) -> Path:
    enrolment = _mint(home, name, ["chaincode"], ca_address, hosts)
    folder = _chaincode_folder(home, name)
    _run(
        enrol_chaincode(
            folder,
            enrolment,
            name=name,
            ca_address=ca_address,
            patience=_ENROL_PATIENCE,
            renew=True,
        )
    )
    return folder


def _issue_producer(home: Path, name: str, ca_address: str) -> Path:
    enrolment = _mint(home, name, ["producer"], ca_address)
    folder = _producer_folder(home, name)
    _run(
        enrol_producer(
            folder,
            enrolment,
            name=name,
            ca_address=ca_address,
            patience=_ENROL_PATIENCE,
            renew=True,
        )
    )
    return folder


def _run(enrolling: Coroutine[Any, Any, None]) -> None:
    # Unconfigured logs would go to standard output, into what a command prints for programs.
    if not structlog.is_configured():
        logs.configure("warning", "console")
    try:
        asyncio.run(enrolling)
    except EnrolmentError as error:
        raise click.ClickException(str(error)) from error


def _certificate_file(
    home: Path, user: str | None, chaincode: str | None, producer: str | None
) -> Path:
    if user is not None:
        return _user_folder(home, user) / "msp" / "signcerts" / "cert.pem"
    if producer is not None:
        return _producer_folder(home, producer) / "client.crt"
    return _chaincode_folder(home, str(chaincode)) / "client.crt"


def _chaincode_folder(home: Path, name: str) -> Path:
    return home / "crypto" / "chaincodes" / name


def _producer_folder(home: Path, name: str) -> Path:
    return home / "crypto" / "producers" / name


def _user_folder(home: Path, name: str) -> Path:
    return home / "crypto" / "users" / name


def chaincode_environment(home: Path, folder: Path, name: str) -> dict[str, str]:
    """What Fabric's shims read: all the variables that its peer gives a chaincode, since some read
    the pair as PEM and some as base64 of that."""
    folder = folder.absolute()
    return {
        "CORE_CHAINCODE_ID_NAME": f"{name}:1.0",
        "CORE_PEER_ADDRESS": load_addresses(home).chaincode,
        "CORE_PEER_TLS_ENABLED": "true",
        "CORE_PEER_TLS_ROOTCERT_FILE": str(folder / "ca.crt"),
        "CORE_TLS_CLIENT_CERT_FILE": str(folder / "client.crt"),
        "CORE_TLS_CLIENT_CERT_PATH": str(folder / "client.crt.b64"),
        "CORE_TLS_CLIENT_KEY_FILE": str(folder / "client.key"),
        "CORE_TLS_CLIENT_KEY_PATH": str(folder / "client.key.b64"),
    }


def _user_defect(folder: Path, profile: str, ca_address: str) -> str | None:
    for credential in layout.user(profile):
        if reason := defect(folder, credential, None):
            return reason
    if _dial(ca_address, (folder / "tls" / "ca.crt").read_text()) is _Answer.OTHER:
        return f"they are from another ca than the one at {ca_address}"
    return None


def _is_ageing(folder: Path, profile: str) -> bool:
    return any(ageing(folder, credential) for credential in layout.user(profile))


def _mint(
    home: Path, name: str, profiles: Sequence[str], ca_address: str, hosts: Sequence[str] = ()
) -> Enrolment:
    """An enrolment with fresh tokens, from the ca that answers: a local process or a container."""
    root = home / "ca" / "tls" / "ca.crt"
    answer = _dial(ca_address, root.read_text() if root.exists() else None)
    if answer is _Answer.NOTHING:
        raise click.ClickException(
            f"no ca answers at {ca_address}: start one with `selvedge up` or `docker compose up "
            "--wait`, or say where it is with --ca-address"
        )
    arguments = [
        *("token", f"--name={name}"),
        *(f"--profile={profile}" for profile in profiles),
        *(f"--host={host}" for host in hosts),
    ]
    if answer is _Answer.VERIFIED:
        volume = {"CORE_CA_FILESYSTEMPATH": str(home / "ca")}
        command = [sys.executable, "-m", "certificate_authority", *arguments]
        minted = _output(command, os.environ | volume)
        if minted.returncode:
            raise click.ClickException(_last_line(minted.stderr))
        return _parsed(minted.stdout)
    return _mint_in_container(home, arguments, ca_address)


def _mint_in_container(home: Path, arguments: Sequence[str], ca_address: str) -> Enrolment:
    command = ["docker", "compose", "exec", "-T", "ca", "certificate-authority", *arguments]
    where = home.absolute()
    whose = f"is not the one of {where}" if (home / "ca").exists() else f"has no home in {where}"
    what_to_do = (
        f"the ca at {ca_address} {whose}: run this in the folder where `selvedge up` or docker "
        "compose was started, or give the home of that `selvedge up` with --home"
    )
    if shutil.which("docker") is None or not is_compose_folder():
        raise click.ClickException(what_to_do)
    minted = _output(command, os.environ)
    if minted.returncode:
        said = _last_line(minted.stderr)
        if said.startswith("certificate-authority: "):
            raise click.ClickException(said)
        raise click.ClickException(f"{what_to_do} (docker compose: {said})")
    enrolment = _parsed(minted.stdout)
    if _dial(ca_address, enrolment.tls_root.decode()) is not _Answer.VERIFIED:
        raise click.ClickException(
            f"the ca at {ca_address} is neither the one of {home} nor the one of the compose file "
            "here: say where yours is with --ca-address"
        )
    return enrolment


def is_compose_folder() -> bool:
    """Whether `docker compose` finds a file here: it looks in the folders above, too."""
    if "COMPOSE_FILE" in os.environ:
        return True
    folder = Path.cwd()
    return any(
        (place / name).exists() for place in (folder, *folder.parents) for name in _COMPOSE_FILES
    )


def _output(
    command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - no shell; the words are ours and a checked name
            command,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_MINT_TIMEOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise click.ClickException(
            f"`{shlex.join(command)}` gave no answer in {_MINT_TIMEOUT:g} s: run it by hand to "
            "see why"
        ) from error


def _parsed(output: str) -> Enrolment:
    try:
        return Enrolment.parse(output.encode(), "the output of `certificate-authority token`")
    except EnrolmentError as error:
        raise click.ClickException(str(error)) from error


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no output")


def _dial(address: str, root: str | None) -> _Answer:
    """Who answers at an address: whether its chain ends in `root`, however it is named."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise click.ClickException(f"{address!r} is no address: give host:port, as localhost:7055")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), _HANDSHAKE_TIMEOUT)
    except (OSError, UnicodeError):
        return _Answer.NOTHING
    with connection:
        if root is None:
            return _Answer.OTHER
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Only the root counts here; the enrolment that follows checks the name as well.
        context.check_hostname = False
        context.set_alpn_protocols(["h2"])
        try:
            context.load_verify_locations(cadata=root)
            context.wrap_socket(connection).close()
        except OSError:
            return _Answer.OTHER
    return _Answer.VERIFIED


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Keeps two commands that start at once from writing one user's files together.

    Folders that nothing was written into do not stay.
    """
    folder = home / "crypto"
    created = [place for place in (folder, home) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise click.ClickException(
            f"cannot write into {folder}: {error.strerror}; choose another folder with --home"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
        with suppress(OSError):
            for place in created:
                place.rmdir()
