"""Listeners on free ports that are not what they should be."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cli.tests.fake_services import Pair

Conversation = Callable[[socket.socket], None]


@contextmanager
def listening(converse: Conversation) -> Iterator[str]:
    """A listener that converses so with everybody who dials it; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, converse))
        thread.start()
        try:
            yield f"localhost:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def saying(greeting: bytes) -> Conversation:
    """One that says this whatever it hears, until the other side leaves."""

    def converse(connection: socket.socket) -> None:
        connection.sendall(greeting)
        while connection.recv(4096):
            pass

    return converse


def secured(
    pair: Pair,
    folder: Path,
    talk: Conversation,
    *,
    protocol: str | None = "h2",
    clients: bytes = b"",
) -> Conversation:
    """One that speaks TLS with this pair, and talks so on top of it.

    Args:
        folder: for the files that ssl wants.
        protocol: what it agrees on by ALPN.
        clients: the root that clients' certificates must be of; without it none is asked for.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain, key = folder / "listener.crt", folder / "listener.key"
    chain.write_bytes(pair.certificate_pem)
    key.write_bytes(pair.key_pem)
    context.load_cert_chain(chain, key)
    if protocol is not None:
        context.set_alpn_protocols([protocol])
    if clients:
        context.load_verify_locations(cadata=clients.decode())
        context.verify_mode = ssl.CERT_REQUIRED

    def converse(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            talk(secure)

    return converse


SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""HTTP/2's first frame."""


def _serve(listener: socket.socket, converse: Conversation) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # shut down
        with connection, suppress(OSError):
            connection.settimeout(10)
            converse(connection)
