"""Both versions of server reflection, asked by clients of each."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2 as v1alpha_pb2
from grpc_reflection.v1alpha import reflection_pb2_grpc as v1alpha_grpc

from selvedge_common import comm
from selvedge_protos.grpc.reflection.v1 import reflection_pb2 as v1_pb2
from selvedge_protos.grpc.reflection.v1 import reflection_pb2_grpc as v1_grpc

VERSIONS = [
    pytest.param(v1alpha_pb2, v1alpha_grpc, id="v1alpha"),
    pytest.param(v1_pb2, v1_grpc, id="v1"),
]
HEALTH = "grpc.health.v1.Health"


async def _chat(stream: comm.MessageStream) -> None:
    async for message in stream:
        stream.send(message)


def add_chat(server: comm.GRPCServer) -> None:
    server.add_message_stream("/protos.Events/Chat", _chat)


@pytest.mark.parametrize(("messages", "stubs"), VERSIONS)
async def test_reflection_lists_and_describes_every_service(
    messages: Any,
    stubs: Any,
    serve: Callable[..., Awaitable[comm.GRPCServer]],
    connect: Callable[..., Any],
) -> None:
    server = await serve(add_chat)
    request = messages.ServerReflectionRequest
    questions = [
        request(list_services=""),
        request(file_containing_symbol=HEALTH),
        request(file_by_filename="grpc_health/v1/health.proto"),
        request(file_containing_symbol="no.such.Symbol"),
    ]
    call = stubs.ServerReflectionStub(connect(server)).ServerReflectionInfo(iter(questions))
    listed, symbol, file, missing = [answer async for answer in call]
    assert [service.name for service in listed.list_services_response.service] == [
        HEALTH,
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "protos.Events",
    ]
    assert tuple(s.name for s in listed.list_services_response.service) == server.services
    for answer in (symbol, file):
        described = descriptor_pb2.FileDescriptorProto.FromString(
            answer.file_descriptor_response.file_descriptor_proto[0]
        )
        assert described.service[0].name == "Health"
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert missing.original_request.file_containing_symbol == "no.such.Symbol"


def test_both_versions_have_the_same_messages() -> None:
    assert _facts(v1_pb2) == _facts(v1alpha_pb2)


def _facts(module: Any) -> set[tuple[str, int, str, int, bool]]:
    return {
        (name, field.number, field.name, field.type, field.is_repeated)
        for name, message in module.DESCRIPTOR.message_types_by_name.items()
        for field in message.fields
    }
