"""The event hub's process: read the settings, enrol, build the parts, serve, drain."""

import argparse
import asyncio
import contextlib
import sys
from pathlib import Path

from selvedge_common import logs, process
from selvedge_common.config import ConfigError
from selvedge_common.enrolment import EnrolmentError, enrol_service
from selvedge_common.logs import LogSpecError
from selvedge_common.operations import OperationsServer

from event_hub import config as configuration
from event_hub.config import Config
from event_hub.hub import Hub
from event_hub.sources.checkpoint import CheckpointError

log = logs.get_logger("eventhub")

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
    except (ConfigError, LogSpecError, EnrolmentError, CheckpointError) as error:
        sys.exit(f"event-hub: {error}")
