"""A program that has events of its own, at a hub that is asked to stop."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

import grpc
import grpc.aio

from bench.drill.account import Untrue
from bench.drill.consumers import answers, registration
from bench.process import PATIENCE
from selvedge_client import User
from selvedge_common import comm
from selvedge_protos.peer import chaincode_event_pb2, events_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2, event_hub_pb2_grpc

NAME = "drill"
"""Of the producer, in its certificate."""
_CHANNEL = "of-the-drill"
_PAUSE = 0.002
"""Seconds from one event to the next."""


class Publisher:
    """One that publishes on a stream, which it never half-closes, and listens on another.

    From where it is entered its events are told; where it is left the hub has to have stopped, and
    to have said what became of all of them. Raises Untrue if it is not so.

    Args:
        user: who listens, with the TLS certificate of a producer.
        address: of the hub.
        busy: whether it publishes on and on; otherwise one event, and then it has no more to say.
    """

    def __init__(self, user: User, address: str, *, busy: bool) -> None:
        self._user = user
        self._busy = busy
        self._channel = comm.channel(
            address, root_cas=user.tls_root, certificate=user.tls_certificate, key=user.tls_key
        )
        # The stubs of grpc.aio do not know requests that are written later.
        publish: Any = event_hub_pb2_grpc.ProducerStub(self._channel).Publish
        self._call = publish()
        self._registered = asyncio.Event()
        self._told = asyncio.Event()
        self._heard: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(part) for part in (self._listen(), self._publish())]
        try:
            async with asyncio.timeout(PATIENCE):
                await self._told.wait()
        except TimeoutError:
            await self._end()
            raise Untrue("what a producer published was not told") from None

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                async with asyncio.timeout(PATIENCE):
                    await self._check()
        finally:
            await self._end()

    async def _listen(self) -> None:
        interest = events_pb2.Interest(event_type=events_pb2.CHAINCODE, chainID=_CHANNEL)
        interest.chaincode_reg_info.chaincode_id = NAME
        request = registration(self._user, [interest])
        # The hub that stops ends it with an error.
        with suppress(grpc.aio.AioRpcError):
            async with aclosing(answers(self._channel, "/protos.Events/Chat", request)) as told:
                async for answer in told:
                    event = events_pb2.Event.FromString(answer)
                    if event.HasField("register"):
                        self._registered.set()
                    else:
                        self._heard.append(int(event.chaincode_event.event_name))
                        self._told.set()

    async def _publish(self) -> None:
        await self._registered.wait()
        number = 0
        # How the hub ends it, the summary tells.
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            while self._busy or not number:
                event = chaincode_event_pb2.ChaincodeEvent(event_name=str(number))
                await self._call.write(event_hub_pb2.PublishRequest(channel=_CHANNEL, event=event))
                number += 1
                await asyncio.sleep(_PAUSE)

    async def _check(self) -> None:
        try:
            summary = await self._call
        except grpc.aio.AioRpcError as error:
            said = f"{error.code().name}: {error.details()}"
            raise Untrue(f"a producer's stream ended without a summary: {said}") from error
        await asyncio.gather(*self._tasks)
        if len(self._heard) != summary.accepted or self._heard != sorted({*self._heard}):
            raise Untrue(f"of {summary.accepted} events of a producer, told were: {self._heard}")

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._call.cancel()
        await self._channel.close(None)
