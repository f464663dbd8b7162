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
from chaincode_support.chaincode.stream import ChaincodeStream, StreamSettings, Transaction
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
    """All chaincode streams of the peer, at most `max_streams` at a time."""

    def __init__(
        self,
        registry: Registry[ChaincodeStream],
        launcher: Launcher,
        settings: StreamSettings,
        *,
        max_streams: int,
    ) -> None:
        self.registry = registry
        self._launcher = launcher
        self._settings = settings
        self._max_streams = max_streams
        self._streams = 0

    async def register(self, stream: MessageStream) -> None:
        """Serve `/protos.ChaincodeSupport/Register`, one call per stream.

        Raises StatusError: RESOURCE_EXHAUSTED above the limit, else what ChaincodeStream.run does.
        """
        if self._streams >= self._max_streams:
            metrics.refusals.labels(grpc.StatusCode.RESOURCE_EXHAUSTED.name).inc()
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the peer serves {self._max_streams} chaincode streams, the limit of "
                "chaincode.limits.streams; stop one, or raise the limit",
            )
        self._streams += 1
        metrics.streams.inc()
        try:
            await ChaincodeStream(stream, self.registry, self._settings).run()
        finally:
            self._streams -= 1
            metrics.streams.dec()

    async def execute(self, transaction: Transaction) -> Execution:
        """Run a transaction on the chaincode it names, waiting for the chaincode as needed.

        The event's chaincode and txid are the peer's to say, whatever the chaincode wrote there.
        Raises a ChaincodeError whose sentence is for the client.
        """
        stream = self.registry.get(transaction.chaincode)
        if stream is None:
            stream = await self._launcher.launch(transaction.chaincode)
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
