"""The peer's side of one chaincode stream: its states, and the transactions that run over it.

    created --REGISTER, answered by REGISTERED and READY--> ready --the stream's end--> ended

Follows core/chaincode/handler.go of Fabric 1.0.6 and 2.5. What a message may do depends on the
state; one that the state does not allow ends the stream, never anything else. Messages are handled
inside the callback that brought them: no task, no lock, but for the few requests that take time.
"""

from __future__ import annotations

import asyncio
import enum
from datetime import UTC, datetime

import grpc
from google.protobuf.message import DecodeError

from chaincode_support.chaincode import metrics
from chaincode_support.chaincode.answers import Answers
from chaincode_support.chaincode.errors import (
    DuplicateChaincode,
    ExecuteTimeout,
    MessageTooLarge,
    StreamTerminated,
    TooManyReplicas,
)
from chaincode_support.chaincode.executor import Transaction
from chaincode_support.chaincode.keepalive import Keepalive
from chaincode_support.chaincode.message_types import name_of
from chaincode_support.chaincode.registration import (
    Expected,
    check_is_named,
    is_chaincode,
    read_registration,
)
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.settings import StreamSettings
from chaincode_support.chaincode.shim_requests import REQUESTS
from chaincode_support.chaincode.tally import Tally
from chaincode_support.chaincode.transaction_contexts import (
    Invoke,
    TransactionContext,
    TransactionContexts,
)
from selvedge_common.comm import MessageStream, StatusError
from selvedge_common.logs import get_logger
from selvedge_protos.peer.chaincode_pb2 import ChaincodeAdditionalParams
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage

log = get_logger("chaincode")

_T = ChaincodeMessage
# From the chaincode these mean nothing once it is ready, and Fabric has always let them pass.
_IGNORED = frozenset((_T.INIT, _T.TRANSACTION, _T.RESPONSE, _T.KEEPALIVE))


class State(enum.Enum):
    """How far a stream has come."""

    CREATED = "created"
    READY = "ready"
    ENDED = "ended"


