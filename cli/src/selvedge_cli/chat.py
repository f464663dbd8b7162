"""The event hub's Events/Chat: events as they happen, and from a block on where one is named."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Sequence

import grpc.aio

from selvedge_cli.client_errors import no_such_channel
from selvedge_cli.connection import Connection
from selvedge_cli.errors import CommandError, call_failed
from selvedge_common.protoutil.wire import timestamp_of
from selvedge_protos.peer import events_pb2, events_pb2_grpc

BLOCK = events_pb2.Interest(event_type=events_pb2.BLOCK)
FILTERED = events_pb2.Interest(event_type=events_pb2.FILTEREDBLOCK)
REJECTION = events_pb2.Interest(event_type=events_pb2.REJECTION)

START = "selvedge-start-block"
"""The metadata in which a client names the block to begin with, as in mychannel=17."""


def chaincode_interest(chaincode: str, name: str = "") -> events_pb2.Interest:
    """Interest in the events of a chaincode; without a name, in all of them."""
    registration = events_pb2.ChaincodeReg(chaincode_id=chaincode, event_name=name)
    return events_pb2.Interest(event_type=events_pb2.CHAINCODE, chaincode_reg_info=registration)


def interests(
    kind: str, chaincodes: Iterable[str], names: Collection[str]
) -> list[events_pb2.Interest]:
    """What to register for events of a type of `selvedge events`. Where a name is a glob all
    events of the chaincode come."""
    if kind != "chaincode":
        return [{"block": BLOCK, "filtered": FILTERED, "rejection": REJECTION}[kind]]
    exact = [""] if not names or any("*" in name for name in names) else names
    return [chaincode_interest(chaincode, name) for chaincode in chaincodes for name in exact]


class Chat:
    """One consumer of the event hub: `register` first, then iterate.

    Args:
        connection: the user's.
        start: the first block to hear of; without it, what happens from now on.
    """

    def __init__(self, connection: Connection, start: int | None = None) -> None:
        self._user = connection.user
        self._address = connection.settings.addresses.events
        hub = events_pb2_grpc.EventsStub(connection.channel(self._address))
        self._channel = connection.settings.channel
        place = [] if start is None else [(START, f"{self._channel}={start}")]
        # The stubs of grpc.aio do not know that the requests may be written later.
        self._call = hub.Chat(metadata=place)  # type: ignore[call-arg]

    async def register(self, interests: Sequence[events_pb2.Interest]) -> None:
        """Ask for events of the user's channel, and return once the hub has echoed it: from then on
        none is missed.

        Raises:
            CommandError: the hub cannot be reached or refused.
        """
        wanted = events_pb2.Register(events=interests)
        for interest in wanted.events:
            interest.chainID = self._channel
        event = events_pb2.Event(
            register=wanted,
            creator=self._user.signer.serialized,
            timestamp=timestamp_of(),
            tls_cert_hash=self._user.tls_hash,
        ).SerializeToString()
        signed = events_pb2.SignedEvent(eventBytes=event, signature=self._user.signer.sign(event))
        try:
            await self._call.write(signed)
            echo = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error
        if not isinstance(echo, events_pb2.Event) or not echo.HasField("register"):
            raise CommandError(f"the event hub at {self._address} did not confirm the registration")

    async def events(self) -> AsyncGenerator[events_pb2.Event, None]:
        """The events, until the hub ends the stream.

        Raises:
            CommandError: the stream broke, or the hub closed it: too slow, for example.
        """
        try:
            while isinstance(event := await self._call.read(), events_pb2.Event):
                yield event
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Leave."""
        self._call.cancel()

    def _failed(self, error: grpc.aio.AioRpcError) -> CommandError:
        if (error.details() or "").startswith("CHANNEL_UNKNOWN"):
            return no_such_channel("the event hub", self._address, self._channel)
        return call_failed(error, "the event hub", self._address)
