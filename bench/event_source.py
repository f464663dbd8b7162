"""A source of blocks for an event hub, over Deliver in plaintext, with nothing behind it.

Its blocks are signed by the orderer of a home, and hold what a peer's hold: transactions whose
chaincode sets an event. It prints its address. Each line on standard input is answered by a line:

  events BLOCKS EACH BYTES  makes blocks of so many transactions, each with an event of that payload
  blocks BLOCKS BYTES       makes blocks of one transaction, about that large
  release                   appends what was made last, all at once; says how many blocks there are
  pace SECONDS RATE BYTES   appends blocks as they become due, so many events a second in blocks of
                            at most a hundred a second; each payload begins with the moment when its
                            block was appended, in nanoseconds since 1970; says how many events
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop

from bench.client import CHANNEL, NAME
from bench.process import standard_input
from selvedge_cli.options import MSP_ID
from selvedge_common import comm, logs
from selvedge_common.msp import MSP, load_signing_identity
from selvedge_common.protoutil import seek
from selvedge_common.protoutil.blocks import header_hash, new_block, sign_block
from selvedge_common.protoutil.config_block import Batch, genesis_block
from selvedge_common.protoutil.endorsements import create_proposal_response, create_transaction
from selvedge_common.protoutil.errors import ValidationCode
from selvedge_common.protoutil.metadata import set_validation_codes
from selvedge_common.protoutil.proposals import create_proposal, open_proposal, sign_proposal
from selvedge_common.protoutil.responses import Backlog, MakeResponse, Responses
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import chaincode_event_pb2, transaction_pb2
from selvedge_protos.peer.chaincode_pb2 import ChaincodeID
from selvedge_protos.peer.proposal_response_pb2 import Response

MOMENT = struct.Struct(">q")
BLOCKS_A_SECOND = 100
"""At most, at a pace."""
EVENT = "made"
_CHAINCODE = ChaincodeID(name=NAME, version="1.0")
_VALID = transaction_pb2.VALID
_DAY = timedelta(days=1)
_BACKLOG = 1 << 30


def paced(seconds: float, rate: int) -> tuple[int, int, int]:
    """Give how many blocks a second there are at a pace, of how many events each, and how many
    blocks in all."""
    a_second = min(rate, BLOCKS_A_SECOND)
    return a_second, rate // a_second, int(seconds * a_second)


@dataclass
class Blocks:
    """The channel: a protoutil.responses.BlockSource."""

    marshalled: list[bytes] = field(default_factory=list)
    last_hash: bytes = b""
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def height(self) -> int:
        """How many there are."""
        return len(self.marshalled)

    def held(self, number: int) -> bytes:
        """Give one."""
        return self.marshalled[number]

    async def read(
        self, first: int, last: int, max_bytes: int, make: MakeResponse
    ) -> Sequence[bytes]:
        """Give what is made of one."""
        return [make(self.marshalled[first])]

    async def wait_for(self, height: int) -> None:
        """Return once there are so many."""
        while self.height < height:
            await self._grown.wait()

    def append(self, blocks: Iterable[bytes]) -> None:
        """Have them at once."""
        self.marshalled += blocks
        self._grown.set()
        self._grown = asyncio.Event()


class Maker:
    """Makes blocks that follow each other.

    Args:
        home: of whose orderer, peer and user they are.
    """

    def __init__(self, home: Path) -> None:
        service = home / "chaincode-support"
        self._orderer = load_signing_identity(service / "orderer-msp", MSP_ID)
        self._peer = load_signing_identity(service / "msp", MSP_ID)
        self._user = load_signing_identity(home / "crypto" / "users" / "user1" / "msp", MSP_ID)
        self._msp = MSP.load(service / "msp", MSP_ID)
        self._number, self._last_hash, self._last_config = 0, b"", 0

    def configuration(self) -> bytes:
        """The next block, with the channel's configuration; block 0 has to be one."""
        batch = Batch(500, 99 << 20, 2 << 20, "5ms")
        block = genesis_block(CHANNEL, [self._msp.config()], ["localhost:7050"], batch)
        set_validation_codes(block, [_VALID])
        if self._number:
            block.header.number = self._last_config = self._number
            block.header.previous_hash = self._last_hash
            sign_block(block, self._orderer, self._last_config)
        return self._made(block)

    def block(self, envelopes: Sequence[bytes], codes: Sequence[ValidationCode] = ()) -> bytes:
        """The next block; all of it is valid where no codes say otherwise."""
        return self._made(self._sealed(envelopes, codes))

    def filled(self, size: int) -> bytes:
        """The next block, about that large; of what is in it nobody asks."""
        empty = self._sealed([self.message(b"")]).ByteSize()
        return self.block([self.message(bytes(max(0, size - empty)))])

    def _sealed(
        self, envelopes: Sequence[bytes], codes: Sequence[ValidationCode] = ()
    ) -> common_pb2.Block:
        block = new_block(self._number, self._last_hash, envelopes)
        sign_block(block, self._orderer, self._last_config)
        set_validation_codes(block, codes or [_VALID] * len(envelopes))
        return block

    def message(self, content: bytes) -> bytes:
        """A transaction that says nothing to a peer; less than any that a chaincode made."""
        header = common_pb2.ChannelHeader(type=common_pb2.MESSAGE, channel_id=CHANNEL)
        payload = common_pb2.Payload(
            header=common_pb2.Header(channel_header=header.SerializeToString()), data=content
        )
        return common_pb2.Envelope(payload=payload.SerializeToString()).SerializeToString()

    def transaction(self, payload: bytes, event: str | None = EVENT) -> bytes:
        """One whose chaincode set an event of that name, or none."""
        proposal, txid = create_proposal(CHANNEL, NAME, [b"make"], self._user.serialized)
        events = b""
        if event is not None:
            events = chaincode_event_pb2.ChaincodeEvent(
                chaincode_id=NAME, tx_id=txid, event_name=event, payload=payload
            ).SerializeToString()
        response = create_proposal_response(
            open_proposal(sign_proposal(proposal, self._user)),
            Response(status=200),
            b"",
            events,
            _CHAINCODE,
            self._peer,
        )
        return create_transaction(proposal, [response], self._user).SerializeToString()

    def _made(self, block: common_pb2.Block) -> bytes:
        self._number, self._last_hash = self._number + 1, header_hash(block.header)
        return block.SerializeToString()


