"""Following a channel: every block once, across lost connections and runs."""

import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from cli.tests.fake_services import Network, answering, make_pair, make_signer, serving
from click.testing import CliRunner

from selvedge_cli.checkpoints import checkpoint_file
from selvedge_cli.connection import Connection
from selvedge_cli.endorsement import Call
from selvedge_cli.errors import CommandError, NoSuchChannel, NotReachable, NotTrusted
from selvedge_cli.follow import follow
from selvedge_cli.listen import listen
from selvedge_cli.options import Settings, common_options, given_options
from selvedge_cli.submission import submit
from selvedge_cli.wanted import Wanted
from selvedge_protos.peer import transaction_pb2

BLOCKS = Wanted("block")


async def run(
    connection: Connection,
    capsys: pytest.CaptureFixture[str],
    start: str | int | None = None,
    stop: str | int = "newest",
    *,
    wanted: Wanted = BLOCKS,
    count: int | None = None,
    resume: str | None = None,
) -> list[str]:
    """The first words of what one `selvedge events` prints, up to the newest block."""
    capsys.readouterr()
    await follow(connection, wanted, start, stop, count, resume)
    return [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]


async def make_network(blocks: int = 1) -> Network:
    network = Network(make_signer(), answering(event="Created"))
    for _ in range(blocks):
        await network.commit()
    return network


async def test_lost_connection_costs_no_block_and_repeats_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(6)
    network.cuts = [2, 0, 3]
    async with serving(network, tmp_path) as connection:
        printed = await run(connection, capsys, "oldest", wanted=Wanted("filtered"))
    assert printed == [f"filtered {number}" for number in range(6)]
    assert network.deliver_streams == 4


@pytest.mark.parametrize("kind", ["block", "filtered", "transaction"])
async def test_block_that_the_server_cannot_read_is_named_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    network = await make_network(6)
    network.damaged = 3
    async with serving(network, tmp_path) as connection:
        object.__setattr__(connection.settings.addresses, "events", "localhost:1")
        with pytest.raises(CommandError) as ended:
            await follow(connection, Wanted(kind), "oldest", "newest", None, None, peer_alone=True)
        assert str(ended.value) == (
            f"the peer at {connection.settings.addresses.peer} cannot read block 3 of mychannel, "
            "which is damaged there; the last one before it is block 2: `selvedge ledger verify` "
            "says what is wrong, and `selvedge ledger rebuild` mends it while the service is "
            "stopped"
        )
        network.damaged = 0
        with pytest.raises(
            CommandError, match=r"cannot read a block of mychannel, which is damage"
        ):
            await follow(connection, Wanted(kind), "oldest", "newest", None, None, peer_alone=True)


async def test_server_that_is_away_is_told_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(3)
    network.cuts = 3 * [0]
    async with serving(network, tmp_path) as connection:
        await follow(connection, BLOCKS, "oldest", "newest", None, None)
        address = connection.settings.addresses.peer
    assert capsys.readouterr().err == (
        f"selvedge: the event hub at {address} answered: cut; waiting for it\n"
    )


async def test_server_that_comes_back_with_another_ledger_ends_it(tmp_path: Path) -> None:
    network = await make_network(3)
    network.cuts = [2]
    other = await make_network(6)
    network.instead = other.blocks
    async with serving(network, tmp_path) as connection:
        with pytest.raises(CommandError, match=r"has another ledger than before: run this again"):
            await follow(connection, BLOCKS, 0, 5, None, None)


async def test_server_of_another_ca_is_not_waited_for(tmp_path: Path) -> None:
    network = await make_network(3)
    stranger = make_pair().certificate_pem
    async with serving(network, tmp_path, trusted=stranger) as connection:
        for stop in (None, "newest"):
            with pytest.raises(NotTrusted, match=r"has its certificate from another ca than this"):
                await follow(connection, BLOCKS, None, stop, None, None)


