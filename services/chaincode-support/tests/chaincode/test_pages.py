"""Pages of a range: rows, bookmark, and what a transaction that reads them may not do."""

import pytest
from rawshim import Dial, Peer, StartPeer, keys, query_response, refusal, transaction

from chaincode_support.chaincode.errors import ChaincodeFailure
from selvedge_common.comm import ServerConfig
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    GetStateByRange,
    QueryMetadata,
    QueryResponseMetadata,
    QueryStateNext,
)

M = ChaincodeMessage


def page_of(size: int, bookmark: str = "", end: str = "l") -> GetStateByRange:
    paging = QueryMetadata(pageSize=size, bookmark=bookmark)
    return GetStateByRange(startKey="k", endKey=end, metadata=paging.SerializeToString())


async def fill(peer: Peer, rows: int, value: bytes = b"v") -> list[str]:
    """So many keys within the range, and one beyond it."""
    names = [f"k{number:04}" for number in range(rows)]
    await peer.commit("mycc", {**dict.fromkeys(names, value), "z": b"outside"})
    return names


async def test_pages_follow_each_other_by_their_bookmarks(peer: Peer, dial: Dial) -> None:
    names = await fill(peer, 250)
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        found: list[list[str]] = []
        bookmark = ""
        while bookmark or not found:
            page = query_response(
                await shim.ask(M.GET_STATE_BY_RANGE, page_of(120, bookmark), message)
            )
            told = QueryResponseMetadata.FromString(page.metadata)
            assert (told.fetched_records_count, page.has_more) == (len(page.results), False)
            found.append(keys(page))
            bookmark = told.bookmark
        assert found == [names[:120], names[120:240], names[240:]]
        await shim.complete(message)
        assert (await running).response.status == 200


@pytest.mark.parametrize(
    ("rows", "size", "end", "got", "bookmark"),
    [
        (0, 5, "l", 0, ""),
        (4, 5, "l", 4, ""),
        (5, 5, "l", 5, ""),
        (5, 5, "", 5, "z"),
        (6, 5, "l", 5, "k0005"),
        (3, 1, "l", 1, "k0001"),
    ],
)
async def test_a_bookmark_is_the_key_that_comes_next(
    peer: Peer, dial: Dial, rows: int, size: int, end: str, got: int, bookmark: str
) -> None:
    await fill(peer, rows)
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (_, message):
        answer = await shim.ask(M.GET_STATE_BY_RANGE, page_of(size, end=end), message)
        assert QueryResponseMetadata.FromString(query_response(answer).metadata) == (
            QueryResponseMetadata(fetched_records_count=got, bookmark=bookmark)
        )


@pytest.mark.parametrize("size", [4, 1000, -1])
async def test_a_page_has_no_more_rows_than_the_peer_allows(
    start_peer: StartPeer, dial: Dial, size: int
) -> None:
    peer = await start_peer(max_page_rows=3)
    names = await fill(peer, 5)
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (_, message):
        page = query_response(await shim.ask(M.GET_STATE_BY_RANGE, page_of(size), message))
        assert keys(page) == names[:3]
        assert QueryResponseMetadata.FromString(page.metadata).bookmark == names[3]


async def test_a_bookmark_alone_asks_for_a_page(start_peer: StartPeer, dial: Dial) -> None:
    peer = await start_peer(max_page_rows=2)
    names = await fill(peer, 5)
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (_, message):
        request = page_of(0, bookmark=names[3])
        assert (
            keys(query_response(await shim.ask(M.GET_STATE_BY_RANGE, request, message)))
            == (names[3:])
        )


async def test_paging_that_asks_for_nothing_reads_the_range(peer: Peer, dial: Dial) -> None:
    await fill(peer, 101)
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (_, message):
        first = query_response(await shim.ask(M.GET_STATE_BY_RANGE, page_of(0), message))
        assert (len(first.results), first.has_more, first.metadata) == (100, True, b"")


async def test_a_page_is_no_open_query(start_peer: StartPeer, dial: Dial) -> None:
    peer = await start_peer(max_queries=1)
    await fill(peer, 3)
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (_, message):
        for _ in range(3):
            page = query_response(await shim.ask(M.GET_STATE_BY_RANGE, page_of(2), message))
        after = await shim.ask(M.QUERY_STATE_NEXT, QueryStateNext(id=page.id), message)
        assert refusal(after).endswith("query iterator not found")


async def test_a_page_after_a_write_is_refused(peer: Peer, dial: Dial) -> None:
    await fill(peer, 1)
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        await shim.put("a", b"1", message)
        refused = await shim.ask(M.GET_STATE_BY_RANGE, page_of(2), message)
        assert "has written, so it cannot read pages any more" in refusal(refused)
        await shim.complete(message)
        assert (await running).response.status == 200
        assert peer.writes() == {"a": b"1"}


async def test_a_write_after_a_page_aborts_the_transaction(peer: Peer, dial: Dial) -> None:
    await fill(peer, 1)
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        query_response(await shim.ask(M.GET_STATE_BY_RANGE, page_of(2), message))
        refused = await shim.put("a", b"1", message)
        assert "has read a page of a range, so it cannot write any more" in refusal(refused)
        with pytest.raises(ChaincodeFailure, match="has read a page"):
            await running


async def test_a_page_larger_than_a_message_is_refused_and_smaller_ones_are_not(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(server=ServerConfig(max_send_bytes=100_000))
    await fill(peer, 4, bytes(40_000))
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        reason = refusal(await shim.ask(M.GET_STATE_BY_RANGE, page_of(4), message))
        assert "RESOURCE_EXHAUSTED: the page's first 3 rows" in reason
        assert "peer.maxSendMsgSize" in reason
        page = query_response(await shim.ask(M.GET_STATE_BY_RANGE, page_of(2), message))
        assert len(page.results) == 2
        await shim.complete(message)
        assert (await running).response.status == 200


async def test_a_page_of_thousands_lets_others_have_their_turn(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(max_page_rows=5000)
    await fill(peer, 5000)
    shim, other = await dial(peer, "mycc:1.0"), await dial(peer, "other:1.0")
    async with (
        transaction(peer, other, "other", "t2") as (_, theirs),
        transaction(peer, shim) as (running, message),
    ):
        await shim.request(M.GET_STATE_BY_RANGE, page_of(5000), message)
        assert (await other.get("k0000", theirs)).type == M.RESPONSE
        page = query_response(await shim.hear())
        assert len(page.results) == 5000
        await shim.complete(message)
        assert (await running).response.status == 200
