"""The service that gRPC's interop clients call, on the face of grpc.aio's servicers."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc

_PROTO = "tests/conformance/interop.proto"
# Made from the .proto at import: nothing generated lies in the tree.
messages: Any
services: Any
messages, services = grpc.protos_and_services(_PROTO)

# What the clients send in these is to come back, in the initial and in the trailing metadata.
_ECHO_INITIAL = "x-grpc-test-echo-initial"
_ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
_LOAD_REPORT = "endpoint-load-metrics-bin"
_SERVER_ID = "selvedge"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class InteropService(services.TestServiceServicer):  # type: ignore[misc]  # made at run time
    """What the interop clients' cases ask of a server."""

    async def EmptyCall(self, request: Any, context: Any) -> Any:
        return messages.Empty()

    async def UnaryCall(self, request: Any, context: Any) -> Any:
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        await _echo(context)
        await _end(request.response_status, context)
        if request.HasField("orca_per_query_report"):
            _report(request.orca_per_query_report, context)
        response = messages.SimpleResponse(payload=_payload(request.response_size))
        if request.fill_server_id:
            response.server_id = _SERVER_ID
        return response

    async def StreamingOutputCall(self, request: Any, context: Any) -> AsyncIterator[Any]:
        _compress(request.response_parameters, context)
        async for response in _responses(request, context):
            yield response

    async def StreamingInputCall(self, requests: AsyncIterator[Any], context: Any) -> Any:
        size = sum([len(request.payload.body) async for request in requests])
        return messages.StreamingInputCallResponse(aggregated_payload_size=size)

    async def FullDuplexCall(
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        await _echo(context)
        async for request in requests:
            await _end(request.response_status, context)
            async for response in _responses(request, context):
                yield response

    async def HalfDuplexCall(
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        for request in [request async for request in requests]:
            async for response in _responses(request, context):
                yield response


def add_interop_service(server: Any) -> None:
    """Serve it, registered as generated code does."""
    services.add_TestServiceServicer_to_server(InteropService(), server)


def _payload(size: int) -> Any:
    return messages.Payload(body=bytes(size))


def _compress(parameters: Iterable[Any], context: Any) -> None:
    """Compress the call's messages if one is to be: the encoding is told before the first."""
    if any(parameter.compressed.value for parameter in parameters):
        context.set_compression(grpc.Compression.Gzip)


async def _responses(request: Any, context: Any) -> AsyncIterator[Any]:
    for parameter in request.response_parameters:
        if parameter.interval_us:
            await asyncio.sleep(parameter.interval_us / 1e6)
        if parameter.HasField("compressed") and not parameter.compressed.value:
            context.disable_next_message_compression()
        yield messages.StreamingOutputCallResponse(payload=_payload(parameter.size))


async def _echo(context: Any) -> None:
    sent = dict(context.invocation_metadata())
    if _ECHO_INITIAL in sent:
        await context.send_initial_metadata([(_ECHO_INITIAL, sent[_ECHO_INITIAL])])
    if _ECHO_TRAILING in sent:
        context.set_trailing_metadata([(_ECHO_TRAILING, sent[_ECHO_TRAILING])])


def _report(load: Any, context: Any) -> None:
    report = messages.OrcaLoadReport(
        cpu_utilization=load.cpu_utilization,
        mem_utilization=load.memory_utilization,
        request_cost=load.request_cost,
        utilization=load.utilization,
    )
    context.set_trailing_metadata([(_LOAD_REPORT, report.SerializeToString())])


async def _end(status: Any, context: Any) -> None:
    if status.code:
        await context.abort(_CODES[status.code], status.message)
