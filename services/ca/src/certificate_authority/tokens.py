"""One-time tokens: each gives one holder the right to one certificate.

The store is one SQLite file in the ca's volume, shared by `serve` and by `token` runs beside it.
Tokens are random and long, so their plain SHA-256 is enough to recognise them and useless to
whoever reads it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path

from certificate_authority.authority import Clock, utc_now
from certificate_authority.errors import AuthorityError, NotAllowed

MIN_TOKEN_CHARACTERS = 22
"""Shortest token taken over from outside: 128 random bits in base64."""

_TOKEN_BYTES = 32
_BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    handle  TEXT NOT NULL,          -- first characters of the digest: finds the row
    digest  TEXT NOT NULL UNIQUE,   -- SHA-256 of the token, hex
    name    TEXT NOT NULL,
    profile TEXT NOT NULL,
    expires REAL,                   -- seconds since 1970; NULL: never
    spent   REAL,                   -- seconds since 1970; NULL: not yet
    hosts   TEXT NOT NULL DEFAULT ''  -- parted by spaces
) STRICT;
CREATE INDEX IF NOT EXISTS tokens_by_handle ON tokens (handle);
"""


class TokenState(Enum):
    """What the store knows of a token."""

    UNKNOWN = "unknown"
    LIVE = "live"
    SPENT = "spent"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Grant:
    """The right that a token gives.

    Attributes:
        name: whose certificate.
        profile: what for.
        hosts: host names and IP addresses that a chaincode may serve under; whoever makes the
            token decides, and not who uses it.
    """

    name: str
    profile: str
    hosts: tuple[str, ...] = ()


class TokenStore:
    """Tokens of one ca; safe for threads and for several processes on one file.

    Args:
        path: the SQLite file; made with mode 0600 where it is missing.
        clock: the present in UTC.

    Raises:
        AuthorityError: the file cannot be opened or is something else.
    """

    def __init__(self, path: Path, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        try:
            # SQLite gives its -wal and -shm files the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
            self._add_hosts()
        except (OSError, sqlite3.Error) as error:
            raise AuthorityError(
                f"cannot open the token store {path} ({error}): give the ca its own writable volume"
            ) from error

    def close(self) -> None:
        """Closes the file; the store is of no use afterwards."""
        self._database.close()

    def check(self) -> None:
        """Raises `AuthorityError` where the store cannot be read: a health check."""
        with self._lock:
            try:
                self._database.execute("SELECT 1 FROM tokens LIMIT 1").fetchone()
            except sqlite3.Error as error:
                raise _unusable(error) from error

    def mint(self, grant: Grant, lifetime: timedelta | None = None) -> str:
        """A new token, known only to the caller; it expires after `lifetime`, or never."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._insert(token, grant, lifetime)
        return token

    def adopt(self, token: str, grant: Grant) -> None:
        """Takes over a token made elsewhere; one that is known already stays as it is.

        Raises:
            AuthorityError: it is too short to be a secret.
        """
        if len(token) < MIN_TOKEN_CHARACTERS:
            raise AuthorityError(
                f"the token for {grant.name}, profile {grant.profile}, has fewer than "
                f"{MIN_TOKEN_CHARACTERS} characters: make it at random and longer"
            )
        self._insert(token, grant, None)

    def look_up(self, token: str) -> tuple[TokenState, Grant | None]:
        """The state of a token, and what it gives a right to, where it is known."""
        with self._exclusive() as database:
            return self._look_up(database, _digest(token))

    def grant_of(self, token: str) -> Grant:
        """What a live token gives a right to.

        Raises:
            NotAllowed: the token is unknown, spent or expired; the sentence says which.
        """
        return _live(*self.look_up(token))

    def spend(self, token: str) -> Grant:
        """Uses a token up; of any number of callers at once, in any process, one succeeds.

        Raises:
            NotAllowed: the token is unknown, spent or expired; the sentence says which.
        """
        digest = _digest(token)
        with self._exclusive() as database:
            grant = _live(*self._look_up(database, digest))
            database.execute(
                "UPDATE tokens SET spent = ? WHERE digest = ?", (self._clock().timestamp(), digest)
            )
            return grant

    def forget(self, expired_for: timedelta) -> int:
        """Removes tokens whose expiry lies that far back; those that never expire stay for good.

        Returns:
            How many were removed.
        """
        before = (self._clock() - expired_for).timestamp()
        with self._exclusive() as database:
            return database.execute("DELETE FROM tokens WHERE expires < ?", (before,)).rowcount

    def _add_hosts(self) -> None:
        """Gives the column to a store from before tokens had hosts."""
        with self._exclusive() as database:
            columns = database.execute("PRAGMA table_info(tokens)")
            if "hosts" not in {name for _, name, *_ in columns}:
                database.execute("ALTER TABLE tokens ADD COLUMN hosts TEXT NOT NULL DEFAULT ''")

    def _insert(self, token: str, grant: Grant, lifetime: timedelta | None) -> None:
        digest = _digest(token)
        expires = None if lifetime is None else (self._clock() + lifetime).timestamp()
        with self._exclusive() as database:
            database.execute(
                "INSERT INTO tokens (handle, digest, name, profile, hosts, expires) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING",
                (
                    *(_handle(digest), digest),
                    *(grant.name, grant.profile, " ".join(grant.hosts)),
                    expires,
                ),
            )

    def _look_up(
        self, database: sqlite3.Connection, digest: str
    ) -> tuple[TokenState, Grant | None]:
        rows = database.execute(
            "SELECT digest, name, profile, hosts, expires, spent FROM tokens WHERE handle = ?",
            (_handle(digest),),
        )
        for known, name, profile, hosts, expires, spent in rows:
            if not hmac.compare_digest(known, digest):
                continue
            grant = Grant(name, profile, tuple(hosts.split()))
            if spent is not None:
                return TokenState.SPENT, grant
            if expires is not None and expires <= self._clock().timestamp():
                return TokenState.EXPIRED, grant
            return TokenState.LIVE, grant
        return TokenState.UNKNOWN, None

    @contextmanager
    def _exclusive(self) -> Iterator[sqlite3.Connection]:
        # IMMEDIATE: two processes that read the same row before writing it would both go on.
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                raise _unusable(error) from error


def _live(state: TokenState, grant: Grant | None) -> Grant:
    if grant is not None and state is TokenState.LIVE:
        return grant
    sentences = {
        TokenState.SPENT: "the token was used before, and a token works once",
        TokenState.EXPIRED: "the token has expired",
    }
    sentence = sentences.get(state, "the token is unknown to this ca")
    raise NotAllowed(
        f"{state.value}_token", f"{sentence}: ask for a new one with `certificate-authority token`"
    )


def _unusable(error: sqlite3.Error) -> AuthorityError:
    return AuthorityError(
        f"the ca's token store cannot be used ({error}): look at its volume's space and health"
    )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _handle(digest: str) -> str:
    return digest[:8]
