"""From an empty volume, or an old one, to the open channel.

A channel's configuration is block 0 of its ordering's log: made once, from the organisation
that the ca enrolled this peer in, and read back on every start.
"""

from __future__ import annotations

from chaincode_support.channel import Channel
from chaincode_support.config import Config
from chaincode_support.ledger import Ledger
from chaincode_support.material import Material
from chaincode_support.ordering import (
    BatchSize,
    EmbeddedOrdering,
    LogUnusable,
    Ordering,
    OrderingSettings,
    SqliteLog,
)
from chaincode_support.ordering.log import MEND
from chaincode_support.volume import ChannelFiles
from selvedge_common.msp import IdentityError
from selvedge_common.protoutil import blocks
from selvedge_common.protoutil.config_block import Batch, genesis_block, open_config
from selvedge_protos.common import common_pb2


class ForeignVolume(Exception):
    """The volume's channel belongs to another organisation than this peer was enrolled in."""


def open_ordering(name: str, config: Config, material: Material) -> Ordering:
    """The channel's ordering; an empty volume gets its block 0. Raises LogUnusable."""
    files = ChannelFiles.on(config.peer.file_system_path, name)
    if files.ledger.exists() and not files.ordering.exists():
        # A log that was lost must not begin anew beside the ledger of the old one.
        raise LogUnusable(
            f"The ordering log {files.ordering} of channel {name} is missing, and its ledger is "
            f"there. {MEND}"
        )
    orderer = config.orderer
    size = orderer.batch_size
    batch = Batch(
        size.max_message_count,
        size.absolute_max_bytes,
        size.preferred_max_bytes,
        f"{orderer.batch_timeout * 1000:g}ms",
    )

    def first_block() -> common_pb2.Block:
        organisation = material.msp().config()
        return genesis_block(name, [organisation], [orderer.address], batch)

    signer = material.orderer()
    return EmbeddedOrdering.open(
        SqliteLog.open(files.ordering.parent, name, max_wal_bytes=config.ledger.max_wal_bytes),
        name,
        signer,
        OrderingSettings(
            batch=BatchSize(size.max_message_count, size.preferred_max_bytes),
            timeout=orderer.batch_timeout,
            max_pending_messages=orderer.limits.pending_messages,
            max_pending_bytes=orderer.limits.pending_bytes,
        ),
        first_block,
    )


def open_channel(name: str, config: Config, material: Material, ordering: Ordering) -> Channel:
    """The channel as block 0 configures it.

    Raises LedgerUnusable, MalformedBlock, and ForeignVolume when this peer is no member of it.
    """
    configuration = open_config(blocks.parse_block(ordering.block(0)))
    folder = config.peer.file_system_path / "ledger"
    channel = Channel(
        name,
        Ledger.open(
            folder,
            name,
            synchronous=config.ledger.synchronous,
            max_simulations=config.ledger.max_simulations,
            # What holds more could not be ordered.
            max_simulation_bytes=config.orderer.batch_size.absolute_max_bytes,
            max_wal_bytes=config.ledger.max_wal_bytes,
        ),
        configuration.msps,
        configuration.policies,
    )
    try:
        channel.identify(material.peer().serialized)
    except IdentityError as error:
        channel.ledger.close()
        raise ForeignVolume(
            f"channel {name} on {config.peer.file_system_path} was made by another certificate "
            f"authority than the one that enrolled this peer ({error}); start with the volume of "
            "that authority, or remove this peer's volume to begin anew"
        ) from error
    return channel