async def test_range_with_an_end_does_not_wait_for_who_is_away(tmp_path: Path) -> None:
    async with serving(await make_network(1), tmp_path) as connection:
        addresses = connection.settings.addresses
        for name in ("peer", "events"):
            object.__setattr__(addresses, name, "localhost:1")
        with pytest.raises(NotReachable) as away:
            await follow(connection, BLOCKS, None, "newest", None, None)
    assert str(away.value) == (
        "the event hub at localhost:1 does not answer (connection refused): see `selvedge status`, "
        "start it with `selvedge up`, or give its address"
    )


async def test_peer_is_read_while_there_is_no_hub(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(await make_network(2), tmp_path) as connection:
        object.__setattr__(connection.settings.addresses, "events", "localhost:1")
        assert await run(connection, capsys, "oldest") == ["block 0", "block 1"]


async def test_peer_alone_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    async with serving(await make_network(2), tmp_path) as connection:
        object.__setattr__(connection.settings.addresses, "peer", "localhost:1")
        with pytest.raises(NotReachable, match="the peer at localhost:1"):
            await follow(connection, BLOCKS, 0, 1, None, None, peer_alone=True)


async def test_runs_continue_where_the_last_one_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(2)
    async with serving(network, tmp_path) as connection:
        assert await run(connection, capsys) == ["block 1"]
        await network.commit()
        await network.commit()
        assert await run(connection, capsys) == ["block 2", "block 3"]
        assert await run(connection, capsys) == []
        everything = ["block 0", "block 1", "block 2", "block 3"]
        assert await run(connection, capsys, "oldest") == everything
        assert await run(connection, capsys) == []


async def test_explicit_place_moves_the_checkpoint_over_nothing_unprinted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(2)
    async with serving(network, tmp_path) as connection:
        assert await run(connection, capsys, "oldest") == ["block 0", "block 1"]
        for _ in range(3):
            await network.commit()
        assert await run(connection, capsys, "newest") == ["block 4"]
        assert await run(connection, capsys, 0, 0) == ["block 0"]
        assert await run(connection, capsys, 1, 2) == ["block 1", "block 2"]
        assert await run(connection, capsys) == ["block 3", "block 4"]
        assert await run(connection, capsys) == []


async def test_named_checkpoint_is_placed_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(await make_network(5), tmp_path) as connection:
        assert await run(connection, capsys, 3, resume="mine") == ["block 3", "block 4"]
        assert await run(connection, capsys, 1, 1, resume="mine") == ["block 1"]
        assert await run(connection, capsys, stop=2, resume="mine") == ["block 2"]
        assert await run(connection, capsys) == ["block 4"]


async def test_filtered_run_leaves_the_place_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(1)
    everything, other = Wanted("chaincode"), Wanted("chaincode", ["other"])
    deleted, ours = Wanted("chaincode", [], ["Deleted"]), Wanted("chaincode", [], [], ["Org1MSP"])
    assert len({each.checkpoint for each in (everything, other, deleted, ours)}) == 4
    async with serving(network, tmp_path) as connection:
        for wanted in (everything, other):
            assert await run(connection, capsys, wanted=wanted) == []
        await submit(connection, Call("asset", [b"create"]), 10)
        assert await run(connection, capsys, wanted=other) == []
        assert await run(connection, capsys, wanted=everything) == ["chaincode 1"]


async def test_each_ledger_has_a_place_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = await make_network(3), await make_network(5)
    async with serving(first, tmp_path) as here, serving(second, tmp_path) as there:
        assert await run(here, capsys, "oldest") == ["block 0", "block 1", "block 2"]
        await follow(there, BLOCKS, None, "newest", None, None)
        told = capsys.readouterr()
        assert [line.split("  ")[0] for line in told.out.splitlines()] == [
            f"block {number}" for number in range(5)
        ]
        assert told.err == (
            "selvedge: this is another ledger than the one that was printed before: beginning at "
            "its oldest block\n"
        )
        for network in (first, second):
            await network.commit()
        assert await run(here, capsys) == ["block 3"]
        assert await run(there, capsys) == ["block 5"]
        assert await run(here, capsys) == []


@pytest.mark.parametrize("stop", [None, "newest"])
@pytest.mark.parametrize("kind", ["block", "chaincode"])
async def test_checkpoint_of_a_ledger_that_went_on_otherwise_is_said_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, stop: str | None
) -> None:
    before, wanted = await make_network(1), Wanted(kind)
    restored = Network(make_signer(), answering(event="Created"), blocks=[*before.blocks])
    for network in (before, restored):
        async with serving(network, tmp_path) as connection:
            await submit(connection, Call("asset", [b"create"]), 10)
    async with serving(before, tmp_path) as connection:
        assert len(await run(connection, capsys, "oldest", wanted=wanted)) >= 1
        assert await run(connection, capsys, wanted=wanted) == []
    async with serving(restored, tmp_path) as connection:
        (file,) = (tmp_path / "checkpoints").rglob("*.json")
        with pytest.raises(CommandError) as ended:
            await follow(connection, wanted, None, stop, None, None)
        assert str(ended.value).startswith(
            f"the checkpoint {file} is of another ledger than mychannel has now, where block 1 "
        )
        assert f"`--from oldest --resume {kind}`" in str(ended.value)
        anew = await run(connection, capsys, "oldest", wanted=wanted, resume=kind)
        assert anew[-1] == f"{kind} 1"
        await restored.commit()
        gone_on = ["block 2"] if kind == "block" else []
        assert await run(connection, capsys, wanted=wanted) == gone_on


