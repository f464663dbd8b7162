"""The answers to what running transactions ask, on one chaincode stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from chaincode_support.chaincode import metrics
from chaincode_support.chaincode.errors import RequestError
from chaincode_support.chaincode.message_types import name_of
from chaincode_support.chaincode.request_metrics import RequestMetrics, shim_requests
from chaincode_support.chaincode.shim_requests import ShimRequest
from chaincode_support.chaincode.transaction_contexts import (
    TransactionContext,
    TransactionContexts,
)
from chaincode_support.ledger import LedgerError, SimulationTooLarge
from selvedge_common.logs import get_logger
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage

log = get_logger("chaincode")

_T = ChaincodeMessage


class Answers:
    """Answers each request with one RESPONSE or ERROR."""

    def __init__(
        self,
        chaincode: str,
        transactions: TransactionContexts,
        send: Callable[[bytes], None],
        max_bytes: int,
    ) -> None:
        """`chaincode`: its name; `max_bytes`: the largest message that can be sent."""
        self._chaincode = chaincode
        self._transactions = transactions
        self._send = send
        self._max_bytes = max_bytes
        self._metrics: dict[tuple[int, str], RequestMetrics] = {}

    def give(self, request: ShimRequest, message: ChaincodeMessage) -> None:
        """Answer a request: at once, or for one that takes time as soon as it is done."""
        started = time.perf_counter()
        context = self._transactions.get(message.channel_id, message.txid)
        measured = self._measured(message.type, context.transaction.channel if context else "")
        measured.received += 1
        if context is None or context.outcome.done():
            reason = f"[{message.txid[:8]}]No ledger context for {request.subject}. Sending ERROR"
            self._send(_reply(message, _T.ERROR, reason.encode()))
            measured.completed(False, time.perf_counter() - started)
            return
        try:
            if context.request is not None:
                raise RequestError(
                    "the transaction's request before this one has not been answered yet; await "
                    "each answer before asking for more"
                )
            answer = request.handle(context, message)
            if isinstance(answer, bytes):
                self._respond(message, answer)
                measured.completed(True, time.perf_counter() - started)
                return
        except Exception as error:
            self._refuse(request, context, message, self._reason(error, message))
            measured.completed(False, time.perf_counter() - started)
            return
        context.request = asyncio.get_running_loop().create_task(
            self._give_later(request, context, message, answer, started)
        )

    async def _give_later(
        self,
        request: ShimRequest,
        context: TransactionContext,
        message: ChaincodeMessage,
        answer: Coroutine[Any, Any, bytes],
        started: float,
    ) -> None:
        measured = self._measured(message.type, context.transaction.channel)
        try:
            payload = await answer
            context.request = None
            self._respond(message, payload)
            measured.completed(True, time.perf_counter() - started)
        except Exception as error:
            context.request = None
            self._refuse(request, context, message, self._reason(error, message))
            measured.completed(False, time.perf_counter() - started)

    def _respond(self, message: ChaincodeMessage, payload: bytes) -> None:
        reply = _reply(message, _T.RESPONSE, payload)
        if len(reply) > self._max_bytes:
            metrics.limit_refusals.labels("messageBytes").inc()
            raise RequestError(
                f"RESOURCE_EXHAUSTED: the answer has {len(reply)} bytes, more than the "
                f"{self._max_bytes} of peer.maxSendMsgSize; keep less under one key"
            )
        self._send(reply)

    def _refuse(
        self,
        request: ShimRequest,
        context: TransactionContext,
        message: ChaincodeMessage,
        reason: str,
    ) -> None:
        text = f"{name_of(message.type)} failed: transaction ID: {message.txid}: {reason}".encode()
        self._send(_reply(message, _T.ERROR, text))
        if request.writes:
            context.complete(ChaincodeMessage(type=_T.ERROR, payload=text, txid=message.txid))

    def _reason(self, error: Exception, message: ChaincodeMessage) -> str:
        if isinstance(error, SimulationTooLarge):
            return f"RESOURCE_EXHAUSTED: {error}"
        if isinstance(error, RequestError | LedgerError):
            return str(error)
        log.error(
            "shim request failed",
            type=name_of(message.type),
            txid=message.txid,
            chaincode=self._chaincode,
            exc_info=error,
        )
        return "the ledger could not do it; the peer's log says why"

    def _measured(self, kind: int, channel: str) -> RequestMetrics:
        measured = self._metrics.get((kind, channel))
        if measured is None:
            measured = shim_requests.of(name_of(kind), channel, self._chaincode)
            self._metrics[(kind, channel)] = measured
        return measured


def _reply(
    message: ChaincodeMessage, kind: ChaincodeMessage.Type.ValueType, payload: bytes
) -> bytes:
    return ChaincodeMessage(
        type=kind, payload=payload, txid=message.txid, channel_id=message.channel_id
    ).SerializeToString()
