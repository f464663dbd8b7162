"""The unit the hub distributes: one event, serialised once, with what routing needs to know."""

from dataclasses import dataclass
from typing import TypeAlias

from selvedge_protos.peer import events_pb2

Kind: TypeAlias = events_pb2.EventType.ValueType

BLOCK = events_pb2.BLOCK
CHAINCODE = events_pb2.CHAINCODE
REJECTION = events_pb2.REJECTION
FILTEREDBLOCK = events_pb2.FILTEREDBLOCK

# A block's events come in this order: its last one tells a consumer that it has seen them all.
IN_ORDER = (CHAINCODE, REJECTION, FILTEREDBLOCK, BLOCK)


@dataclass(frozen=True, slots=True)
class HubEvent:
    """One event on its way to every consumer that is interested in it.

    Args:
        type: what kind of event, which decides the handler list.
        channel: the channel it happened on.
        message: a serialised ``protos.Event``; all consumers share these bytes.
        chaincode: the chaincode's name, for CHAINCODE events only.
        name: the event name the chaincode chose, for CHAINCODE events only.
        published: whether a producer published it and no ledger says so. Then it is only for those
            who asked for its channel by name.
    """

    type: Kind
    channel: str
    message: bytes
    chaincode: str = ""
    name: str = ""
    published: bool = False
