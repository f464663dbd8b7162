"""What the peer says of its chaincodes: who serves them, and how their transactions went."""

from __future__ import annotations

from chaincode_support.chaincode.definitions import Definitions
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.replicas import Replicas
from chaincode_support.chaincode.stream import ChaincodeStream
from chaincode_support.chaincode.tally import Tally
from chaincode_support.system.names import SYSTEM_CHAINCODES
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import Chaincode, Stream


def describe(registry: Registry, definitions: Definitions) -> list[Chaincode]:
    """Every chaincode that is here or was before, in the order of their names."""
    return [_describe(name, registry, definitions) for name in registry.names()]


def _describe(name: str, registry: Registry, definitions: Definitions) -> Chaincode:
    replicas = registry.replicas(name)
    tally = registry.tally(name)
    executors = list(replicas)
    current = [executor for executor in executors if replicas.current(executor)] or executors
    described = Chaincode(
        name=name,
        version=current[-1].version if current else "",
        launcher=Chaincode.SYSTEM if name in SYSTEM_CHAINCODES else Chaincode.EXTERNAL,
        init_required=definitions.init_required(name),
        streams=[
            _describe_stream(executor, replicas)
            for executor in executors
            if isinstance(executor, ChaincodeStream)
        ],
        running=sum(executor.running for executor in executors),
        completed=tally.completed,
        failed=tally.failed,
    )
    describe_last_error(described, tally)
    return described


def _describe_stream(stream: ChaincodeStream, replicas: Replicas) -> Stream:
    described = Stream(
        registered_name=stream.registered_name,
        peer=stream.peer,
        state=_state(stream, replicas),
        running=stream.running,
        completed=stream.tally.completed,
        failed=stream.tally.failed,
    )
    described.since.FromDatetime(stream.since)
    return described


def _state(stream: ChaincodeStream, replicas: Replicas) -> Stream.State.ValueType:
    if stream.draining or not replicas.current(stream):
        return Stream.DRAINING
    return Stream.READY if stream.responsive else Stream.UNRESPONSIVE


def describe_last_error(described: Chaincode, tally: Tally) -> None:
    """Say what failed last, if anything did."""
    described.last_error = tally.last_error
    if tally.last_error_at is not None:
        described.last_error_at.FromDatetime(tally.last_error_at)
