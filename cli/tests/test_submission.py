"""What can be said of a transaction, whatever happens on its way."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cli.tests.fake_services import Network, answering, make_signer, serving

from selvedge_cli import submission
from selvedge_cli.commit import look_up
from selvedge_cli.connection import Connection
from selvedge_cli.endorsement import Call
from selvedge_cli.submission import NotSubmitted, Outcome, submit
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import proposal_response_pb2, transaction_pb2

CALL = Call("asset", [b"create", b"a1"])


@asynccontextmanager
async def network(home: Path, **parts: object) -> AsyncIterator[tuple[Network, Connection]]:
    made = Network(**{"signer": make_signer(), "chaincode": answering(), **parts})  # type: ignore[arg-type]
    await made.commit()
    async with serving(made, home) as connection:
        yield made, connection


async def test_committed_transaction_is_told_with_its_block(tmp_path: Path) -> None:
    async with network(tmp_path) as (_, connection):
        result = await submit(connection, CALL, 10)
    assert result.outcome is Outcome.VALID
    assert result.payload == b"done"
    assert result.commit is not None
    assert (result.commit.block, result.commit.code, result.conclusion) == (1, "VALID", "")
    assert result.outcome.exit_status == 0


async def test_invalid_transaction_is_told_with_its_code(tmp_path: Path) -> None:
    conflict = transaction_pb2.MVCC_READ_CONFLICT
    async with network(tmp_path, commits=conflict) as (_, connection):
        result = await submit(connection, CALL, 10)
    assert result.outcome is Outcome.INVALID
    assert result.conclusion == (
        "the transaction is in block 1 and is invalid (MVCC_READ_CONFLICT): it changed nothing"
    )
    assert result.outcome.exit_status == 3


async def test_not_waiting_ends_with_the_ordering(tmp_path: Path) -> None:
    async with network(tmp_path, commits=None) as (made, connection):
        result = await submit(connection, CALL, 10, wait=False)
        assert result.outcome is Outcome.ORDERED
        assert len(made.ordered) == 1


async def test_time_out_after_ordering_looks_the_transaction_up(tmp_path: Path) -> None:
    async with network(tmp_path, commits=None) as (_, connection):
        result = await submit(connection, CALL, 0.5)
    assert result.outcome is Outcome.PENDING
    assert result.conclusion == (
        "no commit was seen within 0.5 s, and it is in no block up to 0: it was handed to the "
        "ordering and can still be committed; ask again with "
        f"`selvedge status --txid {result.txid} --from 1`"
    )
    assert result.outcome.exit_status == 4


async def test_ordering_that_breaks_off_leaves_it_to_the_ledger(tmp_path: Path) -> None:
    async with network(tmp_path, answers=None) as (_, connection):
        result = await submit(connection, CALL, 10)
    assert result.outcome is Outcome.VALID
    assert "answered: stopping" in result.conclusion
    assert result.conclusion.endswith("but the transaction is in block 1 and valid")


async def test_look_up_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(submission, "look_up", never)
    monkeypatch.setattr(submission, "LOOK_UP_TIMEOUT", 0.1)
    async with network(tmp_path, commits=None) as (_, connection):
        result = await submit(connection, CALL, 0.5)
    assert result.outcome is Outcome.PENDING
    assert "and it could not be looked up within 0.1 s: it was handed" in result.conclusion


async def test_refused_call_is_not_submitted(tmp_path: Path) -> None:
    refusal = proposal_response_pb2.Response(status=500, message="no such asset")
    async with network(tmp_path, chaincode=lambda _: (refusal, "")) as (made, connection):
        with pytest.raises(NotSubmitted) as refused:
            await submit(connection, CALL, 10)
        assert made.ordered == []
    assert str(refused.value) == (
        "asset was not endorsed (status 500): no such asset; nothing was submitted"
    )


async def test_refusing_ordering_means_not_submitted(tmp_path: Path) -> None:
    refusal = {"answers": common_pb2.FORBIDDEN, "says": "It is not allowed."}
    async with network(tmp_path, **refusal) as (_, connection):
        with pytest.raises(NotSubmitted, match=r"FORBIDDEN: It is not allowed; nothing was subm"):
            await submit(connection, CALL, 10)


UNCERTAIN = {"answers": common_pb2.INTERNAL_SERVER_ERROR, "says": "It is not known to be ordered."}


async def test_ordering_that_does_not_know_leaves_it_to_the_ledger(tmp_path: Path) -> None:
    async with network(tmp_path, **UNCERTAIN) as (_, connection):
        result = await submit(connection, CALL, 10)
    assert result.outcome is Outcome.VALID
    assert result.conclusion.endswith(
        "answered: INTERNAL_SERVER_ERROR: It is not known to be ordered, but the transaction is in "
        "block 1 and valid"
    )


async def test_what_nobody_knows_to_be_ordered_can_still_be_committed(tmp_path: Path) -> None:
    async with network(tmp_path, commits=None, **UNCERTAIN) as (_, connection):
        result = await submit(connection, CALL, 10)
    assert result.outcome is Outcome.PENDING
    assert result.outcome.exit_status == 4
    assert (
        "It is not known to be ordered, and it is in no block up to 0: it was handed to the "
        "ordering and can still be committed; ask again"
    ) in result.conclusion


async def test_time_out_before_ordering_means_not_submitted(tmp_path: Path) -> None:
    async with network(tmp_path) as (made, connection):
        made.blocks.clear()  # the stream of blocks has nothing to begin with
        with pytest.raises(NotSubmitted) as late:
            await submit(connection, CALL, 0.2)
        assert made.ordered == []
    assert str(late.value) == (
        "the peer did not open its stream of blocks within 0.2 s; nothing was submitted"
    )


async def test_chaincode_that_hangs_is_named(tmp_path: Path) -> None:
    async with network(tmp_path, hanging={"endorse"}) as (made, connection):
        with pytest.raises(NotSubmitted) as late:
            await submit(connection, CALL, 0.5)
        assert made.ordered == []
    assert str(late.value) == (
        "asset was not endorsed: it did not answer the peer within 0.5 s; nothing was submitted"
    )


async def test_ordering_that_cannot_be_reached_in_time_is_named(tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as silent:
        async with network(tmp_path) as (_, connection):
            address = f"localhost:{silent.getsockname()[1]}"
            object.__setattr__(connection.settings.addresses, "orderer", address)
            with pytest.raises(NotSubmitted) as late:
                await submit(connection, CALL, 0.5)
    assert str(late.value) == "the ordering did not answer within 0.5 s; nothing was submitted"


@pytest.mark.parametrize("wait", [True, False])
async def test_ordering_that_hangs_is_named(tmp_path: Path, wait: bool) -> None:
    async with network(tmp_path, hanging={"order"}) as (_, connection):
        result = await submit(connection, CALL, 0.5, wait=wait)
    assert result.outcome is Outcome.PENDING
    assert result.conclusion.startswith(
        "the ordering did not answer within 0.5 s, and it is in no block up to 0: it was handed"
    )


async def test_services_that_are_away_are_named(tmp_path: Path) -> None:
    async with network(tmp_path) as (_, connection):
        object.__setattr__(connection.settings.addresses, "orderer", "localhost:1")
        with pytest.raises(NotSubmitted, match=r"the ordering at localhost:1 does not answer"):
            await submit(connection, CALL, 10)
        object.__setattr__(connection.settings.addresses, "peer", "localhost:1")
        with pytest.raises(NotSubmitted, match=r"the peer at localhost:1 does not answer"):
            await submit(connection, CALL, 10)


async def test_transaction_is_found_by_its_id_later(tmp_path: Path) -> None:
    async with network(tmp_path) as (_, connection):
        result = await submit(connection, CALL, 10)
        commit, last = await look_up(connection, result.txid, 0)
        assert (commit, last) == (result.commit, 1)
        assert await look_up(connection, "unknown", 0) == (None, 1)
        assert await look_up(connection, result.txid, 2) == (None, 1)