class ChaincodeStream:
    """One stream, from its first message to its end: of a chaincode that dialled in, or that the
    peer dialled."""

    simulates = True
    callable_by_chaincode = True

    def __init__(
        self,
        stream: MessageStream,
        registry: Registry,
        settings: StreamSettings,
        invoke: Invoke,
        expected: Expected | None = None,
    ) -> None:
        """`invoke`: how a transaction calls another chaincode; `expected`: who was dialled."""
        self._stream = stream
        self._registry = registry
        self._settings = settings
        self._expected = expected
        self._keepalive = Keepalive(settings.keepalive, self._send_keepalive)
        self.transactions = TransactionContexts(settings, invoke, stream.max_message_bytes)
        self._answers: Answers  # from REGISTER on
        # Whoever was dialled proved its name by its address and its server's certificate.
        self.certified = (
            expected is None and settings.check_certificate_name and not self.is_anonymous
        )
        self.tally = Tally()
        self.state = State.CREATED
        self.since = datetime.now(UTC)
        self.draining = False
        self.responsive = True
        self._heard = 0
        self.registered_name = ""
        self.name = ""
        self.version = ""

    @property
    def peer(self) -> str:
        """The chaincode's address, as gRPC gives it."""
        return self._stream.peer

    @property
    def is_anonymous(self) -> bool:
        """Whether it showed no certificate where others do."""
        settings = self._settings
        return (
            settings.check_certificate_name
            and settings.certificate_optional
            and "x509_pem_cert" not in self._stream.auth_context()
        )

    @property
    def dialled(self) -> bool:
        """Whether the peer dialled the chaincode."""
        return self._expected is not None

    @property
    def client(self) -> tuple[str, ...]:
        """Who dialled, by the names in its certificate; empty without one."""
        return (*self._common_name(), *self._certificate_names())

    @property
    def available(self) -> bool:
        """Whether it can be given a transaction."""
        # The transport says `closed` a little later than this stream ends.
        return self.state is State.READY and not self.draining and not self._stream.closed

    @property
    def running(self) -> int:
        """How many transactions it runs."""
        return len(self.transactions)

    @property
    def is_stranger(self) -> bool:
        """Whether it showed a certificate by which it will be refused, whatever it registers as."""
        return self.certified and not is_chaincode(self._certificate_names())

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
            self.note_refusal(refusal)
            raise
        except asyncio.CancelledError:
            cause = self._cause_of_end()
            raise
        finally:
            registration.cancel()
            self._end(cause)

    def _cause_of_end(self) -> str:
        """Why the transport ended the stream."""
        if self.draining and not self.running:
            return "the peer drained it"
        if self._stream.status is None:
            return "its connection was lost: the process ended, or the network failed; see its log"
        refusal = StatusError(*self._stream.status)
        self.note_refusal(refusal)
        return f"the peer ended its stream: {refusal.details}"

    async def execute(self, transaction: Transaction) -> ChaincodeMessage:
        """Run a transaction: its COMPLETED or ERROR as the chaincode sent it.

        However it ends (also by cancellation), the transaction's queries are closed and its txid
        is unknown to the stream afterwards. Raises ExecuteTimeout, StreamTerminated,
        TransactionRunning, TooManyTransactions, MessageTooLarge.
        """
        if not self.available:
            raise StreamTerminated(
                f"chaincode {self.name} is going away: its stream has just ended; try again"
            )
        context = self.transactions.create(transaction)
        metrics.transactions.inc()
        timer = asyncio.get_running_loop().call_later(
            self._settings.execute_timeout, self._on_timeout, context
        )
        heard = self._heard
        try:
            self._send_transaction(transaction)
            return await context.outcome
        except asyncio.CancelledError:
            # Whoever waited gave up first: a client with a deadline, or a chaincode that called.
            self.responsive = self._heard != heard
            raise
        finally:
            timer.cancel()
            self.transactions.remove(context)
            metrics.transactions.dec()
            self._end_if_drained()

    def _on_timeout(self, context: TransactionContext) -> None:
        if context.outcome.done():
            return
        waits = ""
        if context.request is not None:
            waits = f", and was waiting for {context.waits_for}"
        else:
            self.responsive = False
        metrics.execute_timeouts.labels(self.name).inc()
        context.fail(
            ExecuteTimeout(
                f"timeout expired while executing transaction {context.transaction.txid}: "
                f"chaincode {self.registered_name} did not answer within chaincode.executetimeout "
                f"({self._settings.execute_timeout:g} s){waits}; look at its log, do less in one "
                "transaction, or allow more time"
            )
        )

    def drain(self) -> None:
        """Take no more transactions, and end the stream once those that run are done."""
        self.draining = True
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self.draining and not self.running:
            self._stream.close()

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
        self._heard += 1
        self.responsive = True
        if self.state is State.READY:
            self._on_ready_message(message)
        elif self.state is State.CREATED and message.type == _T.REGISTER:
            self._register(message)
        else:
            raise self._refusal(message)

    def _on_ready_message(self, message: ChaincodeMessage) -> None:
        request = REQUESTS.get(message.type)
        if request is not None:
            self._answers.give(request, message)
        elif message.type in (_T.COMPLETED, _T.ERROR):
            context = self.transactions.get(message.channel_id, message.txid)
            if context is not None:
                context.complete(message)
        elif message.type not in _IGNORED:
            raise self._refusal(message)

    def _register(self, message: ChaincodeMessage) -> None:
        registration = read_registration(message.payload, self._expected)
        self.registered_name = registration.registered
        self.name, self.version = registration.name, registration.version
        if self.certified:
            check_is_named(self.name, self._certificate_names(), self._common_name())
        self._answers = Answers(
            self.name,
            self.transactions,
            self._stream.send,
            self._stream.max_message_bytes,
        )
        try:
            self._registry.register(self)
        except DuplicateChaincode as error:
            raise StatusError(grpc.StatusCode.ALREADY_EXISTS, str(error)) from error
        except TooManyReplicas as error:
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
        self._send(ChaincodeMessage(type=_T.REGISTERED))
        self._send(ChaincodeMessage(type=_T.READY, payload=self._offer()))
        self.state = State.READY
        self._keepalive.start()
        self._registry.ready(self)
        log.info("chaincode ready", chaincode=self.registered_name, peer=self.peer)

    def _offer(self) -> bytes:
        """What shims of 3.1 use if it is offered; others ignore it."""
        settings = self._settings
        return ChaincodeAdditionalParams(
            use_write_batch=settings.max_write_batch > 0,
            max_size_write_batch=settings.max_write_batch,
            use_get_multiple_keys=settings.max_multiple_keys > 0,
            max_size_get_multiple_keys=settings.max_multiple_keys,
        ).SerializeToString()

    def _common_name(self) -> list[str]:
        names = self._stream.auth_context().get("x509_common_name", ())
        return [name.decode(errors="replace") for name in names]

    def _certificate_names(self) -> list[str]:
        names = self._stream.auth_context().get("x509_subject_alternative_name", ())
        return [name.decode(errors="replace") for name in names]

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
            f"[{message.txid[:8]}]cannot handle message ({name_of(message.type)}) with payload "
            f"size ({len(message.payload)}) while in state: {self.state.value}; {remedy}",
        )

    def note_refusal(self, refusal: StatusError) -> None:
        """Count and log that the peer ended it, or did not let it begin."""
        metrics.refusals.labels(refusal.code.name).inc()
        log.warning(
            "chaincode stream refused",
            chaincode=self.registered_name,
            peer=self.peer,
            code=refusal.code.name,
            reason=refusal.details,
        )
        # Strangers cannot fill it: names become known when they register.
        if self._registry.known(self.name):
            self._registry.tally(self.name).note(refusal.details)

    def _give_up_waiting(self) -> None:
        if self.state is State.CREATED:
            self._stream.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "no REGISTER came within chaincode.registerTimeout "
                f"({self._settings.register_timeout:g} s)",
            )

    def _end(self, cause: str) -> None:
        self._keepalive.stop()
        if self.state is State.READY:
            log.info("chaincode gone", chaincode=self.registered_name, peer=self.peer, cause=cause)
        self._registry.deregister(self)
        self.state = State.ENDED
        self.transactions.fail_all(
            StreamTerminated(
                f"chaincode stream terminated: chaincode {self.registered_name} left the "
                f"transaction unfinished, as {cause}"
            )
        )
