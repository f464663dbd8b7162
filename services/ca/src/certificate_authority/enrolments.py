"""The members' enrolment files: each in its own folder, with a live token for every profile."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from certificate_authority.authority import Authority
from certificate_authority.errors import AuthorityError
from certificate_authority.hosts import ServiceHosts
from certificate_authority.profiles import CHAINCODE
from certificate_authority.tokens import Grant, TokenState, TokenStore
from selvedge_common.enrolment.document import Enrolment, EnrolmentError
from selvedge_common.files import make_private_folder, write_atomically
from selvedge_common.logs import get_logger

FILE_NAME = "enrolment.json"

_log = get_logger("ca.enrolments")


@dataclass(frozen=True)
class Member:
    """Somebody who enrols by a file that the ca keeps ready.

    Attributes:
        name: the common name in its certificates.
        folder: where its enrolment file lies; seen by the ca and by that member only.
        profiles: the certificates it may have.
        extra_sans: more host names and IP addresses in the certificates that it serves with.
    """

    name: str
    folder: Path
    profiles: tuple[str, ...]
    extra_sans: tuple[str, ...] = ()


class Enrolments:
    """Keeps the members' files.

    Args:
        authority: whose root and MSP id the files name.
        tokens: where the tokens in them are known.
        members: whom files are kept for.
        services: the hosts that no chaincode may have.
        address: host:port at which members reach the ca.
        group_readable: whether the files' group may read them (0640 instead of 0600).
    """

    def __init__(
        self,
        authority: Authority,
        tokens: TokenStore,
        members: Iterable[Member],
        *,
        services: ServiceHosts,
        address: str,
        group_readable: bool = False,
    ) -> None:
        self._authority = authority
        self._tokens = tokens
        self._members = {member.name: member for member in members}
        self._services = services
        self._address = address
        self._lock = threading.Lock()
        self._mode = 0o640 if group_readable else 0o600

    def hosts(self, grant: Grant) -> tuple[str, ...]:
        """What a grant's holder may serve under beside what its name gives: the hosts configured
        for the member of that name, and those that the token was made for.

        Raises:
            NotAllowed: the grant is a chaincode's, and one of them, or its name, is a service's.
        """
        member = self._members.get(grant.name)
        hosts = (*(member.extra_sans if member else ()), *grant.hosts)
        if grant.profile == CHAINCODE:
            self._services.check_chaincode(grant.name, hosts)
        return hosts

    def document(self, tokens: Mapping[str, str]) -> Enrolment:
        """An enrolment with these tokens by profile."""
        root = self._authority.tls_root
        return Enrolment(self._address, root.pem, root.sha256, self._authority.organization, tokens)

    def prepare(self) -> None:
        """Brings every member's file up to date: writes what is missing, takes over what was put
        there.

        A file that cannot be written (a Kubernetes secret) is used as it is. A member whose folder
        cannot be made is left out with a warning, for in a container it may just not be mounted.
        """
        with self._lock:
            for member in self._members.values():
                self._prepare(member)

    def replace(self, spent: Grant) -> None:
        """Puts a fresh token in the place of a spent one, where store and file can be written.

        Never fails: the certificate that the token was spent for must still reach its holder.
        """
        member = self._members.get(spent.name)
        if member is None or spent.profile not in member.profiles:
            return
        with self._lock:
            present = self._read(member)
            if present is None or not _writable(member):
                return
            try:
                # Without the hosts of a token that was made by hand: those are not the file's.
                fresh = self._tokens.mint(Grant(member.name, spent.profile))
            except AuthorityError as error:
                _log.error(
                    "no fresh token for a member, which cannot enrol for this profile again until "
                    "the ca is restarted",
                    member=member.name,
                    profile=spent.profile,
                    reason=str(error),
                )
                return
            self._write(member, self.document({**present.tokens, spent.profile: fresh}))

    def _prepare(self, member: Member) -> None:
        present = self._read(member)
        tokens = self._taken_over(member, present)
        if present == self.document(tokens) and len(tokens) == len(member.profiles):
            return
        missing = [profile for profile in member.profiles if profile not in tokens]
        if _writable(member):
            for profile in missing:
                tokens[profile] = self._tokens.mint(Grant(member.name, profile))
            self._write(member, self.document(tokens))
        elif missing:
            _log.warning(
                "a member cannot enrol: its folder is read-only or missing, and holds no usable "
                "token; mount it writable, or put a fresh enrolment file there",
                member=member.name,
                folder=str(member.folder),
                profiles=missing,
            )

    def _taken_over(self, member: Member, present: Enrolment | None) -> dict[str, str]:
        """The tokens of a file that give the member what it may have, unknown ones made known."""
        if present is None:
            return {}
        if present.tls_root_sha256 != self._authority.tls_root.sha256:
            _log.warning(
                "an enrolment file names the root of another ca; its tokens are not taken over",
                member=member.name,
                folder=str(member.folder),
            )
            return {}
        tokens = {}
        for profile in member.profiles:
            token, grant = present.tokens.get(profile), Grant(member.name, profile)
            if token is None:
                continue
            try:
                self._tokens.adopt(token, grant)
            except AuthorityError as error:
                _log.warning("a token is not taken over", member=member.name, reason=str(error))
                continue
            if self._tokens.look_up(token) == (TokenState.LIVE, grant):
                tokens[profile] = token
        return tokens

    def _read(self, member: Member) -> Enrolment | None:
        try:
            return Enrolment.load(member.folder / FILE_NAME)
        except FileNotFoundError:
            return None
        except EnrolmentError as error:
            _log.warning("an enrolment file is unfit", member=member.name, reason=str(error))
            return None

    def _write(self, member: Member, enrolment: Enrolment) -> None:
        file = member.folder / FILE_NAME
        try:
            write_atomically(file, enrolment.to_json(), self._mode)
        except OSError as error:
            # The member may go on with what it has, and the others must not suffer.
            _log.error("cannot write an enrolment file", file=str(file), reason=error.strerror)


def _writable(member: Member) -> bool:
    """Whether files can be made in a member's folder, which is made where it is missing."""
    if not member.folder.exists():
        with contextlib.suppress(OSError):
            make_private_folder(member.folder)
    return os.access(member.folder, os.W_OK | os.X_OK)
