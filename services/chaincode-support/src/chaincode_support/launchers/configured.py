"""The launchers as the configuration has them."""

from __future__ import annotations

from chaincode_support.chaincode.registry import Registry
from chaincode_support.config import Config, startup_timeout
from chaincode_support.launchers.archive import Bounds
from chaincode_support.launchers.external import ExternalLauncher
from chaincode_support.launchers.launchers import Launchers, LaunchSettings
from chaincode_support.launchers.output import OutputBounds
from chaincode_support.launchers.package import Command, Package
from chaincode_support.launchers.packages import PackageBounds, Packages
from chaincode_support.launchers.process import ChaincodeProcess, ProcessSettings
from chaincode_support.launchers.service import ChaincodeConnection, Serve, ServiceSettings
from chaincode_support.launchers.supervisor import Attempt, Pauses
from chaincode_support.launchers.waiting import Waiting
from selvedge_common.comm import ServerConfig


def launchers(config: Config, listener: ServerConfig, registry: Registry) -> Launchers:
    """Launchers of a peer.

    Args:
        config: all of core.yaml.
        listener: of the chaincode listener, whose bounds hold for chaincode that is dialled too.
        registry: where chaincodes register.
    """
    chaincode, address = config.chaincode, config.peer.chaincode_address
    waiting = Waiting(registry, startup_timeout(config), chaincode.limits.transactions)
    processes = _processes(config, listener)
    services = ServiceSettings(config.peer.file_system_path / "tls", listener)

    def begin(package: Package, serve: Serve) -> Attempt:
        if isinstance(package.launch, Command):
            return ChaincodeProcess(package, package.launch, processes)
        return ChaincodeConnection(package, package.launch, services, serve)

    return Launchers(
        _packages(config),
        ExternalLauncher(registry, waiting, address),
        begin,
        registry,
        waiting,
        LaunchSettings(
            chaincode.packages_interval,
            Pauses(chaincode.relaunch.first_pause, chaincode.relaunch.longest_pause),
            config.peer.grace_period,
        ),
    )


def _packages(config: Config) -> Packages:
    chaincode, limits = config.chaincode, config.chaincode.limits
    return Packages(
        (chaincode.packages or config.peer.file_system_path / "chaincodes").absolute(),
        PackageBounds(Bounds(limits.package_bytes, limits.package_files), limits.packages),
        {"peername": config.peer.id, "networkid": config.peer.network_id},
    )


def _processes(config: Config, listener: ServerConfig) -> ProcessSettings:
    peer, logging, limits = config.peer, config.chaincode.logging, config.chaincode.limits
    return ProcessSettings(
        address=peer.chaincode_address,
        msp_id=peer.local_msp_id,
        # A chaincode may run in another folder than the peer.
        root=(peer.file_system_path / "tls" / "ca.crt").absolute() if peer.tls.enabled else None,
        certificate_required=listener.secure.require_client_certificate,
        host_override=peer.tls.server_host_override,
        log_level=logging.level,
        shim_log_level=logging.shim,
        log_format=logging.format,
        grace=peer.grace_period,
        output=OutputBounds(limits.output_line_bytes, limits.output_lines),
        ca_address=config.ca.address or None,
        # What it waited for is told before those that wait for the chaincode give up.
        enrol_patience=startup_timeout(config) / 2,
    )
