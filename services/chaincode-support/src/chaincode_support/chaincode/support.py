"""Chaincode support: the Register method, and execution of transactions for the endorser.

Follows core/chaincode/chaincode_support.go of Fabric 2.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import DecodeError

from chaincode_support.chaincode import metrics
from chaincode_support.chaincode.calls import ChaincodeCalls
from chaincode_support.chaincode.definitions import Definitions
from chaincode_support.chaincode.errors import (
    ChaincodeError,
    ChaincodeFailure,
    StreamTerminated,
)
from chaincode_support.chaincode.executor import Executor, Transaction
from chaincode_support.chaincode.listing import describe
from chaincode_support.chaincode.places import Places
from chaincode_support.chaincode.registration import Expected
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.settings import StreamSettings
from chaincode_support.chaincode.stream import ChaincodeStream
from chaincode_support.channel import Channel
from chaincode_support.ledger import LedgerError
from selvedge_common.comm import MessageStream, StatusError
from selvedge_protos.peer.chaincode_event_pb2 import ChaincodeEvent
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_response_pb2 import Response
from selvedge_protos.selvedge.chaincode.v1 import chaincodes_pb2

# A chaincode's failure may be as long as a message; so much of the last one is kept.
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Execution:
    """What a chaincode made of a transaction: its response, its event, and its own version."""

    response: Response
    event: ChaincodeEvent | None
    version: str


class Launcher(Protocol):
    """Brings chaincode that is not there."""

    async def launch(self, name: str) -> None:
        """Return when the chaincode has registered; raises a ChaincodeError when it does not."""


class ChaincodeSupport:
    """All chaincode streams of the peer.

    At most `max_streams` at a time, of which `max_unregistered` may not have registered yet.
    """

    def __init__(
        self,
        registry: Registry,
        launcher: Launcher,
        definitions: Definitions,
        channels: Mapping[str, Channel],
        settings: StreamSettings,
        *,
        max_streams: int,
        max_unregistered: int,
    ) -> None:
        self.registry = registry
        self.definitions = definitions
        self._launcher = launcher
        self._settings = settings
        self._places = Places(max_streams, max_unregistered)
        self._streams: set[ChaincodeStream] = set()
        self._calls = ChaincodeCalls(channels, self.launch, self._run_called)

    def describe(self) -> list[chaincodes_pb2.Chaincode]:
        """Every chaincode that is here or was before."""
        return describe(self.registry, self.definitions)

    async def register(self, stream: MessageStream) -> None:
        """Serve `/protos.ChaincodeSupport/Register`, one call per stream.

        Raises StatusError: RESOURCE_EXHAUSTED above a limit, else what ChaincodeStream.run does.
        """
        served = ChaincodeStream(stream, self.registry, self._settings, self._calls.invoke)
        try:
            self._places.check(served, self._streams)
        except StatusError as refusal:
            served.note_refusal(refusal)
            raise
        await self._run_stream(served)

    async def serve(self, stream: MessageStream, expected: Expected) -> None:
        """Serve a chaincode that the peer dialled, on the stream that this opened.

        Returns when the chaincode closed its side; raises what ChaincodeStream.run does.
        """
        await self._run_stream(
            ChaincodeStream(stream, self.registry, self._settings, self._calls.invoke, expected)
        )

    async def _run_stream(self, served: ChaincodeStream) -> None:
        self._streams.add(served)
        metrics.streams.inc()
        try:
            await served.run()
        finally:
            self._streams.discard(served)
            metrics.streams.dec()

    async def launch(self, chaincode: str) -> Executor:
        """Return once the chaincode is there; `execute` without an await in between finds it so.

        Whoever takes a snapshot for it takes it afterwards: waiting must not hold one. Raises a
        ChaincodeError whose sentence is for the client.
        """
        while (executor := self.registry.peek(chaincode)) is None:
            await self._launcher.launch(chaincode)
        return executor

    async def execute(self, transaction: Transaction) -> Execution:
        """Run a transaction on whoever serves the chaincode that it names.

        The event's chaincode and txid are the peer's to say, whatever the chaincode wrote there.
        Raises a ChaincodeError whose sentence is for the client.
        """
        executor, message, response = await self._run(transaction)
        if isinstance(response, str):
            raise ChaincodeFailure(response)
        event = None
        if message.HasField("chaincode_event"):
            event = message.chaincode_event
            event.chaincode_id = transaction.chaincode
            event.tx_id = transaction.txid
        return Execution(response, event, executor.version)

    async def _run_called(self, transaction: Transaction) -> ChaincodeMessage:
        _, message, _ = await self._run(transaction)
        return message

    async def _run(
        self, transaction: Transaction
    ) -> tuple[Executor, ChaincodeMessage, Response | str]:
        """Give it to the replica whose turn it is; nothing waits between choosing and sending.

        Returns who ran it, what that sent in the end, and the response in it or why there is none.
        """
        name = transaction.chaincode
        executor = self.registry.next(name)
        if executor is None:
            raise StreamTerminated(
                f"chaincode {name} is going away: its stream has just ended; try again"
            )
        tallies = (self.registry.tally(name), executor.tally)
        try:
            if transaction.simulator is not None:
                self.definitions.check_invocation(
                    name,
                    executor.version,
                    transaction.simulator,
                    is_init=transaction.input.is_init,
                )
            message = await executor.execute(transaction)
        except (ChaincodeError, LedgerError) as error:
            for tally in tallies:
                tally.fail(str(error))
            raise
        response = _read(message, executor)
        for tally in tallies:
            if isinstance(response, str):
                tally.fail(response[:_SHOWN_CHARACTERS])
            else:
                tally.completed += 1
        return executor, message, response


def _read(message: ChaincodeMessage, executor: Executor) -> Response | str:
    """The response of a chaincode that has ended, or a sentence about why there is none."""
    if message.type == ChaincodeMessage.ERROR:
        return f"transaction returned with failure: {message.payload.decode(errors='replace')}"
    try:
        return Response.FromString(message.payload)
    except DecodeError as error:
        return (
            f"chaincode {executor.registered_name} completed transaction {message.txid} with a "
            f"payload ({len(message.payload)} bytes) that is not a protos.Response: {error}"
        )