async def test_count_is_gone_on_from_by_the_next_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(1)

    async def txids(connection: Connection, count: int) -> list[str]:
        await follow(connection, Wanted("chaincode"), None, "newest", count, None)
        return [line.split()[4] for line in capsys.readouterr().out.splitlines()]

    async with serving(network, tmp_path) as connection:
        network.commits = None
        call = Call("asset", [b"create"])
        sent = [(await submit(connection, call, 10, wait=False)).txid for _ in range(5)]
        assert await txids(connection, 9) == []
        await network.commit(*network.ordered[:3])
        await network.commit(*network.ordered[3:])
        assert await txids(connection, 2) == sent[:2]
        assert await txids(connection, 1) == sent[2:3]
        assert await txids(connection, 1) == sent[3:4]
        assert await txids(connection, 5) == sent[4:]
        assert await txids(connection, 5) == []


@pytest.mark.parametrize(
    ("farewell", "why"),
    [
        ("SHUTTING_DOWN: connect again", "answered: SHUTTING_DOWN: connect again"),
        ("", "the event hub ended the stream"),
    ],
)
async def test_hub_that_goes_away_leaves_the_command_that_misses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], farewell: str, why: str
) -> None:
    network = await make_network(2)
    network.farewell = farewell
    async with serving(network, tmp_path) as connection:
        with pytest.raises(CommandError) as ended:
            await listen(connection, BLOCKS, None, None, [])
        assert why in str(ended.value)
        assert str(ended.value).endswith("go on with `selvedge events --from 2`")
        assert len(capsys.readouterr().out.splitlines()) == 2
        await network.commit()
        assert await run(connection, capsys, 2) == ["block 2"]


async def test_hub_that_goes_away_before_any_block_leaves_the_command_to_complete(
    tmp_path: Path,
) -> None:
    network = await make_network(1)
    async with serving(network, tmp_path) as connection:
        with pytest.raises(CommandError) as ended:
            await listen(connection, Wanted("chaincode", ["asset"]), None, 7, ["--name", "A b"])
    assert "`selvedge events --name 'A b' --from N --count 7` with N the first" in str(ended.value)


@pytest.mark.parametrize("kind", ["block", "filtered", "rejection", "chaincode"])
async def test_hub_is_asked_for_the_events_of_one_channel(tmp_path: Path, kind: str) -> None:
    """Else one of several channels tells of all, and a block to go on with may be another's."""
    network = await make_network()
    async with serving(network, tmp_path) as connection:
        object.__setattr__(connection.settings, "channel", "second")
        with pytest.raises(CommandError):
            await listen(connection, Wanted(kind, ["asset", "token"]), None, None, [])
    assert {interest.chainID for interest in network.registered} == {"second"}
    assert len(network.registered) == (2 if kind == "chaincode" else 1)


