"""``protos.Deliver``: the blocks of the channels, from wherever a reader wants to begin.

The loop itself is protoutil.seek's, which follows release 2.5, common/deliver; core/peer's
deliverevents.go says what is sent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import attrgetter

import grpc

from event_hub.channels.block import ChannelBlock
from event_hub.channels.channel import Channel
from event_hub.consumers import Consumers
from event_hub.session import CloseReason, Service, Session, words_for
from selvedge_common.comm import GRPCServer, MessageStream
from selvedge_common.logs import get_logger
from selvedge_common.msp import IdentityError, PolicyError, parse_identity
from selvedge_common.msp.policies import SignedData
from selvedge_common.protoutil import seek
from selvedge_common.protoutil.errors import BlockUnavailable, MalformedMessage
from selvedge_common.protoutil.live_readers import LiveReaders
from selvedge_common.protoutil.reading import Reading
from selvedge_common.protoutil.seek_request import OpenedSeek, SeekRefused, Status
from selvedge_common.quoting import quoted
from selvedge_protos.common import common_pb2

log = get_logger("eventhub.deliver")

SERVICE = "protos.Deliver"

FAULT = "the event hub could not give this client a block, by a fault of its own; connect again"


@dataclass(frozen=True)
class Form:
    """What is sent of a block.

    Args:
        method: the method of protos.Deliver that sends it.
        data_type: its name in metrics.
        response: gives the whole DeliverResponse.
        validated: whether it says which transactions are valid.
    """

    method: str
    data_type: str
    response: Callable[[ChannelBlock], bytes]
    validated: bool


FORMS = (
    Form("Deliver", "block", attrgetter("response"), validated=False),
    Form("DeliverFiltered", "filtered_block", attrgetter("filtered_response"), validated=True),
    Form(
        "DeliverWithPrivateData",
        "block_and_pvtdata",
        attrgetter("private_data_response"),
        validated=True,
    ),
)


class ChannelResponses:
    """A channel's blocks in one form: a protoutil.responses.ResponseSource.

    Args:
        channel: the channel.
        form: the form.
        max_bytes: how large a response may be (``peer.events.maxSendMsgSize``).
    """

    def __init__(self, channel: Channel, form: Form, max_bytes: int) -> None:
        self.live = LiveReaders(self)
        self.channel = channel
        self._make = form.response
        self._max_bytes = max_bytes

    @property
    def height(self) -> int:
        """How many blocks there are."""
        return self.channel.height

    def remembered(self, number: int) -> bytes | None:
        """Give the response with a block that was read lately. Raises BlockUnavailable."""
        block = self.channel.recent(number)
        return None if block is None else self._response(block)

    async def fetch(self, number: int, last: int) -> bytes:
        """Give the response with a block. Raises BlockUnavailable.

        How far the reader goes on does not matter: the channel reads ahead by itself.
        """
        return self._response(await self.channel.read(number))

    async def wait_for(self, height: int) -> None:
        """Return once `self.height` is at least `height`."""
        await self.channel.wait_for(height)

    def _response(self, block: ChannelBlock) -> bytes:
        try:
            response = self._make(block)
        except MalformedMessage as error:
            raise BlockUnavailable(
                common_pb2.INTERNAL_SERVER_ERROR,
                f"block {block.number} of {self.channel.name} cannot be delivered: {error}",
            ) from error
        if len(response) > self._max_bytes:
            raise BlockUnavailable(
                common_pb2.REQUEST_ENTITY_TOO_LARGE,
                f"block {block.number} of {self.channel.name} takes {len(response)} bytes, above "
                f"the limit of {self._max_bytes}; raise peer.events.maxSendMsgSize",
            )
        return response


class Deliver:
    """Serves the streams of all readers.

    Args:
        channels: those that can be read.
        consumers: admits streams, and knows them until they have ended.
        mutual_tls: whether each request must repeat the hash of its client's certificate.
        time_window: seconds that a request's timestamp may be from the hub's clock.
        max_bytes: how large a response may be.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        consumers: Consumers,
        *,
        mutual_tls: bool,
        time_window: float,
        max_bytes: int,
    ) -> None:
        self._responses = {
            form: {
                name: ChannelResponses(channel, form, max_bytes)
                for name, channel in channels.items()
            }
            for form in FORMS
        }
        self._consumers = consumers
        self._mutual_tls = mutual_tls
        self._time_window = time_window

    async def serve(self, form: Form, stream: MessageStream) -> None:
        """Serve one stream until the client half-closes it, goes away or is refused.

        Raises:
            StatusError: the stream was not admitted.
        """
        with self._consumers.session(Service.DELIVER, stream) as session:
            reader = Reader(session, form, self._responses[form])
            client = seek.client_certificate_hash(stream.auth_context())
            try:
                status = await seek.deliver(
                    session,
                    responses_of=reader.responses_of,
                    check_access=reader.check_access,
                    check_still=reader.check_still,
                    backlog=self._consumers.past,
                    tls_binding=client if self._mutual_tls else None,
                    time_window=self._time_window,
                    data_type=form.data_type,
                    turn=self._consumers.turns.take,
                    on_reading=reader.begin,
                )
            except Exception:
                log.exception("fault with a reader", peer=session.peer)
                session.close(CloseReason.HUB_FAULT, grpc.StatusCode.INTERNAL, FAULT)
            else:
                session.finish(reader.reason(status), grpc.StatusCode.OK)


