"""A chaincode calls another one, within its transaction.

Follows HandleInvokeChaincode in core/chaincode/handler.go of Fabric 2.5: on the caller's channel
the called chaincode shares its simulation; on another one it reads a snapshot of its own, and what
it writes there is dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping

from chaincode_support.chaincode.errors import CallRefused
from chaincode_support.chaincode.executor import Executor, Transaction
from chaincode_support.channel import Channel
from chaincode_support.ledger import LedgerBusy, LedgerError
from selvedge_common.msp import IdentityError, PolicyNotSatisfied
from selvedge_common.protoutil.config_block import WRITERS
from selvedge_common.quoting import quoted
from selvedge_protos.peer.chaincode_pb2 import ChaincodeSpec
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage


class ChaincodeCalls:
    """Calls of chaincodes by chaincodes."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        launch: Callable[[str], Awaitable[Executor]],
        run: Callable[[Transaction], Awaitable[ChaincodeMessage]],
    ) -> None:
        """`launch` waits until a chaincode is there, `run` gives it a transaction."""
        self._channels = channels
        self._launch = launch
        self._run = run

    async def invoke(self, caller: Transaction, spec: ChaincodeSpec) -> ChaincodeMessage:
        """Run what `spec` says for the transaction `caller`: COMPLETED or ERROR of the callee.

        Raises ChaincodeError, also where the call is not allowed.
        """
        name, channel = _called(spec.chaincode_id.name)
        if not name:
            raise CallRefused("the call names no chaincode: give chaincode[:version][/channel]")
        channel = channel or caller.channel
        callers = caller.callers | {(caller.channel, caller.chaincode)}
        if (channel, name) in callers:
            raise CallRefused(
                f"transaction {caller.txid} already runs chaincode {name} on channel {channel}: a "
                "chaincode cannot call itself, nor one that waits for it"
            )
        other = None if channel == caller.channel else self._other_channel(channel, caller.creator)
        executor = await self._launch(name)
        if not executor.callable_by_chaincode:
            raise CallRefused(
                f"system chaincode {name} cannot be called by a chaincode: send it a proposal"
            )
        with contextlib.ExitStack() as snapshot:
            simulator = caller.simulator
            if not executor.simulates:
                simulator = None
            elif other is not None:
                try:
                    simulator = snapshot.enter_context(
                        contextlib.closing(other.ledger.simulator(caller.txid, name))
                    )
                except LedgerBusy as error:
                    raise CallRefused(f"RESOURCE_EXHAUSTED: {error}") from error
                except LedgerError as error:
                    raise CallRefused(str(error)) from error
            return await self._run(
                Transaction(
                    channel=channel,
                    txid=caller.txid,
                    chaincode=name,
                    input=spec.input,
                    simulator=simulator,
                    proposal=caller.proposal,
                    creator=caller.creator,
                    callers=callers,
                )
            )

    def _other_channel(self, name: str, creator: bytes) -> Channel:
        """A channel on which the creator may run chaincode, as the endorser would ask."""
        channel = self._channels.get(name)
        if channel is None:
            raise CallRefused(
                f"channel {quoted(name)} not found: this peer has "
                f"{', '.join(sorted(self._channels))}"
            )
        try:
            channel.require(WRITERS, channel.identify(creator))
        except (IdentityError, PolicyNotSatisfied) as error:
            raise CallRefused(f"access denied: channel [{name}]: {error}") from error
        return channel


def _called(name: str) -> tuple[str, str]:
    """Chaincode and channel of `chaincode[:version][/channel]`."""
    chaincode, slash, channel = name.rpartition("/")
    if not slash:
        chaincode, channel = name, ""
    return chaincode.partition(":")[0], channel
