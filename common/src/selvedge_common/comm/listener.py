"""Holding an address from construction on, and listening there from start.

An address is taken exclusively, by listening on it, and then passed to a holder: a socket that is
bound and does not listen, so that connections are refused until start. The native transport then
listens on the holder. gRPC core cannot be given a socket, but it can bind an address that another
socket of the same user holds, if both set SO_REUSEPORT; as the holder gets no connections, all of
them reach gRPC.
"""

import socket

from selvedge_common.comm.errors import AddressError

_BACKLOG = 1  # nobody is accepted from this socket


def listen(address: str) -> socket.socket:
    """Open a listening socket on `host:port`; port 0 takes a free one, no host means all.

    Raises:
        AddressError: the address is missing, malformed, unknown or already in use.
    """
    if not address:
        raise AddressError("Missing address parameter")
    host, port = split(address)
    try:
        if host in ("", "::") and socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
            )
        family, sockaddr = _resolve(host or "0.0.0.0", port)  # noqa: S104 (asked for: no host)
        return socket.create_server(sockaddr, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise AddressError(
            f"Cannot listen on {address}: {error.strerror or error}; "
            "check that the host is this machine's and the port is free."
        ) from error


def hold(listener: socket.socket) -> socket.socket:
    """Close a listener of ours and return a socket that holds its address for this user's sockets.

    Raises:
        AddressError: something else took the address meanwhile.
    """
    holder = socket.socket(listener.family)
    try:
        for sharing in (listener, holder):
            sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if listener.family == socket.AF_INET6:
            only = listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        # Connections that the port's last server closed first may linger (TIME_WAIT); they must not
        # keep the address, as they would without SO_REUSEADDR. Off again, for nobody else to share.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(listener.getsockname())
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        # Shut down, for a copy of it in another process would go on accepting.
        if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    except OSError as error:
        holder.close()
        raise AddressError(
            f"The listener at {name(listener)} cannot be taken over: {error.strerror}; "
            "give another port, or wait until the last program on it is gone."
        ) from error
    return holder


def check(listener: socket.socket) -> None:
    """Check that a server can be made on it.

    Raises:
        AddressError: it is not a bound TCP socket.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or (
        listener.type != socket.SOCK_STREAM
    ):
        raise AddressError("The listener is not a TCP socket; give a bound TCP socket.")
    if not listener.getsockname()[1]:
        raise AddressError("The listener is not bound; bind it to an address first.")


def name(listener: socket.socket) -> str:
    """The address of a bound socket as `host:port`, with brackets around IPv6."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(address: str) -> tuple[str, int]:
    """Take `host:port` apart. Raises AddressError."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise AddressError(f"The address {address!r} has no port; write host:port.")
    if ":" in host and not bracketed:
        raise AddressError(f"The address {address!r} is ambiguous; write IPv6 as [host]:port.")
    return host[1:-1] if bracketed else host, int(port)


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """One address of the host, IPv4 first, as Go's net.Listen chooses."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, sockaddr = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, (str(sockaddr[0]), port)
