"""A user's connections to the services: mutual TLS below, the user's signature inside."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import grpc.aio

from selvedge_cli.ca import ensure_user
from selvedge_cli.errors import CommandError
from selvedge_cli.options import MSP_ID, Settings
from selvedge_client import CredentialsError, User
from selvedge_common import comm


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
        return User.read(folder / "msp", folder / "tls", mspid=MSP_ID)
    except CredentialsError as error:
        raise CommandError(
            f"{error}; `selvedge ca issue --user {folder.name}` enrols it"
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
