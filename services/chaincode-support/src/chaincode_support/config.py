"""The configuration: one frozen dataclass per section of core.yaml, which explains every key."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from chaincode_support.ledger.store import CHANNEL_NAME
from selvedge_common.config import (
    LONGEST,
    MOST,
    ConfigError,
    Duration,
    HostPort,
    Range,
    Size,
    load,
    sections,
)
from selvedge_common.config.sections import TLS, Enrolling, Keepalive, Logging, Operations

# Shorter start-up timeouts give a restarting chaincode no chance; Fabric raises them as well.
MIN_STARTUP_TIMEOUT = 5.0
# What a block takes beside its envelopes, with room to spare: header, signatures, and a few bytes
# for each envelope.
BLOCK_OVERHEAD = 1 << 20


@dataclass(frozen=True)
class Concurrency:
    endorser_service: int
    deliver_service: int


@dataclass(frozen=True)
class PeerLimits:
    concurrency: Concurrency
    deliver_bytes: Size
    admin_request_bytes: Size


@dataclass(frozen=True)
class PeerTLS(TLS):
    server_host_override: str


@dataclass(frozen=True)
class Peer:
    id: str
    network_id: str
    address: Annotated[str, HostPort()]
    chaincode_address: Annotated[str, HostPort()]
    listen_address: Annotated[str, HostPort(listening=True)]
    chaincode_listen_address: Annotated[str, HostPort(listening=True)]
    local_msp_id: str
    file_system_path: Path
    max_recv_msg_size: Size
    max_send_msg_size: Size
    validator_pool_size: Annotated[int, Range(0, MOST)]
    grace_period: Duration
    tls: PeerTLS
    keepalive: Keepalive
    limits: PeerLimits


@dataclass(frozen=True)
class Transport(sections.Transport):
    peer: sections.ListenerTransport
    chaincode: sections.ListenerTransport
    orderer: sections.ListenerTransport


@dataclass(frozen=True)
class ChaincodeLimits:
    streams: int
    unregistered: int
    replicas: int
    transactions: int
    queries: int
    pending_bytes: Size
    packages: int
    package_bytes: Size
    package_files: int
    output_lines: int
    output_line_bytes: Size


@dataclass(frozen=True)
class ChaincodeLogging:
    level: str
    shim: str
    format: str


@dataclass(frozen=True)
class Relaunch:
    first_pause: Duration
    longest_pause: Duration

    def __post_init__(self) -> None:
        """Raises ValueError: the first is longer."""
        if self.first_pause > self.longest_pause:
            raise ValueError(
                f"firstPause ({self.first_pause:g}s) is longer than longestPause "
                f"({self.longest_pause:g}s)"
            )


@dataclass(frozen=True)
class RuntimeParams:
    use_write_batch: bool
    max_size_write_batch: int
    use_get_multiple_keys: bool
    max_size_get_multiple_keys: int


@dataclass(frozen=True)
class Chaincode:
    mode: Literal["dev"]
    # A chaincode needs time to answer.
    execute_timeout: Annotated[Duration, Range("1001ms", LONGEST)]
    startup_timeout: Duration
    keepalive: Annotated[int, Range(0, MOST)]
    register_timeout: Duration
    client_auth_required: bool
    require_certificate_name: bool
    init_required: list[str]
    packages: Path | None
    packages_interval: Duration
    relaunch: Relaunch
    logging: ChaincodeLogging
    runtime_params: RuntimeParams
    limits: ChaincodeLimits


@dataclass(frozen=True)
class ChannelSettings:
    names: list[str]

    def __post_init__(self) -> None:
        """Raises ValueError: there is none, one is twice, or it is no channel's name."""
        if not self.names:
            raise ValueError("names is empty, but must hold at least one channel")
        for name in self.names:
            if not CHANNEL_NAME.fullmatch(name):
                raise ValueError(
                    f"names holds {name!r}, but a channel has at most 249 lower-case letters, "
                    "digits, dots and dashes, beginning with a letter"
                )
            if self.names.count(name) > 1:
                raise ValueError(f"names holds {name!r} twice")


@dataclass(frozen=True)
class StateSettings:
    total_query_limit: int


@dataclass(frozen=True)
class LedgerSettings:
    synchronous: Literal["FULL", "NORMAL"]
    max_simulations: int
    max_wal_bytes: Size
    state: StateSettings


@dataclass(frozen=True)
class BatchSize:
    max_message_count: int
    absolute_max_bytes: Size
    preferred_max_bytes: Size


@dataclass(frozen=True)
class OrdererLimits:
    pending_messages: int
    pending_bytes: Size
    streams: int
    stream_pipeline: int
    blocks_ahead: int
    bytes_ahead: Size


@dataclass(frozen=True)
class Orderer:
    listen_address: Annotated[str, HostPort(listening=True)]
    address: Annotated[str, HostPort()]
    batch_timeout: Annotated[Duration, Range("1us", LONGEST)]
    batch_size: BatchSize
    limits: OrdererLimits


@dataclass(frozen=True)
class Config:
    """All of core.yaml; durations in seconds, sizes in bytes."""

    peer: Peer
    transport: Transport
    chaincode: Chaincode
    channel: ChannelSettings
    ledger: LedgerSettings
    orderer: Orderer
    operations: Operations
    ca: Enrolling
    logging: Logging


def read(file: Path | None = None) -> Config:
    """The packaged defaults, under `file`, under the environment.

    Raises ConfigError, which names the key, for what cannot be read and for values that make no
    sense.
    """
    config = load(Config, importlib.resources.files("chaincode_support") / "core.yaml", file)
    _check_blocks_can_be_sent(config)
    _check_chaincode_address(config)
    return config


def _check_blocks_can_be_sent(config: Config) -> None:
    """A block that no reader can be sent would end every stream that comes to it, for ever."""
    size = config.orderer.batch_size
    room = config.peer.max_send_msg_size - BLOCK_OVERHEAD
    for key, value in (
        ("absoluteMaxBytes", size.absolute_max_bytes),
        ("preferredMaxBytes", size.preferred_max_bytes),
    ):
        if value > room:
            raise ConfigError(
                f"orderer.batchSize.{key} is {value} bytes, but must be at most "
                f"peer.maxSendMsgSize less {BLOCK_OVERHEAD} ({room}): a block that holds as much "
                "could not be sent to anybody."
            )


def _check_chaincode_address(config: Config) -> None:
    """It is told to chaincodes: where a listener takes all addresses, none of them can dial one."""
    address = config.peer.chaincode_address
    if address.rpartition(":")[0] in ("0.0.0.0", "[::]", "::"):  # noqa: S104 - refused
        raise ConfigError(
            f"peer.chaincodeAddress is {address!r}, but must be where a chaincode reaches the "
            "chaincode listener: the name of this host and the port, such as localhost:7052"
        )


def startup_timeout(config: Config) -> float:
    """chaincode.startuptimeout in seconds, at least five."""
    return max(config.chaincode.startup_timeout, MIN_STARTUP_TIMEOUT)
