"""A chaincode that serves, and that the peer dials: chaincode as a service.

Follows core/chaincode/extcc/extcc_handler.go and core/container/externalbuilder/instance.go of
Fabric 2.5. From the connection on everything is as if the chaincode had dialled: it registers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

from chaincode_support.chaincode.registration import Expected, check_is_no_other
from chaincode_support.launchers import metrics
from chaincode_support.launchers.errors import NotLaunched
from chaincode_support.launchers.package import Connection, ConnectionTLS, Package
from selvedge_common import comm
from selvedge_common.quoting import printable

PATH = "/protos.Chaincode/Connect"

# What gRPC says of a connection that does not come, and what that means here.
_CAUSES = (
    ("Connection refused", "nothing listens there: start the chaincode, or correct the address"),
    ("certificate has expired", "the chaincode's certificate has expired: renew it there"),
    ("certificate is not yet valid", "the chaincode's certificate is not valid yet: see its clock"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the chaincode's certificate is of another root: put its own root into root_cert",
    ),
    (
        "Hostname Verification",
        "the chaincode's certificate is for another host than that of the address",
    ),
    (
        "WRONG_VERSION_NUMBER",
        "what listens there does not speak TLS: turn it on there, or set tls_required to false",
    ),
    (
        "Socket closed",
        "it closed the connection: it may want TLS (tls_required), or another client certificate "
        "(client_auth_required)",
    ),
    ("errors resolving", "there is no such host: correct the address"),
    ("DNS resolution failed", "there is no such host: correct the address"),
    (
        "no connection within",
        "there was no connection within its dial_timeout: see whether it answers, or allow more",
    ),
)
# Every member may read how a connection ended, and whoever installs a package says where the peer
# dials: what others said there is for the log alone, or the peer would look into networks for them.
_LOGGED = "the peer's log has more"
_DETAILS = 300

Serve: TypeAlias = Callable[[comm.MessageStream, Expected], Awaitable[None]]
"""Serves the stream of a chaincode that was dialled, until it ends."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What dialling needs beside a package.

    Attributes:
        tls: the folder of the peer's own root and client pair.
        streams: bounds of messages and streams, those of the chaincode listener.
    """

    tls: Path
    streams: comm.ServerConfig


class ChaincodeConnection:
    """One connection to a chaincode, and the stream on it."""

    again = "dial it again"
    fails_at_once = False
    last_words = ""

    def __init__(
        self, package: Package, connection: Connection, settings: ServiceSettings, serve: Serve
    ) -> None:
        self._package = package
        self._connection = connection
        self._settings = settings
        self._serve = serve
        self._stream: comm.MessageStream | None = None
        self._refusal: comm.StatusError | None = None
        self._dialling: asyncio.Task[str] | None = None
        self.details = ""

    @property
    def doing(self) -> str:
        """What it does."""
        if self._stream is None:
            return f"dialling {self._connection.address}"
        return f"connected to {self._connection.address}"

    @property
    def reached(self) -> bool:
        """Whether there is, or was, a connection."""
        return self._stream is not None

    async def run(self) -> str:
        """Dial, and serve the stream until it ends; how it ended. Raises NotLaunched, also where
        the peer refused what serves there."""
        self._dialling = asyncio.create_task(self._dial())
        try:
            await asyncio.wait((self._dialling,))
        finally:
            self._dialling.cancel()
            await asyncio.gather(self._dialling, return_exceptions=True)
        if self._dialling.cancelled():
            return "was stopped before there was a connection"
        return self._dialling.result()

    def stop(self) -> None:
        """Have it end."""
        if self._stream is not None:
            self._stream.close()
        elif self._dialling is not None:
            self._dialling.cancel()

    async def _dial(self) -> str:
        address = self._connection.address
        try:
            channel = await self._channel()
        except OSError as error:
            raise NotLaunched(
                f"was not dialled: this peer's own TLS material is not there ({error}); give "
                "root_cert, client_cert and client_key in the package's connection.json"
            ) from error
        async with channel:
            code, details = await comm.dial_message_stream(
                channel,
                PATH,
                self._serve_stream,
                self._settings.streams,
                peer=f"dns:{address}",
                within=self._connection.dial_timeout,
            )
        self.details = printable(details, _DETAILS)
        if self._stream is None:
            metrics.connects.labels(self._package.name, "false").inc()
            return f"could not be reached at {address}: {_explain(code, details)}"
        if code is grpc.StatusCode.OK:
            return f"ended the connection to {address}"
        if self._refusal is None:
            return f"lost the connection to {address} ({code.name}; {_LOGGED})"
        if self._refusal.code is grpc.StatusCode.UNAVAILABLE:
            return f"lost the connection to {address}: {self._refusal.details}"
        raise NotLaunched(
            f"was dialled at {address} and refused by this peer: {self._refusal.details}"
        )

    async def _serve_stream(self, stream: comm.MessageStream) -> None:
        self._stream = stream
        package = self._package
        metrics.connects.labels(package.name, "true").inc()
        try:
            if self._connection.tls is not None:
                await self._check_is_no_other(self._connection.tls)
            await self._serve(stream, Expected(package.name, package.version, package.accepts))
        except comm.StatusError as refusal:
            self._refusal = refusal
            raise
        except asyncio.CancelledError:
            # The stream was aborted, as one is that does not register, unless its connection broke.
            if stream.status is not None and stream.status[0] is not grpc.StatusCode.OK:
                self._refusal = comm.StatusError(*stream.status)
            raise

    async def _check_is_no_other(self, tls: ConnectionTLS) -> None:
        """Chaincodes may share a host, so the host in a certificate tells not which of them it is.

        Raises StatusError PERMISSION_DENIED; UNAVAILABLE when that cannot be told now.
        """
        root, pair = await asyncio.to_thread(self._material, tls)
        try:
            async with asyncio.timeout(self._connection.dial_timeout):
                shown = await comm.server_uris(self._connection.address, root, pair)
            check_is_no_other(self._package.name, shown)
        except (OSError, TimeoutError) as error:
            raise comm.StatusError(
                grpc.StatusCode.UNAVAILABLE,
                f"its certificate was not shown a second time, to be looked at: {error}",
            ) from error

    async def _channel(self) -> grpc.aio.Channel:
        # Anew for each connection, so that renewed certificates count.
        tls = self._connection.tls
        root, pair = await asyncio.to_thread(self._material, tls) if tls else (None, None)
        certificate, key = pair or (None, None)
        return comm.channel(
            self._connection.address,
            root_cas=root,
            certificate=certificate,
            key=key,
            max_bytes=self._settings.streams.max_receive_bytes,
            options=(("grpc.max_send_message_length", self._settings.streams.max_send_bytes),),
        )

    def _material(self, tls: ConnectionTLS) -> tuple[bytes, tuple[bytes, bytes] | None]:
        own = self._settings.tls
        root = tls.root or (own / "ca.crt").read_bytes()
        pair = tls.pair
        if tls.shows_certificate and pair is None:
            pair = (own / "client.crt").read_bytes(), (own / "client.key").read_bytes()
        return root, pair


def _explain(code: grpc.StatusCode, details: str) -> str:
    for sign, meaning in _CAUSES:
        if sign in details:
            return meaning
    return f"{code.name}; {_LOGGED}"
