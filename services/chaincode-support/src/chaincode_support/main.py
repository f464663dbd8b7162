"""The process of chaincode-support: read the settings, enrol, build the peer, serve, drain."""

from __future__ import annotations

from importlib.metadata import version

from chaincode_support.config import Config, read
from chaincode_support.genesis import ForeignVolume
from chaincode_support.ledger import LedgerError
from chaincode_support.material import Material
from chaincode_support.ordering import OrderingError
from chaincode_support.peer import Peer
from selvedge_common import logs, process
from selvedge_common.comm import CommError
from selvedge_common.enrolment import EnrolmentError, enrol_service
from selvedge_common.material import MaterialError
from selvedge_common.msp import MSPConfigurationError
from selvedge_common.operations import OperationsError, OperationsServer
from selvedge_common.process import Shutdown
from selvedge_common.protoutil.errors import MalformedBlock
from selvedge_common.renewal import renewing

log = logs.get_logger("peer")

# What an operator can mend, beside the settings; each says in one sentence how.
FATAL = (
    EnrolmentError,
    MSPConfigurationError,
    MaterialError,
    ForeignVolume,
    LedgerError,
    OrderingError,
    CommError,
    OperationsError,
    MalformedBlock,
    OSError,
)
EXAMPLE = """CORE_PEER_FILESYSTEMPATH=.selvedge/chaincode-support \\
  CORE_CA_ENROLMENT=.selvedge/enrol/chaincode-support/enrolment.json chaincode-support"""


def main() -> None:
    """Run the peer until it is told to stop; an operator's mistake ends it with one sentence."""
    process.command(
        "chaincode-support",
        "Serve chaincode (7052), proposals and blocks (7051), and ordering (7050).",
        EXAMPLE,
        read,
        serve,
        FATAL,
    )


async def serve(config: Config, shutdown: Shutdown) -> None:
    """Enrol, serve until told to stop, and drain. Raises one of FATAL."""
    enrolling = enrol_service(
        config.peer.file_system_path,
        config.ca.enrolment,
        identities=("peer", "orderer"),
        ca_address=config.ca.address or None,
        patience=config.ca.timeout,
    )
    if not await shutdown.unless_set(enrolling):
        return
    material = Material(config.peer.file_system_path, config.peer.local_msp_id)
    peer = Peer(config, material)
    operations = OperationsServer(
        config.operations.listen_address,
        material.operations() if config.operations.tls.enabled else None,
        {
            "serving": peer.check_serving,
            "channels": peer.check_channels,
            "committer": peer.check_committing,
        },
        version("selvedge-chaincode-support"),
    )
    try:
        await operations.start()
        # Catching up may take long, and as long as the disk is full.
        if await shutdown.unless_set(peer.start()):
            log.info("serving", **peer.describe(), operations=operations.address)
            async with renewing(material, config.peer.tls, peer.servers):
                await shutdown.wait()
            await peer.drain()
    finally:
        await peer.close()
        await operations.stop()
    log.info("stopped")