async def test_channel_of_no_ledger_is_told_of_before_waiting_for_producers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(1)
    published = Wanted("chaincode", ["weather"])
    async with serving(network, tmp_path) as connection:
        with pytest.raises(CommandError):
            await listen(connection, published, None, None, [])
        assert capsys.readouterr().err == ""
        object.__setattr__(connection.settings, "channel", "news")
        with pytest.raises(CommandError) as ended:
            await listen(connection, published, None, None, [])
    assert capsys.readouterr().err == (
        "selvedge: no ledger of the event hub has a channel news: waiting for what producers "
        "publish on it\n"
    )
    assert str(ended.value) == "the event hub ended the stream"


async def test_blocks_of_a_channel_of_no_ledger_are_not_waited_for(tmp_path: Path) -> None:
    network = await make_network(1)
    async with serving(network, tmp_path) as connection:
        object.__setattr__(connection.settings, "channel", "typo")
        with pytest.raises(NoSuchChannel, match=r"has no channel typo: give the name of one"):
            await listen(connection, BLOCKS, None, None, [])


async def test_hub_that_does_not_say_what_it_has_is_listened_to_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(2)
    network.damaged = 1  # The newest, which is asked for.
    async with serving(network, tmp_path) as connection:
        with pytest.raises(CommandError, match=r"go on with `selvedge events --from 2`"):
            await listen(connection, BLOCKS, None, None, [])
    printed = capsys.readouterr()
    assert (len(printed.out.splitlines()), printed.err) == (2, "")


