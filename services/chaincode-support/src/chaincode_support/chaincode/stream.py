"""The peer's side of one chaincode stream: its states, and the transactions that run over it.

    created --REGISTER--> established --READY--> ready --the stream's end--> ended

Follows core/chaincode/handler.go of Fabric 1.0.6 and 2.5. What a message may do depends on the
state; one that the state does not allow ends the stream, never anything else. Every message is
handled to its end inside the callback that brought it: no task, no lock, and no way for a
chaincode to have two requests of one transaction under way.
"""

from __future__ import annotations

import asyncio
import enum
import re
import time
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from chaincode_support.chaincode import metrics
from chaincode_support.chaincode.errors import (
    DuplicateChaincode,
    ExecuteTimeout,
    MessageTooLarge,
    RequestError,
    StreamTerminated,
)
from chaincode_support.chaincode.keepalive import Keepalive
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.shim_requests import REQUESTS, ShimRequest
from chaincode_support.chaincode.transaction_contexts import (
    Simulator,
    TransactionContexts,
)
from selvedge_common.comm import MessageStream, StatusError
from selvedge_common.logs import get_logger
from selvedge_common.quoting import printable
from selvedge_protos.peer.chaincode_pb2 import ChaincodeID, ChaincodeInput
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_pb2 import SignedProposal

log = get_logger("chaincode")

# A chaincode's name as Fabric's lifecycle has it, or a package's label; what may follow the colon
# is a version or a package's hash.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*(:[A-Za-z0-9_.+-]+)?")
_MAX_NAME = 256
# What a chaincode that registers without a version is endorsed as: a transaction must name one.
_DEFAULT_VERSION = "1.0"

_CHAINCODE_URI = "selvedge://chaincode/"

_T = ChaincodeMessage
# From the chaincode these mean nothing once it is ready, and Fabric has always let them pass.
_IGNORED = frozenset((_T.INIT, _T.TRANSACTION, _T.RESPONSE, _T.KEEPALIVE))


class State(enum.Enum):
    """How far a stream has come."""

    CREATED = "created"
    ESTABLISHED = "established"
    READY = "ready"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What holds for every chaincode stream; times in seconds, `keepalive` 0 for none.

    `max_pending` is how many bytes may wait to be read when a transaction is sent: less than what
    ends the stream, so that answers to running transactions still have room.
    """

    keepalive: float
    register_timeout: float
    execute_timeout: float
    max_transactions: int
    max_queries: int
    max_pending: int
    require_certificate_name: bool


@dataclass(frozen=True, slots=True)
class Transaction:
    """One call of a chaincode. The simulator stays the caller's: it opens it and closes it."""

    channel: str
    txid: str
    chaincode: str
    input: ChaincodeInput
    simulator: Simulator
    proposal: SignedProposal | None = None


