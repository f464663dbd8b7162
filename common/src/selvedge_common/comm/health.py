"""grpc.health.v1, with statuses set at once and watchers that cannot hold anything up."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from selvedge_common.comm.errors import StatusError

Status = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # untyped there
    """Statuses by service name; the empty name is the server as a whole."""

    def __init__(self) -> None:
        self._statuses: dict[str, health_pb2.HealthCheckResponse.ServingStatus.ValueType] = {}
        self._changed = asyncio.Event()
        self._draining = False

    def set(self, service: str, serving: bool) -> None:
        """Set one status and wake the watchers; without effect once draining."""
        if not self._draining:
            self._put({service: serving})

    def set_default(self, service: str, serving: bool) -> None:
        """Set a status unless one was set before."""
        if service not in self._statuses:
            self.set(service, serving)

    def drain(self) -> None:
        """Nothing serves any more, for good."""
        self._draining = True
        self._put(dict.fromkeys(self._statuses, False))

    def _put(self, serving: dict[str, bool]) -> None:
        self._statuses.update(
            (service, Status.SERVING if yes else Status.NOT_SERVING)
            for service, yes in serving.items()
        )
        # Each change has an event of its own, so a watcher never misses one.
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> Any:  # noqa: N802
        status = self._statuses.get(request.service)
        if status is None:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"No service {request.service!r} here; list the services by reflection.",
            )
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> Any:  # noqa: N802
        last = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, Status.SERVICE_UNKNOWN)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
                last = status
            await changed.wait()


def add_health(servicer: HealthServicer, server: Any) -> None:
    """Serve `servicer`."""
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