async def test_newest_block_of_a_chat_is_the_newest_of_the_hub(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not that of the peer, which the hub may have yet to read."""
    network = await make_network(2)
    async with serving(network, tmp_path) as connection:
        object.__setattr__(connection.settings.addresses, "peer", "localhost:1")
        await listen(connection, BLOCKS, "newest", 1, [])
    assert network.started == {"selvedge-start-block": "mychannel=1"}


async def test_hub_without_the_channel_says_where_channels_are_listed(tmp_path: Path) -> None:
    network = await make_network(1)
    network.farewell = "CHANNEL_UNKNOWN: no source of this event hub serves it"
    async with serving(network, tmp_path) as connection:
        object.__setattr__(connection.settings, "channel", "nochan")
        with pytest.raises(
            CommandError, match=r"has no channel nochan: .* `selvedge status` lists"
        ):
            await listen(connection, BLOCKS, 0, None, [])
        with pytest.raises(
            CommandError, match=r"has no channel nochan: .* `selvedge status` lists"
        ):
            await follow(connection, BLOCKS, None, None, None, None)


def test_options_are_repeated_as_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []

    @click.command()
    @click.option("--name", "names", multiple=True)
    @click.option("--from", "start", type=int)
    @click.option("--chat", is_flag=True)
    @common_options
    def command(settings: Settings, **_: object) -> None:
        told.append(given_options(click.get_current_context(), "chat", "start"))

    monkeypatch.setenv("SELVEDGE_USER", "bea")
    words = ["--name", "A b", "--name", "B", "--home", "here", "--json", "--events", "hub:1"]
    for args in (["--chat", "--from", "3", *words], []):
        assert CliRunner().invoke(command, args).exit_code == 0
    given = "--name 'A b' --name B --home here --events hub:1 --user bea --json"
    assert [shlex.join(each) for each in told] == [given, "--user bea"]


@pytest.mark.parametrize("stop", [None, "newest", 12])
async def test_place_beyond_the_chain_is_refused(tmp_path: Path, stop: str | int | None) -> None:
    network = await make_network(1)
    async with serving(network, tmp_path) as connection:
        with pytest.raises(CommandError, match=r"there is no block 9 yet, the newest is 0: begin"):
            await follow(connection, BLOCKS, 9, stop, None, None)


async def test_checkpoint_ahead_of_the_ledger_is_named(tmp_path: Path) -> None:
    network = await make_network(1)
    async with serving(network, tmp_path) as connection:
        await follow(connection, BLOCKS, 0, "newest", None, None)
        (file,) = (tmp_path / "checkpoints").rglob("*.json")
        for content in ('{"block": 998}', '{"block": 1, "transaction": 0}'):
            file.write_text(content)
            with pytest.raises(CommandError, match=r"is ahead of .*`--from N --resume block`"):
                await follow(connection, BLOCKS, None, "newest", None, None)


async def test_nothing_that_fits_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(1)
    async with serving(network, tmp_path) as connection:
        await follow(connection, Wanted("chaincode", ["misspelt"]), 0, "newest", None, None)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "selvedge: nothing of the kind in blocks 0 to 0\n")


async def test_each_type_tells_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = await make_network(1)
    async with serving(network, tmp_path) as connection:
        good = await submit(connection, Call("asset", [b"create"]), 10)
        network.commits = transaction_pb2.MVCC_READ_CONFLICT
        bad = await submit(connection, Call("asset", [b"update"]), 10)

        async def lines(wanted: Wanted) -> list[str]:
            await follow(connection, wanted, 1, 2, None, None)
            return capsys.readouterr().out.splitlines()

        block = (await lines(BLOCKS))[0]
        assert block.startswith("block 1  hash ")
        assert block.endswith(f"tx {good.txid} VALID asset.create set Created")
        assert (await lines(Wanted("filtered")))[1] == (
            f"filtered 2  tx {bad.txid} MVCC_READ_CONFLICT asset.Created"
        )
        event = [f"chaincode 1  asset.Created  tx {good.txid}  {{}}"]
        assert await lines(Wanted("chaincode")) == event
        assert await lines(Wanted("chaincode", ["asset"], ["Cr*"], ["Org1MSP"])) == event
        assert await lines(Wanted("chaincode", ["other"])) == []
        assert await lines(Wanted("chaincode", ["asset"], ["Deleted"])) == []
        assert await lines(Wanted("chaincode", [], [], ["Org2MSP"])) == []
        rejected = f" 2  tx {bad.txid} MVCC_READ_CONFLICT asset.update set Created"
        assert await lines(Wanted("rejection")) == [f"rejection{rejected}"]
        assert await lines(Wanted("transaction")) == [
            f"transaction 1  tx {good.txid} VALID asset.create set Created",
            f"transaction{rejected}",
        ]


async def test_json_has_all_that_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = await make_network(1)
    async with serving(network, tmp_path) as connection:
        sent = await submit(connection, Call("asset", [b"create"]), 10)
        object.__setattr__(connection.settings, "as_json", True)
        await follow(connection, Wanted("chaincode"), 0, "newest", None, None)
    told = json.loads(capsys.readouterr().out)
    assert abs(datetime.fromisoformat(told.pop("time")) - datetime.now(UTC)) < timedelta(minutes=5)
    assert told == {
        "block": 1,
        "type": "chaincode",
        "chaincode": "asset",
        "name": "Created",
        "txid": sent.txid,
        "payload": "{}",
        "creator": "Org1MSP",
    }


async def test_quiet_blocks_are_gone_over_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a first run which finds nothing is a place to go on from."""
    network = await make_network(3)
    async with serving(network, tmp_path) as connection:
        assert await run(connection, capsys, wanted=Wanted("chaincode")) == []
        await submit(connection, Call("asset", [b"create"]), 10)
        await network.commit()
        assert await run(connection, capsys, wanted=Wanted("chaincode")) == ["chaincode 3"]


def test_checkpoints_are_named_by_what_can_be_a_file(tmp_path: Path) -> None:
    here = checkpoint_file(tmp_path, "block", "mychannel", "ab" * 32)
    assert here != checkpoint_file(tmp_path, "block", "other", "ab" * 32)
    assert here != checkpoint_file(tmp_path, "block", "mychannel", "cd" * 32)
    with pytest.raises(CommandError, match=r"cannot name a checkpoint"):
        checkpoint_file(tmp_path, "../x", "mychannel", "ab" * 32)
    outside = checkpoint_file(tmp_path, "block", "../..", "ab" * 32)
    assert outside.resolve().is_relative_to(tmp_path / "checkpoints")


async def test_checkpoint_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    async with serving(await make_network(1), tmp_path) as connection:
        with pytest.raises(CommandError, match=r"block\.json cannot be read .*delete it to begin"):
            await follow(connection, BLOCKS, 0, "newest", None, None)