class ChaincodeStream:
    """One stream, from the chaincode's dialling in to its end."""

    def __init__(
        self,
        stream: MessageStream,
        registry: Registry[ChaincodeStream],
        settings: StreamSettings,
    ) -> None:
        self._stream = stream
        self._registry = registry
        self._settings = settings
        self._keepalive = Keepalive(settings.keepalive, self._send_keepalive)
        self._metrics: dict[tuple[int, str], metrics.RequestMetrics] = {}
        self.transactions = TransactionContexts(settings.max_transactions, settings.max_queries)
        self.state = State.CREATED
        self.registered_name = ""
        self.name = ""
        self.version = ""

    @property
    def peer(self) -> str:
        """The chaincode's address, as gRPC gives it."""
        return self._stream.peer

    def check_is_a_chaincode(self) -> None:
        """Return when the client's certificate is any chaincode's, or need not be.

        Raises StatusError PERMISSION_DENIED.
        """
        if self._settings.require_certificate_name and not any(
            name.startswith(_CHAINCODE_URI) for name in self._certificate_names()
        ):
            raise StatusError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"the client certificate is no chaincode's: it must hold a URI {_CHAINCODE_URI}NAME"
                "; issue one with `selvedge ca issue --chaincode NAME`",
            )

    async def run(self) -> None:
        """Serve the stream until it ends; returns when the chaincode closed its side.

        Raises StatusError with the reason when the chaincode did what it must not.
        """
        registration = asyncio.get_running_loop().call_later(
            self._settings.register_timeout, self._give_up_waiting
        )
        cause = "the chaincode closed its stream"
        try:
            await self._stream.receive(self._on_message)
        except StatusError as refusal:
            cause = f"the peer ended its stream: {refusal.details}"
            metrics.refusals.labels(refusal.code.name).inc()
            log.warning(
                "chaincode stream refused",
                chaincode=self.registered_name,
                peer=self.peer,
                code=refusal.code.name,
                reason=refusal.details,
            )
            raise
        except asyncio.CancelledError:
            cause = "its connection was lost, or cut because too much waited to be read"
            raise
        finally:
            registration.cancel()
            self._end(cause)

    async def execute(self, transaction: Transaction) -> ChaincodeMessage:
        """Run a transaction: its COMPLETED or ERROR as the chaincode sent it.

        However it ends (also by cancellation), the transaction's queries are closed and its txid
        is unknown to the stream afterwards. Raises ExecuteTimeout, StreamTerminated,
        TransactionRunning, TooManyTransactions, MessageTooLarge.
        """
        # The transport says `closed` a little later than this stream ends: a caller that was woken
        # in between would wait for an answer that nobody gives.
        if self.state is State.ENDED or self._stream.closed:
            raise StreamTerminated(
                f"chaincode {self.name} is going away: its stream has just ended; try again"
            )
        context = self.transactions.create(
            transaction.channel, transaction.txid, transaction.chaincode, transaction.simulator
        )
        metrics.transactions.inc()
        try:
            self._send_transaction(transaction)
            async with asyncio.timeout(self._settings.execute_timeout):
                return await context.outcome
        except TimeoutError:
            metrics.execute_timeouts.labels(self.registered_name).inc()
            raise ExecuteTimeout(
                f"timeout expired while executing transaction {transaction.txid}: chaincode "
                f"{self.registered_name} did not answer within chaincode.executetimeout "
                f"({self._settings.execute_timeout:g} s)"
            ) from None
        finally:
            self.transactions.remove(context)
            metrics.transactions.dec()

    def _send_transaction(self, transaction: Transaction) -> None:
        """Send it, unless sending would end the stream for all. Raises MessageTooLarge."""
        data = ChaincodeMessage(
            type=_T.INIT if transaction.input.is_init else _T.TRANSACTION,
            payload=transaction.input.SerializeToString(),
            txid=transaction.txid,
            channel_id=transaction.channel,
            proposal=transaction.proposal,
        ).SerializeToString()
        if len(data) > self._stream.max_message_bytes:
            metrics.limit_refusals.labels("messageBytes").inc()
            raise MessageTooLarge(
                f"RESOURCE_EXHAUSTED: with its proposal the transaction has {len(data)} bytes for "
                f"chaincode {self.name}, more than the {self._stream.max_message_bytes} of "
                "peer.maxSendMsgSize: pass less in its arguments, which travel twice"
            )
        if self._stream.pending_bytes + len(data) > self._settings.max_pending:
            metrics.limit_refusals.labels("pendingBytes").inc()
            raise MessageTooLarge(
                f"RESOURCE_EXHAUSTED: chaincode {self.name} has {self._stream.pending_bytes} bytes "
                f"to read, and the {len(data)} of this transaction would make more than the "
                f"{self._settings.max_pending} that chaincode.limits.pendingBytes has for "
                "transactions; try again later"
            )
        self._stream.send(data)

    def _on_message(self, data: bytes) -> None:
        try:
            message = ChaincodeMessage.FromString(data)
        except DecodeError as error:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"what was sent ({len(data)} bytes) is not a protos.ChaincodeMessage: {error}",
            ) from error
        self._keepalive.touch()
        if self.state is State.READY:
            self._on_ready_message(message)
        elif self.state is State.CREATED and message.type == _T.REGISTER:
            self._register(message)
        else:
            raise self._refusal(message)

    def _on_ready_message(self, message: ChaincodeMessage) -> None:
        request = REQUESTS.get(message.type)
        if request is not None:
            self._answer(request, message)
        elif message.type in (_T.COMPLETED, _T.ERROR):
            context = self.transactions.get(message.channel_id, message.txid)
            if context is not None:
                context.complete(message)
        elif message.type not in _IGNORED:
            raise self._refusal(message)

    def _register(self, message: ChaincodeMessage) -> None:
        try:
            name = ChaincodeID.FromString(message.payload).name
        except DecodeError as error:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"the payload of REGISTER ({len(message.payload)} bytes) is not a "
                f"protos.ChaincodeID: {error}",
            ) from error
        if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"REGISTER names the chaincode {name[:_MAX_NAME]!r}; a name is a letter or digit, "
                "then letters, digits and _ . + -, then optionally a colon and a version "
                f"(mycc:1.0), in at most {_MAX_NAME} characters: set CORE_CHAINCODE_ID_NAME to one",
            )
        self.registered_name = name
        self.name, _, version = name.partition(":")
        self.version = version or _DEFAULT_VERSION
        self._check_certificate()
        try:
            self._registry.register(self)
        except DuplicateChaincode as error:
            raise StatusError(grpc.StatusCode.ALREADY_EXISTS, str(error)) from error
        self._send(ChaincodeMessage(type=_T.REGISTERED))
        self.state = State.ESTABLISHED
        self._send(ChaincodeMessage(type=_T.READY))
        self.state = State.READY
        self._keepalive.start()
        self._registry.ready(self)
        log.info("chaincode ready", chaincode=self.registered_name, peer=self.peer)

    def _check_certificate(self) -> None:
        """On mutual TLS, a chaincode is who its certificate says."""
        if not self._settings.require_certificate_name:
            return
        wanted = _CHAINCODE_URI + self.name
        presented = self._certificate_names()
        if wanted in presented:
            return
        chaincodes = (name for name in presented if name.startswith(_CHAINCODE_URI))
        shown = printable(", ".join(chaincodes))
        raise StatusError(
            grpc.StatusCode.PERMISSION_DENIED,
            f"REGISTER names chaincode {self.name}, but the client certificate is for {shown}: it "
            f"must hold the URI {wanted}; issue one with `selvedge ca issue --chaincode "
            f"{self.name}`",
        )

    def _certificate_names(self) -> list[str]:
        names = self._stream.auth_context().get("x509_subject_alternative_name", ())
        return [name.decode(errors="replace") for name in names]

    def _answer(self, request: ShimRequest, message: ChaincodeMessage) -> None:
        started = time.perf_counter()
        context = self.transactions.get(message.channel_id, message.txid)
        measured = self._measured(message.type, context.channel if context else "")
        measured.received.inc()
        if context is None or context.outcome.done():
            context = None
            reason = f"[{message.txid[:8]}]No ledger context for {request.subject}. Sending ERROR"
        else:
            try:
                payload = request.handle(context, message)
            except RequestError as error:
                reason = str(error)
            except Exception:
                log.exception(
                    "shim request failed",
                    type=_type_name(message.type),
                    txid=message.txid,
                    chaincode=self.registered_name,
                )
                reason = "the ledger could not do it; the peer's log says why"
            else:
                reply = _reply(message, _T.RESPONSE, payload)
                if len(reply) <= self._stream.max_message_bytes:
                    self._stream.send(reply)
                    measured.completed(True, time.perf_counter() - started)
                    return
                metrics.limit_refusals.labels("messageBytes").inc()
                reason = (
                    f"RESOURCE_EXHAUSTED: the answer has {len(reply)} bytes, more than the "
                    f"{self._stream.max_message_bytes} of peer.maxSendMsgSize; keep less under "
                    "one key"
                )
            reason = f"{_type_name(message.type)} failed: transaction ID: {message.txid}: {reason}"
        self._stream.send(_reply(message, _T.ERROR, reason.encode()))
        measured.completed(False, time.perf_counter() - started)
        if context is not None and request.writes:
            context.complete(
                ChaincodeMessage(type=_T.ERROR, payload=reason.encode(), txid=message.txid)
            )

    def _measured(self, kind: int, channel: str) -> metrics.RequestMetrics:
        measured = self._metrics.get((kind, channel))
        if measured is None:
            measured = metrics.RequestMetrics.of(_type_name(kind), channel, self.registered_name)
            self._metrics[(kind, channel)] = measured
        return measured

    def _send(self, message: ChaincodeMessage) -> None:
        self._stream.send(message.SerializeToString())

    def _send_keepalive(self) -> None:
        self._send(ChaincodeMessage(type=_T.KEEPALIVE))

    def _refusal(self, message: ChaincodeMessage) -> StatusError:
        remedy = (
            "the first message must be REGISTER"
            if self.state is State.CREATED
            else "a ready chaincode sends requests of a running transaction, COMPLETED or ERROR"
        )
        return StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"[{message.txid[:8]}]cannot handle message ({_type_name(message.type)}) with payload "
            f"size ({len(message.payload)}) while in state: {self.state.value}; {remedy}",
        )

    def _give_up_waiting(self) -> None:
        if self.state is State.CREATED:
            metrics.refusals.labels(grpc.StatusCode.DEADLINE_EXCEEDED.name).inc()
            self._stream.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "no REGISTER came within chaincode.registerTimeout "
                f"({self._settings.register_timeout:g} s)",
            )

    def _end(self, cause: str) -> None:
        self._keepalive.stop()
        if self.state is State.READY:
            self._registry.deregister(self)
            log.info("chaincode gone", chaincode=self.registered_name, peer=self.peer, cause=cause)
        self.state = State.ENDED
        self.transactions.fail_all(
            StreamTerminated(
                f"chaincode stream terminated: chaincode {self.registered_name} left the "
                f"transaction unfinished, as {cause}"
            )
        )


def _reply(
    message: ChaincodeMessage, kind: ChaincodeMessage.Type.ValueType, payload: bytes
) -> bytes:
    return ChaincodeMessage(
        type=kind, payload=payload, txid=message.txid, channel_id=message.channel_id
    ).SerializeToString()


def _type_name(kind: int) -> str:
    """The type's name, also of a number that no release knows."""
    descriptor = ChaincodeMessage.Type.DESCRIPTOR.values_by_number.get(kind)
    return descriptor.name if descriptor else f"unknown type {kind}"
