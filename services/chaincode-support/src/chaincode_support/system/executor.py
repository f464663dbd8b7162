"""A system chaincode in the registry, beside the streams of all others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chaincode_support.chaincode.executor import Transaction
from chaincode_support.chaincode.tally import Tally
from selvedge_common.logs import get_logger
from selvedge_common.quoting import printable
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_response_pb2 import Response

log = get_logger("chaincode.system")

# What Fabric has endorsements of system chaincodes name.
VERSION = "syscc"

# A large answer, such as a large block, keeps the event loop busy until it has left: it is copied,
# signed and encrypted, 10 ms a megabyte. Others get twice as long before the next one is read.
LARGE_BYTES = 1 << 20
_PAUSE = 0.02 / (1 << 20)

OK = 200
ERROR = 500


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a system chaincode's function.

    Attributes:
        args: what follows the function's name.
        creator: the serialized identity that signed the proposal.
    """

    args: Sequence[bytes]
    creator: bytes


class Refused(Exception):
    """The function does not do it; the sentence is for the caller."""


Function = Callable[[Call], bytes]


class SystemChaincode(Protocol):
    """What a system chaincode is: functions by name, each giving a payload or raising Refused."""

    @property
    def name(self) -> str:
        """Under which it is called."""

    @property
    def callable_by_chaincode(self) -> bool:
        """Whether chaincodes may call it too."""

    @property
    def functions(self) -> Mapping[str, Function]:
        """What it does; they read the ledger and never wait."""


class SystemExecutor:
    """Runs the functions of one system chaincode; it writes nothing, and needs no snapshot."""

    simulates = False
    version = VERSION
    peer = "the peer itself"
    certified = False
    available = True
    responsive = True
    running = 0

    def __init__(self, chaincode: SystemChaincode) -> None:
        self._chaincode = chaincode
        self.name = self.registered_name = chaincode.name
        self.callable_by_chaincode = chaincode.callable_by_chaincode
        self.tally = Tally()
        self._turn = asyncio.Lock()

    async def execute(self, transaction: Transaction) -> ChaincodeMessage:
        """Run the function that the first argument names: a COMPLETED, whatever comes of it."""
        async with self._turn:
            payload = self._respond(transaction).SerializeToString()
            if len(payload) > LARGE_BYTES:
                await asyncio.sleep(len(payload) * _PAUSE)
        return ChaincodeMessage(
            type=ChaincodeMessage.COMPLETED,
            payload=payload,
            txid=transaction.txid,
            channel_id=transaction.channel,
        )

    def _respond(self, transaction: Transaction) -> Response:
        functions = self._chaincode.functions
        name, *args = transaction.input.args or [b""]
        function = functions.get(name.decode(errors="replace"))
        if function is None:
            return Response(
                status=ERROR,
                message=f"{self.name} has no function {printable(name)}: it has "
                f"{', '.join(functions)}",
            )
        try:
            return Response(status=OK, payload=function(Call(args, transaction.creator)))
        except Refused as error:
            return Response(status=ERROR, message=str(error))
        except Exception:
            log.exception("system chaincode failed", chaincode=self.name, function=printable(name))
            return Response(
                status=ERROR, message=f"{self.name} could not do it; the peer's log says why"
            )
