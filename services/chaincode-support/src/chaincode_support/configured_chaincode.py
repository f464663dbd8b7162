"""Chaincode support as the configuration has it: streams, system chaincodes and launchers."""

from __future__ import annotations

from collections.abc import Mapping

from chaincode_support.chaincode.definitions import Definitions
from chaincode_support.chaincode.known_names import KnownNames
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.settings import StreamSettings
from chaincode_support.chaincode.support import ChaincodeSupport
from chaincode_support.channel import Channel
from chaincode_support.config import Config, startup_timeout
from chaincode_support.launchers.configured import launchers
from chaincode_support.launchers.launchers import Launchers
from chaincode_support.system.channels import ReadableChannels
from chaincode_support.system.cscc import Cscc
from chaincode_support.system.executor import SystemExecutor
from chaincode_support.system.qscc import Qscc
from selvedge_common.comm import SecureServerConfig, ServerConfig
from selvedge_common.logs import get_logger
from selvedge_common.msp import MSP

log = get_logger("peer")


def chaincode_support(
    config: Config,
    listener: ServerConfig,
    channels: Mapping[str, Channel],
    organisation: MSP,
) -> tuple[ChaincodeSupport, Launchers]:
    """Support for the chaincode of these channels, and what launches it once it is started.

    Args:
        config: all of core.yaml.
        listener: how chaincode dials in.
        channels: by name.
        organisation: the peer's own.
    """
    if startup_timeout(config) > config.chaincode.startup_timeout:
        log.warning(
            "chaincode.startuptimeout is too short for a chaincode to come back; using 5s",
            configured=config.chaincode.startup_timeout,
        )
    registry = Registry(
        KnownNames(config.peer.file_system_path / "known-chaincodes"),
        config.chaincode.limits.replicas,
    )
    readable = ReadableChannels(channels)
    for system in (Qscc(readable), Cscc(readable, organisation)):
        registry.register(SystemExecutor(system))

    launching = launchers(config, listener, registry)
    support = ChaincodeSupport(
        registry,
        launching,
        Definitions(config.chaincode.init_required),
        channels,
        _stream_settings(config, listener.secure),
        max_streams=config.chaincode.limits.streams,
        max_unregistered=config.chaincode.limits.unregistered,
    )
    return support, launching


def _stream_settings(config: Config, secure: SecureServerConfig) -> StreamSettings:
    chaincode = config.chaincode
    params = chaincode.runtime_params
    return StreamSettings(
        keepalive=chaincode.keepalive,
        register_timeout=chaincode.register_timeout,
        execute_timeout=chaincode.execute_timeout,
        max_transactions=chaincode.limits.transactions,
        max_queries=chaincode.limits.queries,
        max_page_rows=config.ledger.state.total_query_limit,
        max_write_batch=params.max_size_write_batch if params.use_write_batch else 0,
        max_multiple_keys=(
            params.max_size_get_multiple_keys if params.use_get_multiple_keys else 0
        ),
        # The rest is left for the answers to transactions that run already.
        max_pending=chaincode.limits.pending_bytes // 4 * 3,
        # Without client certificates there is nothing to compare a name with.
        check_certificate_name=chaincode.require_certificate_name
        and (secure.require_client_certificate or secure.request_client_certificate),
        certificate_optional=not secure.require_client_certificate,
    )
