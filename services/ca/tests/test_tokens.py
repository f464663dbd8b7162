"""One-time tokens: spent once, by one, whoever else tries, in whatever process."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certificate_authority.errors import AuthorityError, NotAllowed
from certificate_authority.tokens import Grant, TokenState, TokenStore

GRANT = Grant("alice", "user")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


def _spends(store: TokenStore, token: str) -> bool:
    try:
        store.spend(token)
    except NotAllowed:
        return False
    return True


def test_a_token_works_once_also_after_a_restart(path: Path) -> None:
    store = TokenStore(path)
    token = store.mint(GRANT)
    assert store.spend(token) == GRANT
    store.close()
    with pytest.raises(NotAllowed, match="used before"):
        TokenStore(path).spend(token)


def test_an_unknown_token_is_called_unknown(path: Path) -> None:
    with pytest.raises(NotAllowed, match="unknown to this ca"):
        TokenStore(path).spend("nobody-ever-minted-this-one")


def test_a_token_expires_and_is_forgotten_later(path: Path) -> None:
    now = [datetime.now(UTC)]
    store = TokenStore(path, lambda: now[0])
    token, lasting = store.mint(GRANT, timedelta(minutes=10)), store.mint(GRANT)
    now[0] += timedelta(minutes=10)
    with pytest.raises(NotAllowed, match="has expired"):
        store.spend(token)
    assert store.forget(timedelta(hours=1)) == 0
    now[0] += timedelta(hours=2)
    assert store.forget(timedelta(hours=1)) == 1
    assert store.look_up(token) == (TokenState.UNKNOWN, None)
    assert store.spend(lasting) == GRANT


def test_of_many_threads_one_spends(path: Path) -> None:
    store, other = TokenStore(path), TokenStore(path)
    token = store.mint(GRANT)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(_spends, [store, other] * 8, [token] * 16))
    assert results.count(True) == 1


def test_of_many_processes_one_spends(path: Path) -> None:
    token = TokenStore(path).mint(GRANT)
    program = (
        "import sys, pathlib; from certificate_authority.tokens import TokenStore; "
        "print(TokenStore(pathlib.Path(sys.argv[1])).spend(sys.argv[2]).name)"
    )
    command = [sys.executable, "-c", program, str(path), token]
    racers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(3)
    ]
    assert sorted(racer.communicate(timeout=30)[0] for racer in racers) == ["", "", "alice\n"]


def test_an_adopted_token_works_once_and_adopting_again_does_not_revive_it(path: Path) -> None:
    store, token = TokenStore(path), "a-token-that-came-in-a-secret"
    store.adopt(token, GRANT)
    assert store.spend(token) == GRANT
    store.adopt(token, GRANT)
    with pytest.raises(NotAllowed, match="used before"):
        store.spend(token)


def test_hosts_are_the_tokens_own(path: Path) -> None:
    grant = Grant("mycc", "chaincode", ("mycc", "10.1.2.3"))
    token = TokenStore(path).mint(grant)
    assert TokenStore(path).grant_of(token) == grant
    assert TokenStore(path).spend(token) == grant


def test_a_store_from_before_hosts_keeps_its_tokens(path: Path) -> None:
    token = "a-token-that-an-earlier-version-made"
    digest = hashlib.sha256(token.encode()).hexdigest()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE tokens (handle TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, name TEXT NOT "
            "NULL, profile TEXT NOT NULL, expires REAL, spent REAL) STRICT"
        )
        database.execute(
            "INSERT INTO tokens VALUES (?, ?, 'alice', 'user', NULL, NULL)", (digest[:8], digest)
        )
    store, other = TokenStore(path), TokenStore(path)
    grant = Grant("mycc", "chaincode", ("localhost",))
    assert other.grant_of(store.mint(grant)) == grant
    assert store.spend(token) == GRANT


def test_a_short_token_is_not_adopted(path: Path) -> None:
    with pytest.raises(AuthorityError, match="fewer than 22 characters"):
        TokenStore(path).adopt("secret", GRANT)


def test_the_file_is_private_and_holds_no_token(path: Path) -> None:
    token = TokenStore(path).mint(GRANT)
    files = list(path.parent.glob("tokens.db*"))
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert not any(token.encode() in file.read_bytes() for file in files)


def test_a_file_that_is_something_else_is_named(path: Path) -> None:
    path.write_bytes(b"certainly no database" * 100)
    with pytest.raises(AuthorityError, match="cannot open the token store"):
        TokenStore(path)


def test_a_store_that_became_unusable_says_so(path: Path) -> None:
    store = TokenStore(path)
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE tokens")
    database.close()
    with pytest.raises(AuthorityError, match="cannot be used"):
        store.check()
    with pytest.raises(AuthorityError, match="cannot be used"):
        store.mint(GRANT)
