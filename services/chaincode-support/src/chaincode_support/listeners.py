"""How the peer's listeners are secured and bounded, as the configuration has it."""

from __future__ import annotations

from dataclasses import replace

from chaincode_support.config import Config
from chaincode_support.material import Material
from selvedge_common.comm import (
    Bounds,
    SecureServerConfig,
    ServerConfig,
    StreamConfig,
    server_config,
)
from selvedge_common.config.sections import ListenerTransport
from selvedge_common.logs import get_logger

log = get_logger("peer")


def secure(config: Config, material: Material) -> SecureServerConfig:
    """TLS of all listeners. Raises MaterialError."""
    tls = config.peer.tls
    if not tls.enabled:
        log.warning(
            "TLS IS OFF: everything is sent in the clear, and any process that reaches the ports "
            "can act as any chaincode; set peer.tls.enabled to true"
        )
        return SecureServerConfig()
    if not tls.client_auth_required:
        log.warning(
            "CLIENT CERTIFICATES ARE NOT REQUIRED: any process that reaches the ports can act as "
            "any chaincode; set peer.tls.clientAuthRequired to true"
        )
    return material.server(tls)


def secure_chaincode(config: Config, secured: SecureServerConfig) -> SecureServerConfig:
    """The same for the chaincode listener, where chaincode may come without a certificate."""
    if config.chaincode.client_auth_required or not secured.require_client_certificate:
        return secured
    log.warning(
        "CHAINCODE NEEDS NO CLIENT CERTIFICATE: any process that reaches its listener can act as "
        "any chaincode that shows none; set chaincode.clientAuthRequired to true"
    )
    kind = config.transport.chaincode
    carried_by = config.transport.kind if kind == "inherit" else kind
    return replace(
        secured,
        require_client_certificate=False,
        # Whoever has one still shows it; grpcio cannot ask without requiring.
        request_client_certificate=carried_by == "native",
    )


def listener(
    config: Config, secured: SecureServerConfig, transport: ListenerTransport
) -> ServerConfig:
    """One of them, carried by `transport`."""
    peer = config.peer
    bounds = Bounds(
        max_receive_bytes=peer.max_recv_msg_size,
        max_send_bytes=peer.max_send_msg_size,
        receive_setting="peer.maxRecvMsgSize",
        send_setting="peer.maxSendMsgSize",
        # One client may use up the peer's own limits; those answer with a sentence.
        max_concurrent_streams=2
        * (peer.limits.concurrency.endorser_service + peer.limits.concurrency.deliver_service),
        stream=StreamConfig(max_pending=config.chaincode.limits.pending_bytes),
    )
    return server_config(
        config.transport,
        secured,
        bounds,
        keepalive=peer.keepalive,
        # What a listener serves itself is found before this is looked at.
        elsewhere={
            "protos.ChaincodeSupport": f"{peer.chaincode_address}, where chaincode dials in",
            "protos.Endorser": f"{peer.address}, the peer API",
            "protos.Deliver": f"{peer.address}, the peer API",
            "orderer.AtomicBroadcast": f"{config.orderer.address}, the ordering",
        },
        kind=transport,
    )
