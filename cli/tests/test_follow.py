"""Following a channel: every block once, across lost connections and runs."""

import json
from pathlib import Path

import pytest
from cli.tests.fake_services import Network, answering, make_signer, serving

from selvedge_cli import deliver, events
from selvedge_cli.checkpoints import Checkpoint, Printed
from selvedge_cli.connection import Connection
from selvedge_cli.endorsement import Call
from selvedge_cli.errors import CommandError
from selvedge_cli.follow import Kind, Wanted, follow
from selvedge_cli.rendering import render
from selvedge_cli.submission import submit
from selvedge_protos.peer import transaction_pb2


async def numbers(connection: Connection, start: deliver.Position, stop: int) -> list[int]:
    wanted = Wanted(Kind.BLOCK)
    told = follow(connection, wanted, start, stop, on_pause=lambda _: None)
    return [block.number async for block in told]


async def make_network(blocks: int = 1) -> Network:
    network = Network(make_signer(), answering(event="Created"))
    for _ in range(blocks):
        await network.commit()
    return network


async def test_lost_connection_costs_no_block_and_repeats_none(tmp_path: Path) -> None:
    network = await make_network(6)
    network.cuts = [2, 0, 3]
    away: list[CommandError] = []
    async with serving(network, tmp_path) as connection:
        wanted = Wanted(Kind.FILTERED)
        told = follow(connection, wanted, deliver.OLDEST, 5, on_pause=away.append)
        assert [block.number async for block in told] == [0, 1, 2, 3, 4, 5]
    assert network.deliver_streams == 4
    assert all("does not answer (cut)" in str(failure) for failure in away)


async def test_range_that_ends_now_does_not_wait(tmp_path: Path) -> None:
    network = await make_network(3)
    async with serving(network, tmp_path) as connection:
        wanted = Wanted(Kind.BLOCK)
        told = follow(connection, wanted, 1, deliver.NEWEST, on_pause=lambda _: None)
        assert [block.number async for block in told] == [1, 2]
        told = follow(connection, wanted, 3, deliver.NEWEST, on_pause=lambda _: None)
        assert [block.number async for block in told] == []


async def test_runs_continue_where_the_last_one_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(2)
    checkpoint = Checkpoint(tmp_path, "block", "mychannel")

    async def run(connection: Connection, start: str | int | None) -> list[str]:
        begin, skip = events._begin(start, checkpoint.read())
        wanted = Wanted(Kind.BLOCK)
        await events._follow(connection, wanted, begin, skip, "newest", None, checkpoint)
        return [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]

    async with serving(network, tmp_path) as connection:
        assert await run(connection, None) == ["block 1"]
        await network.commit()
        await network.commit()
        assert await run(connection, None) == ["block 2", "block 3"]
        assert await run(connection, None) == []
        assert await run(connection, "oldest") == ["block 0", "block 1", "block 2", "block 3"]
    assert json.loads(checkpoint.file.read_text()) == {"channel": "mychannel", "block": 3}


async def test_count_is_gone_on_from_by_the_next_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(1)
    checkpoint = Checkpoint(tmp_path, "chaincode", "mychannel")

    async def run(connection: Connection, count: int) -> list[str]:
        begin, skip = events._begin(None, checkpoint.read())
        wanted = Wanted(Kind.CHAINCODE)
        await events._follow(connection, wanted, begin, skip, "newest", count, checkpoint)
        return [line.split()[4] for line in capsys.readouterr().out.splitlines()]

    async with serving(network, tmp_path) as connection:
        network.commits = None
        call = Call("asset", [b"create"])
        txids = [(await submit(connection, call, 10, wait=False)).txid for _ in range(5)]
        await network.commit(*network.ordered[:3])
        await network.commit(*network.ordered[3:])
        checkpoint.write(Printed(0))
        assert await run(connection, 2) == txids[:2]
        assert checkpoint.read() == Printed(1, 2)
        assert await run(connection, 1) == txids[2:3]
        assert checkpoint.read() == Printed(1)
        assert await run(connection, 1) == txids[3:4]
        assert await run(connection, 5) == txids[4:]
        assert checkpoint.read() == Printed(2)


