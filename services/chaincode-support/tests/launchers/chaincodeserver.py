"""A chaincode that serves: the shim's stream on a real gRPC server."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import grpc
import grpc.aio

from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.chaincode_shim_pb2_grpc import (
    ChaincodeServicer,
    add_ChaincodeServicer_to_server,
)
from selvedge_shim import Chaincode, Response, Stub, success
from selvedge_shim.stream import ChaincodeStream


class Counter(Chaincode):
    """Counts its calls in the state; waits before, while it is told to."""

    def __init__(self) -> None:
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.asked = asyncio.Event()

    async def invoke(self, stub: Stub) -> Response:
        self.asked.set()
        await self.may_go.wait()
        count = int(await stub.get_state("count") or b"0") + 1
        await stub.put_state("count", str(count).encode())
        return success(str(count))


class ChaincodeServer(ChaincodeServicer):
    """Serves `protos.Chaincode/Connect`; every peer that dials gets a stream of its own."""

    def __init__(
        self, chaincode_id: str, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self.counter = Counter()
        self.streams = 0
        self._id = chaincode_id
        self._credentials = credentials
        self._server: Any = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    async def start(self) -> None:
        """Serve; on the same port as before, if there was one."""
        self._server = grpc.aio.server()
        add_ChaincodeServicer_to_server(self, self._server)
        address = f"localhost:{self.port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self._credentials)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)

    async def Connect(  # type: ignore[override]  # it may write to the context as well
        self,
        request_iterator: AsyncIterator[ChaincodeMessage],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        self.streams += 1

        async def send(messages: AsyncIterator[ChaincodeMessage]) -> None:
            async for message in messages:
                await context.write(message)

        sending: list[asyncio.Task[None]] = []

        def connect(messages: AsyncIterator[ChaincodeMessage]) -> AsyncIterable[ChaincodeMessage]:
            sending.append(asyncio.create_task(send(messages)))
            return request_iterator

        try:
            await ChaincodeStream(self.counter, self._id, connect).run()
        finally:
            self.streams -= 1
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