class Reader:
    """Whose requests come on one stream, and what they may read.

    Args:
        session: the stream.
        form: what is sent of blocks.
        responses: the channels' blocks in that form.
    """

    __slots__ = ("_config", "_form", "_reason", "_responses", "_session", "_signed", "_source")

    def __init__(
        self, session: Session, form: Form, responses: Mapping[str, ChannelResponses]
    ) -> None:
        self._session = session
        self._form = form
        self._responses = responses
        self._source: ChannelResponses
        self._signed: SignedData
        self._config: object = None  # by which it may read
        self._reason: CloseReason | None = None

    def responses_of(self, channel: str) -> ChannelResponses:
        """Give the channel's blocks. Raises SeekRefused."""
        found = self._responses.get(channel)
        if found is None:
            raise self._refusal(
                CloseReason.CHANNEL_UNKNOWN,
                common_pb2.NOT_FOUND,
                f"this hub has no channel {quoted(channel)}: name one that it has, or add it to "
                "its sources",
            )
        if self._form.validated and not found.channel.validated:
            raise self._refusal(
                CloseReason.NOT_VALIDATED,
                common_pb2.NOT_IMPLEMENTED,
                f"{channel} comes from an orderer, which does not say which transactions are "
                "valid: ask for its whole blocks, by Deliver, or give the hub a peer as source",
            )
        if not found.channel.ready:
            raise self._refusal(
                CloseReason.HUB_BEHIND,
                common_pb2.SERVICE_UNAVAILABLE,
                f"{channel} has not come from the source yet; try again",
            )
        self._source = found
        return found

    def check_access(self, request: OpenedSeek) -> datetime:
        """Say until when whoever signed the request may read. Raises IdentityError, PolicyError."""
        self._signed = request.signed_data()
        until = self._admit()
        self._session.identity = words_for(parse_identity(self._signed.identity))
        return until

    def check_still(self) -> None:
        """Raises IdentityError or PolicyError once the channel's configuration lets it read no
        more (release 2.5, common/deliver/acl.go)."""
        if self._source.channel.config is not self._config:
            self._admit()

    def begin(self, reading: Reading) -> None:
        """Show operators what is read."""
        name = self._source.channel.name
        what = f"{name} from block {reading.next}: {self._form.data_type}"
        self._session.interests = lambda: (what,)
        self._session.blocks_behind = lambda: {name: reading.behind}

    def reason(self, status: Status) -> CloseReason:
        """Say why the stream ended, by the last status that was sent on it."""
        return self._reason or _REASONS.get(status, CloseReason.BLOCK_UNAVAILABLE)

    def _admit(self) -> datetime:
        channel = self._source.channel
        try:
            until = channel.admit(self._signed)
        except (IdentityError, PolicyError):
            self._reason = CloseReason.CHANNEL_FORBIDDEN
            raise
        self._config = channel.config
        return until

    def _refusal(self, reason: CloseReason, status: Status, sentence: str) -> SeekRefused:
        self._reason = reason
        return SeekRefused(status, sentence)


# What a status means that the loop itself decides on.
_REASONS = {
    common_pb2.SUCCESS: CloseReason.HALF_CLOSED,
    common_pb2.BAD_REQUEST: CloseReason.MESSAGE_REFUSED,
    common_pb2.FORBIDDEN: CloseReason.EXPIRED,
    common_pb2.REQUEST_ENTITY_TOO_LARGE: CloseReason.EVENT_TOO_LARGE,
}


def add_deliver(server: GRPCServer, deliver: Deliver) -> None:
    """Serve protos.Deliver."""
    for form in FORMS:
        server.add_message_stream(f"/{SERVICE}/{form.method}", partial(deliver.serve, form))
