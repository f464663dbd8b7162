"""Listen to what happens on a channel: filtered, resumable, everything once.

client = Client.of_home()
checkpoint = Checkpoint("assets.checkpoint")
async for event in client.subscribe("mychannel", names=["Asset*"], checkpoint=checkpoint):
    print(event.block, event.txid, event.name, event.payload)
    await checkpoint.advance(event.position)
"""

from selvedge_client.checkpoint import Checkpoint, Progress
from selvedge_client.client import Client
from selvedge_client.deliver import Ledger
from selvedge_client.errors import (
    BlockUnreadable,
    CheckpointError,
    ClientError,
    CredentialsError,
    NoSuchBlock,
    NoSuchChannel,
    NotReachable,
    NotTrusted,
    OtherLedger,
    Refused,
)
from selvedge_client.events import Event, Position
from selvedge_client.user import User

__all__ = [
    "BlockUnreadable",
    "Checkpoint",
    "CheckpointError",
    "Client",
    "ClientError",
    "CredentialsError",
    "Event",
    "Ledger",
    "NoSuchBlock",
    "NoSuchChannel",
    "NotReachable",
    "NotTrusted",
    "OtherLedger",
    "Position",
    "Progress",
    "Refused",
    "User",
]
