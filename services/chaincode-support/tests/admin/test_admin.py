"""`protos.Admin` as the peer command of Fabric 1.x calls it, over real gRPC."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from adminrequests import NOW, request
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from testchannel import Organisation

from chaincode_support.admin.admin import Admin, add_admin
from chaincode_support.admin.signed_requests import signed_requests
from selvedge_common import logs
from selvedge_common.comm import GRPCServer, ServerConfig
from selvedge_protos.peer.admin_pb2 import (
    AdminOperation,
    LogLevelRequest,
    LogLevelResponse,
    ServerStatus,
)

METHODS = ("GetStatus", "StartServer", "GetModuleLogLevel", "SetModuleLogLevel", "RevertLogLevels")
ANSWERS: dict[str, type[Message]] = {
    "GetStatus": ServerStatus,
    "StartServer": ServerStatus,
    "GetModuleLogLevel": LogLevelResponse,
    "SetModuleLogLevel": LogLevelResponse,
    "RevertLogLevels": Empty,
}

# Sends marshalled bytes to a method, gives its answer.
Call = Callable[[str, bytes], Awaitable[Any]]


@pytest.fixture(scope="module")
def organisation() -> Organisation:
    return Organisation("Org1MSP")


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    before = logs.get_spec()
    logs.set_spec("info:chaincode=warning")
    yield
    logs.set_spec(before)


@pytest.fixture(params=["native", "grpcio"])
async def call(request: pytest.FixtureRequest, organisation: Organisation) -> AsyncIterator[Call]:
    server = GRPCServer("127.0.0.1:0", ServerConfig(transport=request.param))
    requests = signed_requests(organisation.msp, max_bytes=10_000, now=lambda: NOW)
    add_admin(server, Admin(requests))
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:

        async def send(method: str, data: bytes) -> Any:
            call: Any = channel.unary_unary(
                f"/protos.Admin/{method}",
                request_serializer=bytes,
                response_deserializer=ANSWERS[method].FromString,
            )
            return await call(data, timeout=10)

        yield send
    await server.stop(0)


@pytest.fixture
def ask(call: Call, organisation: Organisation) -> Callable[..., Awaitable[Any]]:
    admin = organisation.issue("admin", "ada")

    async def ask(method: str, module: str = "", level: str = "") -> Any:
        operation = AdminOperation()
        if module:
            operation.logReq.CopyFrom(LogLevelRequest(log_module=module, log_level=level))
        envelope = request(admin, operation.SerializeToString())
        return await call(method, envelope.SerializeToString())

    return ask


async def refusal(answer: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await answer
    return refused.value.code(), refused.value.details() or ""


Ask = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize("method", ["GetStatus", "StartServer"])
async def test_server_that_answers_has_started(ask: Ask, method: str) -> None:
    assert (await ask(method)).status == ServerStatus.STARTED


async def test_level_of_a_module_is_told(ask: Ask) -> None:
    told = await ask("GetModuleLogLevel", "chaincode.stream")
    assert (told.log_module, told.log_level) == ("chaincode.stream", "WARNING")
    assert (await ask("GetModuleLogLevel", "ledger")).log_level == "INFO"


async def test_level_that_is_set_holds_until_levels_are_reverted(ask: Ask) -> None:
    told = await ask("SetModuleLogLevel", "chaincode", "Debug")
    assert (told.log_module, told.log_level) == ("chaincode", "DEBUG")
    assert logs.get_spec() == "chaincode=debug:info"
    assert (await ask("GetModuleLogLevel", "chaincode")).log_level == "DEBUG"

    await ask("RevertLogLevels")
    assert logs.get_spec() == "chaincode=warning:info"


async def test_several_modules_are_set_at_once(ask: Ask) -> None:
    await ask("SetModuleLogLevel", "ledger,comm.tls", "error")
    assert logs.get_spec() == "chaincode=warning:comm.tls=error:ledger=error:info"


@pytest.mark.parametrize(
    ("module", "level", "sentence"),
    [
        ("chaincode", "loud", "has the level 'loud' in 'chaincode=loud'; use one of debug, info"),
        ("chaincode", "", "has the level ''"),
        ("chain code", "debug", "has the logger name 'chain code'"),
    ],
)
async def test_level_that_is_none_changes_nothing(
    ask: Ask, module: str, level: str, sentence: str
) -> None:
    code, said = await refusal(ask("SetModuleLogLevel", module, level))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert sentence in said
    assert logs.get_spec() == "chaincode=warning:info"


@pytest.mark.parametrize("method", ["GetModuleLogLevel", "SetModuleLogLevel"])
async def test_request_without_a_module_is_refused(ask: Ask, method: str) -> None:
    code, sentence = await refusal(ask(method))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "put a LogLevelRequest into its AdminOperation" in sentence


async def test_data_that_is_no_operation_is_refused(call: Call, organisation: Organisation) -> None:
    envelope = request(organisation.issue("admin", "ada"), b"\xff")
    code, sentence = await refusal(call("GetStatus", envelope.SerializeToString()))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "not a marshalled protos.AdminOperation" in sentence


@pytest.mark.parametrize("method", METHODS)
async def test_only_administrators_are_answered(
    call: Call, organisation: Organisation, method: str
) -> None:
    operation = AdminOperation(logReq=LogLevelRequest(log_module="chaincode", log_level="debug"))
    envelope = request(organisation.issue("client", "eve"), operation.SerializeToString())
    code, sentence = await refusal(call(method, envelope.SerializeToString()))
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert "is no administrator of Org1MSP" in sentence
    assert logs.get_spec() == "chaincode=warning:info"


@pytest.mark.parametrize("method", METHODS)
async def test_request_of_release_1_0_is_refused_with_what_to_do(call: Call, method: str) -> None:
    sent: Message = {
        "GetModuleLogLevel": LogLevelRequest(log_module="chaincode"),
        "SetModuleLogLevel": LogLevelRequest(log_module="chaincode", log_level="debug"),
    }.get(method, Empty())
    code, sentence = await refusal(call(method, sent.SerializeToString()))
    assert code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT)
    assert "from release 1.2 on" in sentence
    assert logs.get_spec() == "chaincode=warning:info"
