"""Certificates that are renewed on disk, taken up while serving."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from cryptography import x509

from selvedge_common.comm import CommError, GRPCServer
from selvedge_common.config.sections import TLS
from selvedge_common.enrolment.metrics import CERTIFICATE_EXPIRY
from selvedge_common.logs import get_logger
from selvedge_common.material import Material, MaterialError

log = get_logger("renewal")


class Renewal:
    """Looks for other files of certificates, keys and revocation lists, and has them served.

    Args:
        material: reads them.
        tls: ``peer.tls``, which names some and says how often to look.
        servers: the listeners that use them.
    """

    def __init__(self, material: Material, tls: TLS, servers: Sequence[GRPCServer]) -> None:
        self._material = material
        self._tls = tls
        self._servers = servers
        self._seen = self._stamps()
        self._refused = ""

    async def run(self) -> None:
        """Look again and again; ends only by being cancelled."""
        while True:
            await asyncio.sleep(self._tls.reload_interval)
            try:
                await self.look()
            except Exception:
                # Such as no file descriptor left: the next look may well succeed.
                log.exception("certificates not looked at")

    async def look(self) -> None:
        """Look once. What cannot be used is told of, and looked at again the next time: a pair may
        be half written."""
        stamps = await asyncio.to_thread(self._stamps)
        if stamps == self._seen:
            return
        try:
            secure = await asyncio.to_thread(self._material.server, self._tls)
            for server in self._servers:
                server.renew(secure)
        except (MaterialError, CommError) as error:
            if str(error) != self._refused:
                self._refused = str(error)
                log.warning("certificates not renewed: those before are served on", why=str(error))
            return
        self._seen, self._refused = stamps, ""
        until = x509.load_pem_x509_certificate(secure.certificate).not_valid_after_utc
        CERTIFICATE_EXPIRY.labels("tls-server").set(until.timestamp())
        listeners = [server.address for server in self._servers]
        log.info("certificates renewed", listeners=listeners, until=until.isoformat())

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(file) for file in self._material.server_files(self._tls)]


@contextlib.asynccontextmanager
async def renewing(
    material: Material, tls: TLS, servers: Sequence[GRPCServer]
) -> AsyncIterator[None]:
    """Look for renewed files as long as the block lasts, if TLS is on."""
    if not tls.enabled:
        yield
        return
    looking = asyncio.create_task(Renewal(material, tls, servers).run(), name="renewal")
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None  # reading it will say what is wrong
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
