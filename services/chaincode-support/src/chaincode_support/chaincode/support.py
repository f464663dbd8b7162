"""Chaincode support: the Register method, and execution of transactions for the endorser.

Follows core/chaincode/chaincode_support.go of Fabric 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from chaincode_support.chaincode import metrics
from chaincode_support.chaincode.errors import ChaincodeFailure
from chaincode_support.chaincode.launcher import Launcher
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.stream import (
    ChaincodeStream,
    State,
    StreamSettings,
    Transaction,
)
from selvedge_common.comm import MessageStream, StatusError
from selvedge_protos.peer.chaincode_event_pb2 import ChaincodeEvent
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_response_pb2 import Response


@dataclass(frozen=True, slots=True)
class Execution:
    """What a chaincode made of a transaction: its response, its event, and its own version."""

    response: Response
    event: ChaincodeEvent | None
    version: str


class ChaincodeSupport:
    """All chaincode streams of the peer.

    At most `max_streams` at a time, of which `max_unregistered` may not have registered yet: names
    are taken once, streams without one could be anybody's.
    """

    def __init__(
        self,
        registry: Registry[ChaincodeStream],
        launcher: Launcher,
        settings: StreamSettings,
        *,
        max_streams: int,
        max_unregistered: int,
    ) -> None:
        self.registry = registry
        self._launcher = launcher
        self._settings = settings
        self._max_streams = max_streams
        self._max_unregistered = max_unregistered
        self._streams: set[ChaincodeStream] = set()

    async def register(self, stream: MessageStream) -> None:
        """Serve `/protos.ChaincodeSupport/Register`, one call per stream.

        Raises StatusError: PERMISSION_DENIED for a certificate that is no chaincode's,
        RESOURCE_EXHAUSTED above a limit, else what ChaincodeStream.run does.
        """
        served = ChaincodeStream(stream, self.registry, self._settings)
        try:
            served.check_is_a_chaincode()
            self._check_room()
        except StatusError as refusal:
            metrics.refusals.labels(refusal.code.name).inc()
            raise
        self._streams.add(served)
        metrics.streams.inc()
        try:
            await served.run()
        finally:
            self._streams.discard(served)
            metrics.streams.dec()

    def _check_room(self) -> None:
        if len(self._streams) >= self._max_streams:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the peer serves {self._max_streams} chaincode streams, the limit of "
                "chaincode.limits.streams; stop one, or raise the limit",
            )
        unregistered = sum(stream.state is State.CREATED for stream in self._streams)
        if unregistered >= self._max_unregistered:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{unregistered} chaincode streams have not sent REGISTER yet, the limit of "
                "chaincode.limits.unregistered; try again in a moment",
            )

    async def launch(self, chaincode: str) -> ChaincodeStream:
        """The chaincode's stream, waited for as needed; for `execute`.

        Whoever takes a snapshot for it takes it afterwards: waiting must not hold one. Raises a
        ChaincodeError whose sentence is for the client.
        """
        return self.registry.get(chaincode) or await self._launcher.launch(chaincode)

    async def execute(self, stream: ChaincodeStream, transaction: Transaction) -> Execution:
        """Run a transaction on the stream of the chaincode it names.

        The event's chaincode and txid are the peer's to say, whatever the chaincode wrote there.
        Raises a ChaincodeError whose sentence is for the client.
        """
        message = await stream.execute(transaction)
        if message.type == ChaincodeMessage.ERROR:
            raise ChaincodeFailure(
                f"transaction returned with failure: {message.payload.decode(errors='replace')}"
            )
        try:
            response = Response.FromString(message.payload)
        except DecodeError as error:
            raise ChaincodeFailure(
                f"chaincode {stream.registered_name} completed transaction {transaction.txid} with "
                f"a payload ({len(message.payload)} bytes) that is not a protos.Response: {error}"
            ) from error
        event = None
        if message.HasField("chaincode_event"):
            event = message.chaincode_event
            event.chaincode_id = transaction.chaincode
            event.tx_id = transaction.txid
        return Execution(response, event, stream.version)
