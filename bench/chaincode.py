"""The chaincode that is measured with: a raw client of the Register stream, without any shim.

Its functions:
  noop                                answers
  put KEY VALUE_BYTES EVENT_BYTES     puts one key; sets an event unless that is 0
  calls KIND KEY COUNT                GetState or PutState of the key, COUNT times, one after the
                                      other; answers with a Timing
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.process import standard_input_ends
from bench.wire import exchange_all, read
from selvedge_common import comm
from selvedge_protos.peer.chaincode_event_pb2 import ChaincodeEvent
from selvedge_protos.peer.chaincode_pb2 import ChaincodeID, ChaincodeInput
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage, GetState, PutState
from selvedge_protos.peer.proposal_response_pb2 import Response

NAME = "bench"
REGISTER = "/protos.ChaincodeSupport/Register"
VALUE = bytes(100)
"""What is put by `calls`."""


@dataclass(frozen=True)
class Timing:
    """How the state calls of one transaction went.

    Attributes:
        seconds: for all of them.
        request, answer: the size of each message, in bytes.
    """

    seconds: float
    request: int
    answer: int


class Chaincode:
    """One Register stream, and the transactions that run on it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        # By transaction, what completes it once its put is answered.
        self._putting: dict[str, ChaincodeMessage] = {}

    async def register(self) -> None:
        """Return once the peer is ready to send transactions."""
        identity = ChaincodeID(name=NAME).SerializeToString()
        await self._say(ChaincodeMessage(type=ChaincodeMessage.REGISTER, payload=identity))
        for expected in (ChaincodeMessage.REGISTERED, ChaincodeMessage.READY):
            message = ChaincodeMessage.FromString(await read(self._stream))
            assert message.type == expected, message

    async def run(self) -> None:
        """Answer transactions for as long as the stream lives."""
        while True:
            message = ChaincodeMessage.FromString(await read(self._stream))
            if message.type == ChaincodeMessage.TRANSACTION:
                await self._transact(message, ChaincodeInput.FromString(message.payload).args)
            elif message.type == ChaincodeMessage.RESPONSE:
                await self._say(self._putting.pop(message.txid))
            else:
                raise ConnectionError(f"the peer said {message}")

    async def _transact(self, transaction: ChaincodeMessage, args: Sequence[bytes]) -> None:
        function, *words = (word.decode() for word in args)
        if function == "put":
            key, size, event = words
            self._putting[transaction.txid] = _completed(transaction, event=int(event))
            await self._say(_put(transaction, key, bytes(int(size))))
        elif function == "calls":
            kind, key, count = words
            timing = await self._calls(transaction, kind, key, int(count))
            await self._say(_completed(transaction, json.dumps(asdict(timing)).encode()))
        else:
            await self._say(_completed(transaction))

    async def _calls(
        self, transaction: ChaincodeMessage, kind: str, key: str, count: int
    ) -> Timing:
        message = _put(transaction, key, VALUE) if kind == "put" else _get(transaction, key)
        request = message.SerializeToString()
        seconds, answer = await exchange_all(self._stream, request, count)
        assert ChaincodeMessage.FromString(answer).type == ChaincodeMessage.RESPONSE
        return Timing(seconds, len(request), len(answer))

    async def _say(self, message: ChaincodeMessage) -> None:
        await self._stream.write(message.SerializeToString())


def _get(transaction: ChaincodeMessage, key: str) -> ChaincodeMessage:
    return _message(transaction, ChaincodeMessage.GET_STATE, GetState(key=key).SerializeToString())


def _put(transaction: ChaincodeMessage, key: str, value: bytes) -> ChaincodeMessage:
    payload = PutState(key=key, value=value).SerializeToString()
    return _message(transaction, ChaincodeMessage.PUT_STATE, payload)


def _completed(
    transaction: ChaincodeMessage, payload: bytes = b"", event: int = 0
) -> ChaincodeMessage:
    response = Response(status=200, payload=payload).SerializeToString()
    message = _message(transaction, ChaincodeMessage.COMPLETED, response)
    if event:
        message.chaincode_event.CopyFrom(
            ChaincodeEvent(
                chaincode_id=NAME, tx_id=transaction.txid, event_name="put", payload=bytes(event)
            )
        )
    return message


def _message(
    transaction: ChaincodeMessage, kind: ChaincodeMessage.Type.ValueType, payload: bytes
) -> ChaincodeMessage:
    return ChaincodeMessage(
        type=kind, payload=payload, txid=transaction.txid, channel_id=transaction.channel_id
    )


async def serve(address: str, folder: Path) -> None:
    """Register, print that it did, and answer until standard input ends."""
    root, certificate, key = (
        (folder / name).read_bytes() for name in ("ca.crt", "client.crt", "client.key")
    )
    async with comm.channel(address, root_cas=root, certificate=certificate, key=key) as channel:
        # The stubs of grpc.aio know no streams of bytes.
        register: Any = channel.stream_stream
        chaincode = Chaincode(register(REGISTER)())
        await chaincode.register()
        print("registered", flush=True)
        running = asyncio.create_task(chaincode.run())
        ending = asyncio.create_task(standard_input_ends())
        await asyncio.wait((running, ending), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            await running
        running.cancel()


def main() -> None:
    """Run the chaincode."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m bench.chaincode localhost:7052 .selvedge/crypto/chaincodes/it",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address", help="the chaincode listener, host:port")
    parser.add_argument("folder", type=Path, help="its certificate, key and root")
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.address, arguments.folder))


if __name__ == "__main__":
    main()
