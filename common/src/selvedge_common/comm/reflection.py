"""Server reflection: v1alpha by grpcio-reflection, v1 by the same answers.

v1 differs from v1alpha in its package name only, message for message and number for number, so
a v1 answer is the v1alpha answer's bytes read as v1. A test compares the two descriptors.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpc_reflection.v1alpha import reflection_pb2 as v1alpha_pb2
from grpc_reflection.v1alpha import reflection_pb2_grpc as v1alpha_grpc
from grpc_reflection.v1alpha.reflection import aio  # type: ignore[attr-defined]  # not in stubs

from selvedge_protos.grpc.reflection.v1 import reflection_pb2 as v1_pb2
from selvedge_protos.grpc.reflection.v1 import reflection_pb2_grpc as v1_grpc

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name["ServerReflection"].full_name
    for module in (v1alpha_pb2, v1_pb2)
)


class _ReflectionV1(v1_grpc.ServerReflectionServicer):
    def __init__(self, answers: Any) -> None:
        self._answers = answers

    async def ServerReflectionInfo(  # noqa: N802
        self, request_iterator: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        async def questions() -> AsyncIterator[Any]:
            async for request in request_iterator:
                yield v1alpha_pb2.ServerReflectionRequest.FromString(request.SerializeToString())

        async for response in self._answers.ServerReflectionInfo(questions(), context):
            yield v1_pb2.ServerReflectionResponse.FromString(response.SerializeToString())


def add_reflection(services: Iterable[str], server: Any) -> None:
    """Serve both versions, listing `services` and describing the default descriptor pool."""
    answers: Any = aio.ReflectionServicer(services)  # type: ignore[attr-defined]
    v1alpha_grpc.add_ServerReflectionServicer_to_server(answers, server)
    v1_grpc.add_ServerReflectionServicer_to_server(_ReflectionV1(answers), server)
