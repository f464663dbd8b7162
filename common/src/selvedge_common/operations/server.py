"""The server behind the operations address; follows Fabric's core/operations."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from aiohttp import web
from prometheus_client import REGISTRY, exposition

from selvedge_common import logs
from selvedge_common.comm import AddressError
from selvedge_common.comm import listener as listening
from selvedge_common.operations.connections import Connections
from selvedge_common.operations.health import Check, HealthChecks
from selvedge_common.operations.tls import OperationsError, OperationsTLS

log = logs.get_logger("operations")
_MAX_BODY = 64 * 1024
_DRAIN = 2.0  # seconds that requests under way may take when stopping
_MOST_CONNECTIONS = 256
_HEADERS = 10.0  # seconds from the connection, or from the last answer, to a request's last header
_ANSWER = 10.0  # seconds from a request's last header to its answer, its body included
_CHAINCODE = "selvedge://chaincode/"  # begins the URI in a chaincode's certificate


class OperationsServer:
    """Serves metrics, health, version and the log levels.

    Args:
        address: `host:port`; port 0 takes a free one, see `address` after start.
        tls: files for HTTPS, or None for plain HTTP.
        health: a check for each component; it raises with the reason when it fails.
        version: this service's version.

    Raises:
        OperationsError: the address is malformed or a TLS file cannot be used.
    """

    def __init__(
        self, address: str, tls: OperationsTLS | None, health: Mapping[str, Check], version: str
    ) -> None:
        self._host, self._port = _split(address)
        self._ssl = tls.context() if tls is not None else None
        self._health = HealthChecks(health)
        self._version = version
        app = web.Application(client_max_size=_MAX_BODY, middlewares=[_in_time])
        app.add_routes(
            [
                web.get("/metrics", self._get_metrics),
                web.get("/healthz", self._get_health),
                web.get("/version", self._get_version),
                web.get("/logspec", self._get_logspec),
                web.put("/logspec", self._put_logspec),
            ]
        )
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=_DRAIN,
            keepalive_timeout=_HEADERS,
            lingering_time=_DRAIN,
        )
        self._connections: Connections | None = None

    @property
    def address(self) -> str:
        """Where it listens, `host:port`, with the real port once started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    async def start(self) -> None:
        """Begin to serve. Raises OperationsError if the address cannot be bound."""
        try:
            listener = listening.listen(self.address)
        except AddressError as error:
            raise OperationsError(
                f"The operations endpoint cannot listen on {self.address}: {error.__cause__};"
                " set operations.listenAddress to a free address."
            ) from error
        self._port = listener.getsockname()[1]
        await self._runner.setup()
        make = cast(Callable[[], asyncio.Protocol], self._runner.server)
        self._connections = Connections(make, self._ssl, _MOST_CONNECTIONS)
        self._connections.start(listener)

    async def stop(self) -> None:
        """Stop serving, once the requests under way are answered."""
        if self._connections is None:
            return
        await self._connections.stop_accepting()
        await self._runner.cleanup()
        await self._connections.stop()

    async def _get_metrics(self, request: web.Request) -> web.Response:
        encode, content_type = exposition.choose_encoder(request.headers.get("Accept", ""))
        # Rendering walks every metric; the loop carries hot streams meanwhile.
        body = await asyncio.get_running_loop().run_in_executor(None, encode, REGISTRY)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _get_health(self, _: web.Request) -> web.Response:
        healthy, report = await self._health.run()
        return web.json_response(report, status=200 if healthy else 503)

    async def _get_version(self, _: web.Request) -> web.Response:
        return web.json_response({"Version": self._version})

    async def _get_logspec(self, _: web.Request) -> web.Response:
        return web.json_response({"spec": logs.get_spec()})

    async def _put_logspec(self, request: web.Request) -> web.Response:
        transport = request.transport
        # Present only if it was verified: TLS ends the connection on any other certificate.
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        if not certificate:
            return _error(
                403,
                "Changing the log levels needs a client certificate of the operations client "
                "roots; connect by TLS with one.",
            )
        if any(
            kind == "URI" and name.startswith(_CHAINCODE)
            for kind, name in certificate.get("subjectAltName", ())
        ):
            return _error(
                403,
                "A chaincode's certificate does not allow to change the log levels; connect with "
                "a user's or an operator's.",
            )
        try:
            spec = json.loads(await request.text())["spec"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return _error(400, 'The body is not a logging spec; send {"spec": "info"}.')
        if not isinstance(spec, str):
            return _error(400, 'The spec must be text; send {"spec": "info"}.')
        try:
            logs.set_spec(spec)
        except logs.LogSpecError as error:
            return _error(400, str(error))
        log.info("log levels changed", spec=logs.get_spec())
        return web.Response(status=204)


@web.middleware
async def _in_time(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        async with asyncio.timeout(_ANSWER):
            return await handler(request)
    except TimeoutError:
        response = _error(408, "The request's body took too long; send it at once.")
        response.force_close()
        return response


def _error(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise OperationsError(f"The operations address {address!r} is malformed; write host:port.")
    return host.removeprefix("[").removesuffix("]"), int(port)
