"""One block of a channel with all that consumers are sent of it, each made once for all of them."""

from collections.abc import Callable, Iterator, Sequence

from event_hub import block_events
from event_hub.channels.notices import BlockNotices
from event_hub.events import BLOCK, IN_ORDER, HubEvent, Kind
from event_hub.interests import Wanted
from selvedge_common.protoutil.block_events import filtered_block
from selvedge_common.protoutil.blocks import header_hash
from selvedge_common.protoutil.config_block import is_config_block
from selvedge_common.protoutil.responses import private_data_response
from selvedge_common.protoutil.wire import length_delimited, marshal
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import events_pb2

# A parsed block takes about as much again as its bytes.
_PARSED = 2


class ChannelBlock:
    """A block, and its events and responses as they are asked for.

    Args:
        channel: its channel.
        response: the whole DeliverResponse as the source sent it; passed on as it is.
        message: the block in it.
        validated: whether it has validation codes. An orderer's blocks have none, and only BLOCK
            events are made of them.
        block_hash: the hash of its header, where it is known already.

    Attributes:
        is_config: whether it holds a configuration of the channel.
        held_bytes: about what it takes in memory, with all that was made of it so far.
        on_growth: told of further bytes when something is made of it.
    """

    __slots__ = (
        "_events",
        "_filtered",
        "_hash",
        "_notices",
        "_with_private_data",
        "channel",
        "held_bytes",
        "is_config",
        "message",
        "on_growth",
        "response",
        "validated",
    )

    def __init__(
        self,
        channel: str,
        response: bytes,
        message: common_pb2.Block,
        *,
        validated: bool = True,
        block_hash: bytes | None = None,
    ) -> None:
        self.channel = channel
        self.response = response
        self.message = message
        self.validated = validated
        self.is_config = is_config_block(message)
        self.held_bytes = _PARSED * len(response)
        self.on_growth: Callable[[int], None] | None = None
        self._filtered: bytes | None = None
        self._with_private_data: bytes | None = None
        self._hash = block_hash
        self._notices: BlockNotices | None = None
        self._events: dict[Kind, Sequence[HubEvent]] = {}

    @property
    def number(self) -> int:
        """The block's number."""
        return self.message.header.number

    @property
    def hash(self) -> bytes:
        """The hash of its header, which the next block names."""
        if self._hash is None:
            self._hash = header_hash(self.message.header)
        return self._hash

    @property
    def filtered_response(self) -> bytes:
        """The whole DeliverResponse with the block's filtered form."""
        if self._filtered is None:
            filtered = filtered_block(self.message)
            filtered.channel_id = self.channel
            self._filtered = length_delimited(
                events_pb2.DeliverResponse.FILTERED_BLOCK_FIELD_NUMBER, marshal(filtered)
            )
            self._grow(len(self._filtered))
        return self._filtered

    @property
    def private_data_response(self) -> bytes:
        """The whole DeliverResponse with the block and no private data, of which sources send
        none."""
        if self._with_private_data is None:
            self._with_private_data = private_data_response(self.message.SerializeToString())
            self._grow(len(self._with_private_data))
        return self._with_private_data

    @property
    def notices(self) -> BlockNotices:
        """What subscribers are told of its transactions."""
        if self._notices is None:
            self._notices = BlockNotices(self.message, self.hash)
            self._grow(self._notices.held_bytes)
        return self._notices

    def events(self, kind: Kind) -> Sequence[HubEvent]:
        """The block's events of one type, in the order of its transactions."""
        events = self._events.get(kind)
        if events is None:
            made: Iterator[HubEvent] = iter(())
            if self.validated or kind == BLOCK:
                made = block_events.MAKERS[kind](self.message, self.channel)
            events = self._events[kind] = tuple(made)
            self._grow(sum(len(event.message) for event in events))
        return events

    def wanted_events(self, wanted: Wanted) -> Iterator[HubEvent]:
        """The block's events in order, of those types only that somebody is registered for."""
        for kind in IN_ORDER:
            if wanted(kind, self.channel):
                yield from self.events(kind)

    def _grow(self, size: int) -> None:
        self.held_bytes += size
        if self.on_growth is not None:
            self.on_growth(size)
