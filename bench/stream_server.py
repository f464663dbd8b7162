"""The chaincode stream of chaincode-support alone, whose transactions come from within.

Nothing is checked, signed or endorsed: registry, stream and ledger are real, and so is the
listener. It prints its address. For each line on standard input, "IN_FLIGHT SECONDS", it runs
transactions of the measuring chaincode for that long, so many at a time, and prints a Round.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from bench.client import CHANNEL, NAME, propose
from bench.load_client import Round
from bench.process import standard_input
from chaincode_support import config
from chaincode_support.chaincode.definitions import Definitions
from chaincode_support.chaincode.executor import Transaction
from chaincode_support.chaincode.known_names import KnownNames
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.settings import StreamSettings
from chaincode_support.chaincode.support import ChaincodeSupport
from chaincode_support.ledger import Ledger, Simulator
from chaincode_support.material import Material
from selvedge_cli.connection import read_user
from selvedge_cli.options import MSP_ID
from selvedge_common import comm, logs
from selvedge_protos.peer.chaincode_pb2 import ChaincodeInput
from selvedge_protos.peer.proposal_pb2 import SignedProposal

PROPOSALS = 1000
"""Proposals that are taken in turns: more than run at a time."""


class Waiting:
    """Launches chaincode by waiting for it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def launch(self, name: str) -> None:
        """Return once the chaincode is there."""
        await self._registry.wait_for(name)


class Transactions:
    """No-op transactions of the measuring chaincode.

    Args:
        support: runs them.
        ledger: what they could read.
        home: of who proposes them.
    """

    def __init__(self, support: ChaincodeSupport, ledger: Ledger, home: Path) -> None:
        self._support = support
        self._ledger = ledger
        self._clock = asyncio.get_running_loop().time
        signer = read_user(home / "crypto" / "users" / "user1").signer
        self._creator = signer.serialized
        proposed = [propose(signer, "noop") for _ in range(PROPOSALS)]
        self._proposals = itertools.cycle(
            [(each.txid, SignedProposal.FromString(each.signed)) for each in proposed]
        )

    async def run(self, in_flight: int, seconds: float) -> Round:
        """Run transactions for so long, so many at a time."""
        await self._support.launch(NAME)
        with ExitStack() as stack:
            # A snapshot for each of those in flight, and not for each transaction: taking one is
            # the endorser's part.
            simulators = [
                stack.enter_context(closing(self._ledger.simulator(f"in flight {number}")))
                for number in range(in_flight)
            ]
            started = self._clock()
            counts = await asyncio.gather(
                *(self._work(simulator, started + seconds) for simulator in simulators)
            )
            return Round(self._clock() - started, sum(counts))

    async def _work(self, simulator: Simulator, until: float) -> int:
        count = 0
        while self._clock() < until:
            txid, proposal = next(self._proposals)
            execution = await self._support.execute(
                Transaction(
                    channel=CHANNEL,
                    txid=txid,
                    chaincode=NAME,
                    input=ChaincodeInput(args=[b"noop"]),
                    simulator=simulator,
                    proposal=proposal,
                    creator=self._creator,
                )
            )
            assert execution.response.status == 200, execution
            count += 1
        return count


def chaincode_support(settings: config.Config) -> ChaincodeSupport:
    """As the service has it, but for what only the service needs."""
    registry = Registry(KnownNames())
    chaincode, params = settings.chaincode, settings.chaincode.runtime_params
    return ChaincodeSupport(
        registry,
        Waiting(registry),
        Definitions(()),
        {},
        StreamSettings(
            keepalive=chaincode.keepalive,
            register_timeout=chaincode.register_timeout,
            execute_timeout=chaincode.execute_timeout,
            max_transactions=chaincode.limits.transactions,
            max_queries=chaincode.limits.queries,
            max_page_rows=settings.ledger.state.total_query_limit,
            max_pending=chaincode.limits.pending_bytes,
            max_write_batch=params.max_size_write_batch,
            max_multiple_keys=params.max_size_get_multiple_keys,
            check_certificate_name=True,
            certificate_optional=False,
        ),
        max_streams=chaincode.limits.streams,
        max_unregistered=chaincode.limits.unregistered,
    )


async def serve(home: Path) -> None:
    """Serve until standard input ends, with what chaincode-support has in a home."""
    settings = config.read()
    secure = Material(home / "chaincode-support", MSP_ID).server(settings.peer.tls)
    server = comm.GRPCServer("localhost:0", comm.ServerConfig(secure=secure, transport="native"))
    support = chaincode_support(settings)
    server.add_message_stream("/protos.ChaincodeSupport/Register", support.register)
    await server.start()
    print(server.address, flush=True)
    with (
        TemporaryDirectory(prefix="selvedge-bench-") as folder,
        closing(Ledger.open(Path(folder), CHANNEL)) as ledger,
    ):
        transactions = Transactions(support, ledger, home)
        async for line in standard_input():
            in_flight, seconds = line.split()
            done = await transactions.run(int(in_flight), float(seconds))
            print(json.dumps(asdict(done)), flush=True)
    await server.stop(0)


def main() -> None:
    """Serve, on the event loop that the services use."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m bench.stream_server .selvedge",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("home", type=Path, help="of services that have been started there")
    arguments = parser.parse_args()
    logs.configure("error", "console")
    uvloop.run(serve(arguments.home))


if __name__ == "__main__":
    main()
