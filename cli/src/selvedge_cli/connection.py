"""A user's connections to the services: mutual TLS below, the user's signature inside."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import grpc.aio

from selvedge_cli.ca import ensure_user
from selvedge_cli.errors import CommandError
from selvedge_cli.options import MSP_ID, Settings
from selvedge_common import comm
from selvedge_common.msp import IdentityError, SigningIdentity, load_signing_identity


@dataclass(frozen=True)
class User:
    """Who signs and dials.

    Attributes:
        signer: the identity of the organisation that signs.
        tls_root: root that every service's certificate comes from, PEM.
        tls_certificate, tls_key: the pair to dial with, PEM.
    """

    signer: SigningIdentity
    tls_root: bytes
    tls_certificate: bytes
    tls_key: bytes

    @property
    def tls_hash(self) -> bytes:
        """SHA-256 of the TLS certificate in DER: binds signed requests to the connection."""
        der = ssl.PEM_cert_to_DER_cert(self.tls_certificate.decode("ascii"))
        return hashlib.sha256(der).digest()


def load_user(settings: Settings) -> User:
    """The user of the settings; admin and user1 are enrolled where they are not yet.

    Calls the ca in an event loop of its own: call it before there is one, or in a thread.

    Raises:
        click.ClickException: there is no such user, or enrolling failed.
    """
    folder = ensure_user(settings.home, settings.user, settings.addresses.ca)
    return read_user(folder)


def read_user(folder: Path) -> User:
    """The user whose `msp/` and `tls/` lie in a folder.

    Raises:
        CommandError: a file is missing or cannot be used.
    """
    try:
        return User(
            load_signing_identity(folder / "msp", MSP_ID),
            *(
                (folder / "tls" / name).read_bytes()
                for name in ("ca.crt", "client.crt", "client.key")
            ),
        )
    except IdentityError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(
            f"{error.filename} cannot be read ({error.strerror}): "
            f"run `selvedge ca issue --user {folder.name}`"
        ) from error


def user_folder(settings: Settings) -> Path:
    """Where the certificates of the user of the settings lie."""
    return settings.home / "crypto" / "users" / settings.user


class Connection:
    """Channels of one user, one for each address, closed together."""

    def __init__(self, user: User, settings: Settings) -> None:
        self.user = user
        self.settings = settings
        self._channels: dict[str, grpc.aio.Channel] = {}

    def channel(self, address: str) -> grpc.aio.Channel:
        """The channel to an address, opened on first use."""
        if address not in self._channels:
            self._channels[address] = comm.channel(
                address,
                root_cas=self.user.tls_root,
                certificate=self.user.tls_certificate,
                key=self.user.tls_key,
                # One that starts later is found soon: grpc's own first pause is a second.
                options=[
                    ("grpc.initial_reconnect_backoff_ms", 50),
                    ("grpc.max_reconnect_backoff_ms", 2000),
                ],
            )
        return self._channels[address]

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for channel in self._channels.values():
            await channel.close(None)
