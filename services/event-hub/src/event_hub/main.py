"""The event hub's process: read the settings, enrol, build the parts, serve, drain."""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from event_hub import config as configuration
from event_hub.config import Config
from event_hub.hub import Hub
from event_hub.material import Material
from event_hub.sources.checkpoint import CheckpointError
from selvedge_common import logs, process
from selvedge_common.comm import CommError
from selvedge_common.config import ConfigError
from selvedge_common.enrolment import EnrolmentError, enrol_service
from selvedge_common.logs import LogSpecError
from selvedge_common.material import MaterialError
from selvedge_common.msp import MSPConfigurationError
from selvedge_common.operations import OperationsError, OperationsServer
from selvedge_common.process import Shutdown

# What an operator can mend; each says in one sentence how.
FATAL = (
    ConfigError,
    LogSpecError,
    EnrolmentError,
    MSPConfigurationError,
    MaterialError,
    CheckpointError,
    CommError,
    OperationsError,
    OSError,
)
EXAMPLE = """example:
  CORE_PEER_FILESYSTEMPATH=.selvedge/event-hub CORE_SOURCE_ADDRESSES=localhost:7051 event-hub

Every setting, with its default, stands in the file core.yaml of this package; --config names a
file with the ones to change.
"""


def main() -> None:
    """Run the hub until it is told to stop; a user's mistake ends it with one sentence."""
    parser = argparse.ArgumentParser(
        prog="event-hub",
        description="Serve protos.Events: signed clients register and hear of the ledger's news.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, in YAML")
    arguments = parser.parse_args()
    try:
        config = configuration.read(arguments.config)
        logs.configure(config.logging.spec, config.logging.format)
        process.run(lambda shutdown: serve(config, shutdown))
    except FATAL as error:
        sys.exit(f"event-hub: {error}")


async def serve(config: Config, shutdown: Shutdown) -> None:
    """Enrol, serve until told to stop, and drain.

    Raises:
        Exception: one of FATAL.
    """
    folder = config.peer.file_system_path
    enrolling = enrol_service(
        folder,
        config.ca.enrolment,
        identities=("peer",),
        ca_address=config.ca.address or None,
        patience=config.ca.timeout,
    )
    if not await shutdown.unless_set(enrolling):
        return
    material = Material(folder, config.peer.local_msp_id)
    hub = Hub(config, material)
    operations = OperationsServer(
        config.operations.listen_address,
        material.operations() if config.operations.tls.enabled else None,
        {
            "serving": hub.check_serving,
            "checkpoint": hub.checkpoint.check_health,
            "source": hub.source.check_health,
        },
        version("selvedge-event-hub"),
    )
    await operations.start()
    try:
        await hub.run(shutdown, operations.address)
    finally:
        await operations.stop()
