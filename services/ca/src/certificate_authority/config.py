"""What can be set: `core.yaml` in classes. Every key, its default and its meaning is there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Literal

from certificate_authority.enrolments import Member
from certificate_authority.errors import AuthorityError, Refused
from certificate_authority.profiles import PROFILES, alternative_name, profile_named
from selvedge_common import config
from selvedge_common.config import Duration, Size

_LONGEST = 100 * 365 * 24 * 3600.0
"""Seconds, a hundred years: the ends of all lives must be dates."""
_MOST = 2**31 - 1


@dataclass(frozen=True)
class Lifetimes:
    """`ca.lifetimes`, in seconds."""

    root: Duration
    tls_server: Duration
    tls_client: Duration
    peer: Duration
    orderer: Duration
    user: Duration
    admin: Duration
    chaincode: Duration
    backdate: Duration

    def __post_init__(self) -> None:
        """Raises ValueError: see `_check_duration`."""
        _check_duration(
            root=self.root,
            tlsServer=self.tls_server,
            tlsClient=self.tls_client,
            peer=self.peer,
            orderer=self.orderer,
            user=self.user,
            admin=self.admin,
            chaincode=self.chaincode,
        )
        _check_duration(or_zero=True, backdate=self.backdate)

    def by_profile(self) -> dict[str, timedelta]:
        """Lifetimes by the profiles' names."""
        return {name: timedelta(seconds=getattr(self, name.replace("-", "_"))) for name in PROFILES}


@dataclass(frozen=True)
class Tokens:
    """`ca.tokens`, in seconds."""

    lifetime: Duration
    remembered: Duration

    def __post_init__(self) -> None:
        """Raises ValueError: see `_check_duration`."""
        _check_duration(lifetime=self.lifetime)
        _check_duration(or_zero=True, remembered=self.remembered)


@dataclass(frozen=True)
class Limits:
    """`ca.limits`."""

    max_request_bytes: Size
    requests_per_second: float
    burst: int
    max_concurrent_streams: int
    stop_grace: Duration

    def __post_init__(self) -> None:
        """Raises ValueError: a setting is out of its range; the sentence names it."""
        if self.requests_per_second <= 0:
            raise ValueError(
                f"requestsPerSecond is {self.requests_per_second:g}, but must be above 0"
            )
        # A signing request has to fit.
        _check_number(1024, maxRequestBytes=self.max_request_bytes)
        _check_number(1, burst=self.burst, maxConcurrentStreams=self.max_concurrent_streams)
        _check_duration(or_zero=True, stopGrace=self.stop_grace)


@dataclass(frozen=True)
class Ca:
    """`ca`."""

    name: str
    listen_address: str
    address: str
    file_system_path: Path
    msp_id: str
    namespace: str
    extra_sans: list[str]
    lifetimes: Lifetimes
    tokens: Tokens
    limits: Limits

    def __post_init__(self) -> None:
        """Raises ValueError: a name or an address is none; the sentence shows it."""
        _check_names(self.name, ["tls-server"], self.extra_sans)
        try:
            alternative_name(self.namespace)
        except AuthorityError:
            raise ValueError(
                f"namespace is {self.namespace!r}, but must be the name of one, such as default"
            ) from None
        _check_address("listenAddress", self.listen_address, least_port=0)
        _check_address("address", self.address, least_port=1)
        if not 0 < len(self.msp_id) <= 64:
            raise ValueError(f"mspId {self.msp_id!r} must have 1 to 64 characters")


@dataclass(frozen=True)
class MemberEntry:
    """One of `enrolment.members`."""

    name: str
    folder: Path
    profiles: list[str]
    extra_sans: list[str]

    def __post_init__(self) -> None:
        _check_names(self.name, self.profiles, self.extra_sans)


@dataclass(frozen=True)
class Enrolment:
    """`enrolment`."""

    folder: Path
    group_readable: bool
    members: list[MemberEntry]

    def __post_init__(self) -> None:
        """Raises ValueError: two members would write over each other."""
        for what, values in (
            ("name", [member.name for member in self.members]),
            ("folder", [str(self.folder / member.folder) for member in self.members]),
        ):
            for value, times in Counter(values).items():
                if times > 1:
                    raise ValueError(f"{times} members have the {what} {value}: give each its own")

    def all_members(self) -> list[Member]:
        """The members with their folders resolved."""
        return [
            Member(
                entry.name,
                self.folder / entry.folder,
                tuple(entry.profiles),
                tuple(entry.extra_sans),
            )
            for entry in self.members
        ]


@dataclass(frozen=True)
class OperationsTLS:
    """`operations.tls`."""

    enabled: bool


@dataclass(frozen=True)
class Operations:
    """`operations`."""

    listen_address: str
    tls: OperationsTLS

    def __post_init__(self) -> None:
        """Raises ValueError: see `_check_address`."""
        _check_address("listenAddress", self.listen_address, least_port=0)


@dataclass(frozen=True)
class Logging:
    """`logging`."""

    spec: str
    format: Literal["json", "console"]


@dataclass(frozen=True)
class Config:
    """The whole of it."""

    ca: Ca
    enrolment: Enrolment
    operations: Operations
    logging: Logging


def load(file: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration: packaged defaults, `file` over them, `CORE_…` variables over both.

    Raises:
        config.ConfigError: a value is wrong; the sentence names its key and where it came from.
    """
    return config.load(Config, files("certificate_authority") / "core.yaml", file, environ)


def _check_duration(*, or_zero: bool = False, **settings: float) -> None:
    """Raises ValueError for one that is not positive, or longer than `_LONGEST`."""
    for name, seconds in settings.items():
        if not (0 < seconds <= _LONGEST or (or_zero and seconds == 0)):
            raise ValueError(
                f"{name} is {seconds:g} s, but must be {'0 or ' if or_zero else ''}longer than 0, "
                f"and {_LONGEST / 3600:.0f}h at most"
            )


def _check_number(least: int, **settings: int) -> None:
    """Raises ValueError for one that is below `least`, or more than gRPC can count."""
    for name, number in settings.items():
        if not least <= number <= _MOST:
            raise ValueError(f"{name} is {number}, but must be between {least} and {_MOST}")


def _check_address(name: str, address: str, *, least_port: int) -> None:
    """Raises ValueError for one that is not host:port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not least_port <= int(port) <= 65535:
        raise ValueError(f"{name} is {address!r}, but must be host:port, as in 0.0.0.0:7055")


def _check_names(name: str, profiles: list[str], extra_sans: list[str]) -> None:
    try:
        for profile in profiles:
            profile_named(profile).check_name(name)
        for text in extra_sans:
            alternative_name(text)
    except (Refused, AuthorityError) as error:
        raise ValueError(f"{name}: {error}") from error
