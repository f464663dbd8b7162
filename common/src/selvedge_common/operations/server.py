"""The server behind the operations address; follows Fabric's core/operations."""

import asyncio
import json
from collections.abc import Mapping

from aiohttp import web
from prometheus_client import REGISTRY, exposition

from selvedge_common import logs
from selvedge_common.operations.health import Check, HealthChecks
from selvedge_common.operations.tls import OperationsError, OperationsTLS

log = logs.get_logger("operations")
_MAX_BODY = 64 * 1024
_DRAIN = 2.0  # seconds that requests under way may take when stopping


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
        app = web.Application(client_max_size=_MAX_BODY)
        app.add_routes(
            [
                web.get("/metrics", self._get_metrics),
                web.get("/healthz", self._get_health),
                web.get("/version", self._get_version),
                web.get("/logspec", self._get_logspec),
                web.put("/logspec", self._put_logspec),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_DRAIN)

    @property
    def address(self) -> str:
        """Where it listens, `host:port`, with the real port once started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    async def start(self) -> None:
        """Begin to serve. Raises OperationsError if the address cannot be bound."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host or None, self._port, ssl_context=self._ssl)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise OperationsError(
                f"The operations endpoint cannot listen on {self.address}: "
                f"{error.strerror or error}; set operations.listenAddress to a free address."
            ) from error
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop serving, once the requests under way are answered."""
        await self._runner.cleanup()

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
        if transport is None or not transport.get_extra_info("peercert"):
            return _error(
                403,
                "Changing the log levels needs a client certificate of the operations client "
                "roots; connect by TLS with one.",
            )
        try:
            spec = json.loads(await request.text())["spec"]
        except (ValueError, KeyError, TypeError):
            return _error(400, 'The body is not a logging spec; send {"spec": "info"}.')
        if not isinstance(spec, str):
            return _error(400, 'The spec must be text; send {"spec": "info"}.')
        try:
            logs.set_spec(spec)
        except logs.LogSpecError as error:
            return _error(400, str(error))
        log.info("log levels changed", spec=logs.get_spec())
        return web.Response(status=204)


def _error(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise OperationsError(f"The operations address {address!r} is malformed; write host:port.")
    return host.removeprefix("[").removesuffix("]"), int(port)
