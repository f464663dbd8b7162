"""The ca's volume: what lies where, and how it becomes an authority and a token store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from certificate_authority import metrics
from certificate_authority.authority import (
    Authority,
    Clock,
    Root,
    open_or_make_roots,
    open_roots,
    utc_now,
)
from certificate_authority.config import Config
from certificate_authority.enrolments import Enrolments
from certificate_authority.errors import AuthorityError
from certificate_authority.hosts import ServiceHosts
from certificate_authority.profiles import Signer, profile_named
from certificate_authority.tokens import TokenStore
from selvedge_common.enrolment import layout, material
from selvedge_common.enrolment.metrics import CERTIFICATE_EXPIRY


@dataclass(frozen=True)
class Volume:
    """An opened volume.

    Attributes:
        authority: signs with the volume's roots.
        tokens: the token store.
        enrolments: the members' files.
    """

    authority: Authority
    tokens: TokenStore
    enrolments: Enrolments


def make(config: Config, clock: Clock = utc_now) -> Volume:
    """Opens the volume, with new roots where it has none, and brings the enrolment files up to
    date.

    Raises:
        AuthorityError: the volume cannot be used, or has lost its roots.
    """
    _check_roots_not_lost(config)
    lifetimes = config.ca.lifetimes
    roots = open_or_make_roots(
        _roots_folder(config),
        organization=config.ca.msp_id,
        lifetime=timedelta(seconds=lifetimes.root),
        backdate=timedelta(seconds=lifetimes.backdate),
        clock=clock,
    )
    for signer, root in roots.items():
        metrics.ROOT_EXPIRY.labels(signer.value).set(
            root.certificate.not_valid_after_utc.timestamp()
        )
    volume = _volume(config, roots, clock)
    volume.tokens.forget(timedelta(seconds=config.ca.tokens.remembered))
    volume.enrolments.prepare()
    return volume


def open_existing(config: Config, clock: Clock = utc_now) -> Volume:
    """Opens a volume that has its roots already.

    Raises:
        AuthorityError: it has none, or cannot be used.
    """
    return _volume(config, open_roots(_roots_folder(config)), clock)


def server_pair(config: Config, volume: Volume) -> tuple[bytes, bytes]:
    """The ca's own server certificate and key in PEM, made anew and written into `tls/`.

    A new one at every start follows changes of its names and never grows old.

    Raises:
        AuthorityError: the root has expired.
        selvedge_common.enrolment.EnrolmentError: `tls/` cannot be written.
    """
    folder, (server, _) = config.ca.file_system_path, layout.service(())
    key = material.new_key()
    issued = volume.authority.issue(
        key.public_key(), profile_named(server.profile), config.ca.name, tuple(config.ca.extra_sans)
    )
    enrolment = volume.enrolments.document({})
    until = material.store(folder, server, key, issued.pem, issued.root.pem, enrolment)
    CERTIFICATE_EXPIRY.labels(server.profile).set(until.timestamp())
    return issued.pem, (folder / server.key).read_bytes()


def _roots_folder(config: Config) -> Path:
    return config.ca.file_system_path / "roots"


def _tokens_file(config: Config) -> Path:
    return config.ca.file_system_path / "tokens.db"


def _check_roots_not_lost(config: Config) -> None:
    """Refuses to begin anew where there was a ca: nobody would trust what the new roots sign.

    Roots are made before the token store, so a store without them has lost them. It is looked for
    first: another process may be making both at this moment.
    """
    tokens, roots = _tokens_file(config), _roots_folder(config)
    if tokens.exists() and not roots.exists():
        raise AuthorityError(
            f"the roots {roots} are gone, but {tokens} shows that this ca has issued with them: "
            "restore the folder from its backup; or, to begin with new roots, empty the volume and "
            "enrol every member again"
        )


def _volume(config: Config, roots: Mapping[Signer, Root], clock: Clock) -> Volume:
    authority = Authority(
        roots,
        organization=config.ca.msp_id,
        namespace=config.ca.namespace,
        lifetimes=config.ca.lifetimes.by_profile(),
        backdate=timedelta(seconds=config.ca.lifetimes.backdate),
        clock=clock,
    )
    tokens = TokenStore(_tokens_file(config), clock)
    enrolments = Enrolments(
        authority,
        tokens,
        config.enrolment.all_members(),
        services=ServiceHosts(config.service_hosts()),
        address=config.ca.address,
        group_readable=config.enrolment.group_readable,
    )
    return Volume(authority, tokens, enrolments)
