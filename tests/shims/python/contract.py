"""The contract that every chaincode of these tests answers, on this project's own shim.

Each function asks one thing of its peer and tells what came, as text or as JSON.
"""

import json
from collections.abc import Awaitable, Callable

from selvedge_protos.msp.identities_pb2 import SerializedIdentity
from selvedge_shim import Chaincode, Response, StateIterator, Stub, error, start, success


class Contract(Chaincode):
    """Calls the function that the first argument names."""

    async def init(self, stub: Stub) -> Response:
        return await self.invoke(stub)

    async def invoke(self, stub: Stub) -> Response:
        function, arguments = stub.function_and_parameters
        if function not in FUNCTIONS:
            return error(f"there is no function {function}")
        result = await FUNCTIONS[function](stub, *arguments)
        return success(result if isinstance(result, str) else json.dumps(result))


async def put(stub: Stub, key: str, value: str) -> str:
    await stub.put_state(key, value.encode())
    return ""


async def put_series(stub: Stub, prefix: str, count: str) -> str:
    for number in range(int(count)):
        await stub.put_state(f"{prefix}-{number:03}", str(number).encode())
    return ""


async def get(stub: Stub, key: str) -> str:
    return (await stub.get_state(key)).decode()


async def delete(stub: Stub, key: str) -> str:
    await stub.delete_state(key)
    return ""


async def put_then_get(stub: Stub, key: str, value: str) -> str:
    await stub.put_state(key, value.encode())
    return (await stub.get_state(key)).decode()


async def list_range(stub: Stub, start: str, end: str) -> list[dict[str, str]]:
    return await _rows(stub.get_state_by_range(start, end))


async def first(stub: Stub, start: str, end: str) -> str:
    async with stub.get_state_by_range(start, end) as rows:
        key, _ = await anext(rows)
        return key


async def put_composite(stub: Stub, kind: str, first: str, second: str, value: str) -> list[str]:
    key = stub.create_composite_key(kind, [first, second])
    await stub.put_state(key, value.encode())
    return _parts(stub, key)


async def list_composite(stub: Stub, kind: str, first: str) -> list[dict[str, object]]:
    rows = await _rows(stub.get_state_by_partial_composite_key(kind, [first]))
    return [{"parts": _parts(stub, row["key"]), "value": row["value"]} for row in rows]


async def event(stub: Stub, name: str, payload: str) -> str:
    stub.set_event(name, payload.encode())
    return ""


async def creator(stub: Stub) -> dict[str, str]:
    identity = SerializedIdentity.FromString(stub.creator)
    return {"mspid": identity.mspid, "certificate": identity.id_bytes.decode()}


async def transient(stub: Stub, key: str) -> str:
    return stub.get_transient()[key].decode()


async def arguments(stub: Stub, _first: str, _second: str) -> list[str]:
    function, parameters = stub.function_and_parameters
    return [function, *parameters]


async def transaction(stub: Stub) -> dict[str, str | int]:
    seconds = int(stub.timestamp.timestamp())
    return {"txid": stub.txid, "channel": stub.channel_id, "seconds": seconds}


async def signature(stub: Stub) -> str:
    return stub.signed_proposal.signature.hex()


async def fail(stub: Stub, key: str, message: str) -> str:
    await stub.put_state(key, b"left behind")
    raise RuntimeError(message)


async def panic(stub: Stub, message: str) -> str:
    raise SystemError(message)


async def _rows(query: StateIterator) -> list[dict[str, str]]:
    return [{"key": key, "value": value.decode()} async for key, value in query]


def _parts(stub: Stub, key: str) -> list[str]:
    kind, attributes = stub.split_composite_key(key)
    return [kind, *attributes]


FUNCTIONS: dict[str, Callable[..., Awaitable[object]]] = {
    "Put": put,
    "PutSeries": put_series,
    "Get": get,
    "Delete": delete,
    "PutThenGet": put_then_get,
    "List": list_range,
    "First": first,
    "PutComposite": put_composite,
    "ListComposite": list_composite,
    "Event": event,
    "Creator": creator,
    "Transient": transient,
    "Arguments": arguments,
    "Transaction": transaction,
    "Signature": signature,
    "Fail": fail,
    "Panic": panic,
}


if __name__ == "__main__":
    start(Contract())
