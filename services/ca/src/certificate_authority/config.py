"""What can be set: `core.yaml` in classes. Every key, its default and its meaning is there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from certificate_authority.enrolments import Member
from certificate_authority.errors import AuthorityError, Refused
from certificate_authority.hosts import alternative_name, service_hosts
from certificate_authority.profiles import CHAINCODE, PROFILES, TLS_SERVER, profile_named
from selvedge_common import config
from selvedge_common.config import Duration, HostPort, Range, Size
from selvedge_common.config.sections import Logging, Operations, Transport

_LONGEST = "876000h"
"""A hundred years: the ends of all lives must be dates."""
_Lifetime = Annotated[Duration, Range("1s", _LONGEST)]
_Pause = Annotated[Duration, Range("0s", _LONGEST)]


@dataclass(frozen=True)
class Lifetimes:
    """`ca.lifetimes`, in seconds."""

    root: _Lifetime
    tls_server: _Lifetime
    tls_client: _Lifetime
    peer: _Lifetime
    orderer: _Lifetime
    user: _Lifetime
    admin: _Lifetime
    chaincode: _Lifetime
    producer: _Lifetime
    backdate: _Pause

    def by_profile(self) -> dict[str, timedelta]:
        """Lifetimes by the profiles' names."""
        return {name: timedelta(seconds=getattr(self, name.replace("-", "_"))) for name in PROFILES}


@dataclass(frozen=True)
class Tokens:
    """`ca.tokens`, in seconds."""

    lifetime: _Lifetime
    remembered: _Pause


@dataclass(frozen=True)
class Limits:
    """`ca.limits`."""

    max_request_bytes: Size
    requests_per_second: float
    burst: int
    max_concurrent_streams: int
    stop_grace: _Pause


@dataclass(frozen=True)
class Ca:
    """`ca`."""

    name: str
    listen_address: Annotated[str, HostPort(listening=True)]
    address: Annotated[str, HostPort()]
    file_system_path: Path
    msp_id: str
    namespace: str
    extra_sans: list[str]
    lifetimes: Lifetimes
    tokens: Tokens
    limits: Limits

    def __post_init__(self) -> None:
        """Raises ValueError: a name is none; the sentence shows it."""
        _check_names(self.name, [TLS_SERVER], self.extra_sans)
        try:
            alternative_name(self.namespace)
        except AuthorityError:
            raise ValueError(
                f"namespace is {self.namespace!r}, but must be the name of one, such as default"
            ) from None
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
class Config:
    """The whole of it."""

    ca: Ca
    transport: Transport
    enrolment: Enrolment
    operations: Operations
    logging: Logging

    def service_hosts(self) -> list[str]:
        """What the ca and the services among its members are dialled by.

        A chaincode that serves may be a member with a server certificate too; it is no service.
        """
        services = [(self.ca.name, self.ca.extra_sans)]
        services += (
            (member.name, member.extra_sans)
            for member in self.enrolment.members
            if TLS_SERVER in member.profiles and CHAINCODE not in member.profiles
        )
        return [
            host
            for name, extra in services
            for host in service_hosts(name, self.ca.namespace, extra)
        ]


def load(file: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration: packaged defaults, `file` over them, `CORE_…` variables over both.

    Raises:
        config.ConfigError: a value is wrong; the sentence names its key and where it came from.
    """
    return config.load(Config, files("certificate_authority") / "core.yaml", file, environ)


def _check_names(name: str, profiles: list[str], extra_sans: list[str]) -> None:
    try:
        for profile in profiles:
            profile_named(profile).check_name(name)
        for text in extra_sans:
            alternative_name(text)
    except (Refused, AuthorityError) as error:
        raise ValueError(f"{name}: {error}") from error
