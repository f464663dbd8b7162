"""npm `@hyperledger/fabric-gateway`: blocks, from the peer and from the event hub."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from common.tests.conftest import TLSAuthority
from tests.e2e.clients import Client
from tests.e2e.stack import Stack, eventually
from tests.sdks.application import SDKError, await_checkpoint, credentials, documented, script
from tests.sdks.fabric_gateway import Application
from tests.shims.build import FABRIC_GATEWAY

pytestmark = pytest.mark.timeout(300)  # the first test installs the SDK and starts everything

SERVICES = {"peer": "chaincode-support", "events": "event-hub"}
every_form = pytest.mark.parametrize("form", ["block", "filtered", "private"])
everywhere = pytest.mark.parametrize("where", SERVICES)


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[Client]:
    """Submits what is read."""
    with Client(stack) as connected:
        yield connected


def create(client: Client, asset: str) -> tuple[str, int]:
    """Create an asset; gives the transaction's id, and the number of its block."""
    height = client.height()
    txid = client.submit("asset-transfer", "CreateAsset", asset, "ada", "1")
    block, _ = client.committed(height, {txid})[txid]
    return txid, block


@everywhere
@every_form
def test_blocks_are_read_from_the_first_one(
    stack: Stack, client: Client, unique: str, form: str, where: str
) -> None:
    txid, newest = create(client, unique)
    with Application(stack, where) as application:
        blocks = application.follow(form, start=0)
        heard = blocks.until(lambda block: block["number"] == newest)
        assert [block["number"] for block in heard] == list(range(newest + 1))
        assert heard[-1]["transactions"] == [{"txid": txid, "status": "VALID"}]
        assert all(block.get("data", 0) == 0 for block in heard)
        txid, newest = create(client, f"{unique}-2")
        [block] = blocks.until(lambda _: True)
        assert (block["number"], block["transactions"][0]["txid"]) == (newest, txid)


@everywhere
def test_blocks_begin_with_the_next_one(
    stack: Stack, client: Client, unique: str, where: str
) -> None:
    _, newest = create(client, unique)
    with Application(stack, where) as application:
        application.follow("block", start=newest).until(lambda _: True)
        blocks = application.follow("filtered")
        # What was asked for before this is on its way once this is answered.
        application.follow("block", start=newest).until(lambda _: True)
        _, following = create(client, f"{unique}-2")
        [block] = blocks.until(lambda _: True)
        assert block["number"] == following


@everywhere
@every_form
def test_blocks_go_on_from_the_checkpoint_of_an_application_that_was_killed(
    stack: Stack, client: Client, unique: str, form: str, where: str, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    _, newest = create(client, unique)
    with Application(stack, where) as killed:
        before = killed.follow(form, start=0, checkpoint=checkpoint).until(
            lambda block: block["number"] == newest
        )
        await_checkpoint(checkpoint, newest + 1)
        killed.kill()
    _, last = create(client, f"{unique}-2")
    with Application(stack, where) as restarted:
        after = restarted.follow(form, start=0, checkpoint=checkpoint).until(
            lambda block: block["number"] == last
        )
    assert [block["number"] for block in before + after] == list(range(last + 1))


@everywhere
def test_an_application_outlives_what_it_reads_from(
    stack: Stack, client: Client, unique: str, where: str
) -> None:
    _, newest = create(client, unique)
    with Application(stack, where) as application:
        blocks = application.follow("block", start=0)
        before = blocks.until(lambda block: block["number"] == newest)
        stack.kill(SERVICES[where])
        txid = client.submit("asset-transfer", "CreateAsset", f"{unique}-2", "ada", "1")
        after = blocks.until(lambda block: txid in (t["txid"] for t in block["transactions"]))
    numbers = [block["number"] for block in before + after]
    assert numbers == list(range(len(numbers)))


@everywhere
def test_a_stranger_is_refused(stack: Stack, where: str, tmp_path: Path) -> None:
    pair = TLSAuthority("elsewhere").issue("mallory")
    certificate, key = tmp_path / "mallory.crt", tmp_path / "mallory.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    stranger = replace(credentials(stack), certificate=certificate, key=key)
    with (
        Application(stack, where, stranger) as application,
        pytest.raises(SDKError, match="Unexpected status response: 403"),
    ):
        application.ask("readToEnd", form="filtered")


def test_the_program_of_the_documentation_works_as_written(
    stack: Stack, client: Client, unique: str
) -> None:
    _, program = documented("js")
    file = stack.folder / "blocks.js"
    file.write_text(program)
    with script(file, FABRIC_GATEWAY) as output:
        txid, number = create(client, unique)
        told = f"block {number} [ '{txid}' ]"
        eventually(lambda: told in output.read_text(), f"{output} says {told}")
    assert output.read_text().startswith("block 0 ")