@pytest.mark.parametrize(
    ("farewell", "why"),
    [
        ("SHUTTING_DOWN: connect again", "does not answer (SHUTTING_DOWN: connect again)"),
        ("", "the event hub ended the stream"),
    ],
)
async def test_hub_that_goes_away_leaves_the_command_that_misses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], farewell: str, why: str
) -> None:
    network = await make_network(2)
    network.farewell = farewell
    checkpoint = Checkpoint(tmp_path, "block", "mychannel")
    async with serving(network, tmp_path) as connection:
        with pytest.raises(CommandError) as ended:
            await events._listen(connection, Wanted(Kind.BLOCK), None)
        assert why in str(ended.value)
        assert str(ended.value).endswith("go on with `selvedge events --type block --from 2`")
        assert len(capsys.readouterr().out.splitlines()) == 2
        await network.commit()
        wanted = Wanted(Kind.BLOCK)
        await events._follow(connection, wanted, 2, 0, "newest", None, checkpoint)
        assert capsys.readouterr().out.startswith("block 2 ")


async def test_hub_that_goes_away_before_any_block_leaves_the_command_to_complete(
    tmp_path: Path,
) -> None:
    network = await make_network(1)
    async with serving(network, tmp_path) as connection:
        with pytest.raises(CommandError) as ended:
            await events._listen(connection, Wanted(Kind.CHAINCODE, "asset", "A b"), None)
    assert "`selvedge events --type chaincode --chaincode asset --name 'A b' --from N`" in str(
        ended.value
    )


async def test_place_beyond_the_chain_is_explained(tmp_path: Path) -> None:
    network = await make_network(1)
    checkpoint = Checkpoint(tmp_path, "block", "mychannel")
    async with serving(network, tmp_path) as connection:
        with pytest.raises(CommandError, match=r"no block 9 yet; if the ledger is a new one"):
            await events._follow(connection, Wanted(Kind.BLOCK), 9, 0, None, None, checkpoint)


async def test_each_kind_tells_its_own(tmp_path: Path) -> None:
    network = await make_network(1)
    async with serving(network, tmp_path) as connection:
        good = await submit(connection, Call("asset", [b"create"]), 10)
        network.commits = transaction_pb2.MVCC_READ_CONFLICT
        bad = await submit(connection, Call("asset", [b"update"]), 10)

        async def lines(wanted: Wanted) -> list[str]:
            told = follow(connection, wanted, 1, deliver.NEWEST, on_pause=lambda _: None)
            return [render(r, as_json=False) async for block in told for r in block.records]

        block = (await lines(Wanted(Kind.BLOCK)))[0]
        assert block.startswith("block 1  hash ")
        assert block.endswith(f"tx {good.txid} VALID asset.create set Created")
        assert (await lines(Wanted(Kind.FILTERED)))[1] == (
            f"filtered 2  tx {bad.txid} MVCC_READ_CONFLICT asset.Created"
        )
        assert await lines(Wanted(Kind.CHAINCODE)) == [
            f"chaincode 1  asset.Created  tx {good.txid}  {{}}"
        ]
        assert await lines(Wanted(Kind.CHAINCODE, "other")) == []
        assert await lines(Wanted(Kind.CHAINCODE, "asset", "Deleted")) == []
        assert await lines(Wanted(Kind.REJECTION)) == [
            f"rejection 2  tx {bad.txid} MVCC_READ_CONFLICT asset.update set Created"
        ]


def test_checkpoint_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "block", "mychannel")
    checkpoint.write(Printed(4))
    with pytest.raises(CommandError, match=r"is about the channel mychannel"):
        Checkpoint(tmp_path, "block", "other").read()
    checkpoint.file.write_text("{")
    with pytest.raises(CommandError, match=r"block\.json cannot be read .*: delete it"):
        checkpoint.read()
    with pytest.raises(CommandError, match=r"cannot name a checkpoint"):
        Checkpoint(tmp_path, "../x", "mychannel")


def test_checkpoint_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    with pytest.raises(CommandError, match=r"block\.json cannot be written .*--home"):
        Checkpoint(tmp_path, "block", "mychannel").write(Printed(4))
