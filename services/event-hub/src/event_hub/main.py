"""The event hub's process: read the settings, enrol, build the parts, serve, drain."""

from importlib.metadata import version

from event_hub.config import Config, read
from event_hub.hub import Hub
from event_hub.material import Material
from event_hub.sources.checkpoint import CheckpointError
from selvedge_common import process
from selvedge_common.comm import CommError
from selvedge_common.enrolment import EnrolmentError, enrol_service
from selvedge_common.material import MaterialError
from selvedge_common.msp import MSPConfigurationError
from selvedge_common.operations import OperationsError, OperationsServer
from selvedge_common.process import Shutdown
from selvedge_common.renewal import renewing

# What an operator can mend, beside the settings; each says in one sentence how.
FATAL = (
    EnrolmentError,
    MSPConfigurationError,
    MaterialError,
    CheckpointError,
    CommError,
    OperationsError,
    OSError,
)
EXAMPLE = (
    "CORE_PEER_FILESYSTEMPATH=.selvedge/event-hub CORE_SOURCE_ADDRESSES=localhost:7051 event-hub"
)


def main() -> None:
    """Run the hub until it is told to stop; a user's mistake ends it with one sentence."""
    process.command(
        "event-hub",
        "Serve protos.Events: signed clients register and hear of the ledger's news.",
        EXAMPLE,
        read,
        serve,
        FATAL,
    )


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
            "checkpoint": hub.check_positions,
            "source": hub.check_sources,
        },
        version("selvedge-event-hub"),
    )
    await operations.start()
    try:
        async with renewing(material, config.peer.tls, [hub.server]):
            await hub.run(shutdown, operations.address)
    finally:
        await operations.stop()
