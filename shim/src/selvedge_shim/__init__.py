"""Write Fabric chaincode in Python.

from selvedge_shim import Chaincode, Response, Stub, start, success

class Counter(Chaincode):
    async def invoke(self, stub: Stub) -> Response:
        count = int(await stub.get_state("count") or b"0") + 1
        await stub.put_state("count", str(count).encode())
        return success(str(count))

start(Counter())
"""

from selvedge_shim.chaincode import Chaincode, Response, error, success
from selvedge_shim.connection import serve, start
from selvedge_shim.environment import ClientTLS, Environment, read_environment
from selvedge_shim.errors import (
    ConfigurationError,
    InvalidKey,
    PeerError,
    ProtocolError,
    ShimError,
)
from selvedge_shim.state_iterator import KeyValue, StateIterator
from selvedge_shim.stub import Stub

__all__ = [
    "Chaincode",
    "ClientTLS",
    "ConfigurationError",
    "Environment",
    "InvalidKey",
    "KeyValue",
    "PeerError",
    "ProtocolError",
    "Response",
    "ShimError",
    "StateIterator",
    "Stub",
    "error",
    "read_environment",
    "serve",
    "start",
    "success",
]
