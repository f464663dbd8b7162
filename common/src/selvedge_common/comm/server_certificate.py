"""Who a server is by its certificate, beyond the host name that is checked when it is dialled."""

import asyncio
import ssl

from selvedge_common.comm.openssl_file import openssl_file


async def server_uris(
    address: str, root: bytes, pair: tuple[bytes, bytes] | None = None
) -> list[str]:
    """The URIs among the alternative names of the certificate that a server shows.

    On a connection of its own, since gRPC tells a client nothing of its server.

    Args:
        address: `host:port`; the certificate must be for that host.
        root: certificates that vouch for it, PEM.
        pair: the client's certificate and key, PEM, if the server wants one.

    Raises:
        OSError: it cannot be reached, or its certificate is not valid; OpenSSL's are OSErrors.
    """
    context = ssl.create_default_context(cadata=root.decode())
    context.set_alpn_protocols(["h2"])
    if pair is not None:
        with openssl_file(b"\n".join(pair)) as path:
            context.load_cert_chain(path)
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    try:
        certificate = writer.get_extra_info("peercert")
    finally:
        writer.transport.abort()
    return [name for kind, name in certificate.get("subjectAltName", ()) if kind == "URI"]
