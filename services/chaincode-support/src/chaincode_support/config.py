"""The configuration: one frozen dataclass per section of core.yaml, which explains every key."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selvedge_common.config import ConfigError, Duration, Size, load

# Shorter start-up timeouts give a restarting chaincode no chance; Fabric raises them as well.
MIN_STARTUP_TIMEOUT = 5.0


@dataclass(frozen=True)
class ClientRootCAs:
    files: list[Path]


@dataclass(frozen=True)
class TLS:
    enabled: bool
    client_auth_required: bool
    client_root_cas: ClientRootCAs


@dataclass(frozen=True)
class Keepalive:
    interval: Duration
    timeout: Duration
    min_interval: Duration


@dataclass(frozen=True)
class Concurrency:
    endorser_service: int
    deliver_service: int


@dataclass(frozen=True)
class PeerLimits:
    concurrency: Concurrency


@dataclass(frozen=True)
class Peer:
    id: str
    address: str
    chaincode_address: str
    listen_address: str
    chaincode_listen_address: str
    local_msp_id: str
    file_system_path: Path
    max_recv_msg_size: Size
    max_send_msg_size: Size
    validator_pool_size: int
    grace_period: Duration
    tls: TLS
    keepalive: Keepalive
    limits: PeerLimits


@dataclass(frozen=True)
class ChaincodeLimits:
    streams: int
    transactions: int
    queries: int
    pending_bytes: Size


@dataclass(frozen=True)
class Chaincode:
    mode: Literal["dev"]
    execute_timeout: Duration
    startup_timeout: Duration
    keepalive: int
    register_timeout: Duration
    require_certificate_name: bool
    limits: ChaincodeLimits


@dataclass(frozen=True)
class ChannelSettings:
    name: str


@dataclass(frozen=True)
class LedgerSettings:
    synchronous: Literal["FULL", "NORMAL"]
    max_simulations: int
    max_wal_bytes: Size


@dataclass(frozen=True)
class BatchSize:
    max_message_count: int
    absolute_max_bytes: Size
    preferred_max_bytes: Size


@dataclass(frozen=True)
class OrdererLimits:
    pending_messages: int
    pending_bytes: Size
    stream_pipeline: int
    blocks_ahead: int


@dataclass(frozen=True)
class Orderer:
    listen_address: str
    address: str
    batch_timeout: Duration
    batch_size: BatchSize
    limits: OrdererLimits


@dataclass(frozen=True)
class OperationsTLS:
    enabled: bool


@dataclass(frozen=True)
class Operations:
    listen_address: str
    tls: OperationsTLS


@dataclass(frozen=True)
class CA:
    address: str
    enrolment: Path
    timeout: Duration


@dataclass(frozen=True)
class Logging:
    spec: str
    format: Literal["json", "console"]


@dataclass(frozen=True)
class Config:
    """All of core.yaml; durations in seconds, sizes in bytes."""

    peer: Peer
    chaincode: Chaincode
    channel: ChannelSettings
    ledger: LedgerSettings
    orderer: Orderer
    operations: Operations
    ca: CA
    logging: Logging


def read(file: Path | None = None) -> Config:
    """The packaged defaults, under `file`, under the environment.

    Raises ConfigError, which names the key, for what cannot be read and for values that make no
    sense.
    """
    config = load(Config, importlib.resources.files("chaincode_support") / "core.yaml", file)
    _check(config)
    return config


def _check(config: Config) -> None:
    chaincode = config.chaincode
    if chaincode.execute_timeout <= 1:
        raise ConfigError(
            f"chaincode.executetimeout is {chaincode.execute_timeout:g} s, expected more than 1s: "
            "a chaincode needs time to answer"
        )
    positive = {
        "chaincode.registerTimeout": chaincode.register_timeout,
        "chaincode.limits.streams": chaincode.limits.streams,
        "chaincode.limits.transactions": chaincode.limits.transactions,
        "chaincode.limits.queries": chaincode.limits.queries,
        "chaincode.limits.pendingBytes": chaincode.limits.pending_bytes,
        "ledger.maxSimulations": config.ledger.max_simulations,
        "ledger.maxWalBytes": config.ledger.max_wal_bytes,
        "peer.gracePeriod": config.peer.grace_period,
        "peer.keepalive.interval": config.peer.keepalive.interval,
        "peer.keepalive.timeout": config.peer.keepalive.timeout,
        "peer.keepalive.minInterval": config.peer.keepalive.min_interval,
        "peer.limits.concurrency.endorserService": config.peer.limits.concurrency.endorser_service,
        "peer.limits.concurrency.deliverService": config.peer.limits.concurrency.deliver_service,
        "orderer.batchTimeout": config.orderer.batch_timeout,
        "orderer.batchSize.maxMessageCount": config.orderer.batch_size.max_message_count,
        "orderer.batchSize.absoluteMaxBytes": config.orderer.batch_size.absolute_max_bytes,
        "orderer.batchSize.preferredMaxBytes": config.orderer.batch_size.preferred_max_bytes,
        "orderer.limits.pendingMessages": config.orderer.limits.pending_messages,
        "orderer.limits.pendingBytes": config.orderer.limits.pending_bytes,
        "orderer.limits.streamPipeline": config.orderer.limits.stream_pipeline,
        "orderer.limits.blocksAhead": config.orderer.limits.blocks_ahead,
        "peer.maxRecvMsgSize": config.peer.max_recv_msg_size,
        "peer.maxSendMsgSize": config.peer.max_send_msg_size,
    }
    for key, value in positive.items():
        if value <= 0:
            raise ConfigError(f"{key} is {value:g}, expected a value above 0")
    optional = {
        "peer.validatorPoolSize": config.peer.validator_pool_size,
        "chaincode.keepalive": chaincode.keepalive,
    }
    for key, value in optional.items():
        if value < 0:
            raise ConfigError(f"{key} is {value:g}, expected 0 or more")


def startup_timeout(config: Config) -> float:
    """chaincode.startuptimeout in seconds, at least five."""
    return max(config.chaincode.startup_timeout, MIN_STARTUP_TIMEOUT)