class Commands:
    """What the lines can say, each by a method."""

    def __init__(self, maker: Maker, blocks: Blocks) -> None:
        self._maker = maker
        self._blocks = blocks
        self._made: list[bytes] = []
        blocks.append([maker.configuration()])

    async def events(self, blocks: str, each: str, size: str) -> int:
        """Make blocks of events."""
        payload = bytes(int(size))
        self._made = [
            self._maker.block([self._maker.transaction(payload) for _ in range(int(each))])
            for _ in range(int(blocks))
        ]
        return len(self._made)

    async def blocks(self, blocks: str, size: str) -> int:
        """Make blocks of a size; of what is in them nobody asks."""
        self._made = [self._maker.filled(int(size)) for _ in range(int(blocks))]
        return len(self._made)

    async def release(self) -> int:
        """Append what was made."""
        self._blocks.append(self._made)
        self._made = []
        return self._blocks.height

    async def pace(self, seconds: str, rate: str, size: str) -> int:
        """Append blocks as they become due."""
        a_second, each, total = paced(float(seconds), int(rate))
        rest = bytes(int(size) - MOMENT.size)
        started = time.monotonic()
        for due in range(total):
            await asyncio.sleep(max(0.0, started + due / a_second - time.monotonic()))
            moment = MOMENT.pack(time.time_ns())
            self._blocks.append(
                [self._maker.block([self._maker.transaction(moment + rest) for _ in range(each)])]
            )
        return each * total


def block_server(blocks: Blocks, address: str) -> comm.GRPCServer:
    """A server of a channel's blocks to whoever asks, not started yet."""
    responses, backlog = Responses(blocks), Backlog(_BACKLOG, streams=10)

    async def deliver(stream: comm.MessageStream) -> None:
        await seek.deliver(
            stream,
            responses_of=lambda _: responses,
            check_access=lambda _: datetime.now(UTC) + _DAY,
            backlog=backlog,
        )

    server = comm.GRPCServer(address, comm.ServerConfig(transport="native"))
    server.add_message_stream("/protos.Deliver/Deliver", deliver)
    return server


async def serve(home: Path) -> None:
    """Serve and do what the lines say, until standard input ends."""
    blocks = Blocks()
    commands = Commands(Maker(home), blocks)
    server = block_server(blocks, "127.0.0.1:0")
    await server.start()
    print(server.address, flush=True)
    async for line in standard_input():
        name, *words = line.split()
        print(await getattr(commands, name)(*words), flush=True)
    await server.stop(0)


def main() -> None:
    """Serve, on the event loop that the services use."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m bench.event_source .selvedge",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("home", type=Path, help="of a `selvedge up` that ran there")
    logs.configure("error", "console")
    uvloop.run(serve(parser.parse_args().home))


if __name__ == "__main__":
    main()
