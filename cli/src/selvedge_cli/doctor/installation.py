"""What is examined: one home, the addresses of its services, and the shell that asks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from selvedge_cli.ca import AUTOMATIC_USERS
from selvedge_cli.options import Settings
from selvedge_common.enrolment import layout
from selvedge_common.enrolment.layout import Credential
from selvedge_common.enrolment.material import defect

_SERVICES = {"chaincode-support": ("peer", "orderer"), "event-hub": ("peer",)}


@dataclass(frozen=True)
class Holder:
    """Who has certificates in the home.

    Attributes:
        folder: where they lie.
        credentials: which.
        root: the file of the root that its connections trust.
        renewal: how to get new ones.
        automatic: whether the commands renew them by themselves.
    """

    folder: Path
    credentials: list[Credential]
    root: Path
    renewal: str
    automatic: bool = False


@dataclass(frozen=True)
class Installation:
    """The home and what is around it, as they are; nobody changes them.

    Attributes:
        settings: home, addresses, and who asks.
        environ: the variables of the shell.
        now: the present, UTC.
        chaincode: the chaincode that is to be followed from its shell to the peer, if one is.
    """

    settings: Settings
    environ: Mapping[str, str]
    now: datetime
    chaincode: str | None = None

    @property
    def home(self) -> Path:
        """The home."""
        return self.settings.home

    @property
    def user(self) -> Holder:
        """Who asks."""
        return self._user(self.settings.user)

    @property
    def root(self) -> Path | None:
        """The root that the services should be of: what the user trusts, or that of the ca here."""
        candidates = (self.user.root, self.home / "ca" / "tls" / "ca.crt")
        return next((file for file in candidates if file.is_file()), None)

    @property
    def pair(self) -> tuple[Path, Path] | None:
        """The user's certificate and key for TLS, where they can be used."""
        if not self._is_usable(self.user):
            return None
        folder, credential = self.user.folder, self.user.credentials[-1]
        return folder / credential.certificate, folder / credential.key

    @property
    def administrator(self) -> Path | None:
        """The folder of the home's administrator, where its certificates can be used."""
        holder = self._user("admin")
        return holder.folder if self._is_usable(holder) else None

    @property
    def running(self) -> int | None:
        """The process of the `selvedge up` that runs on this home, if one does."""
        try:
            pid = int((self.home / "up.lock").read_text())
            os.kill(pid, 0)
        except PermissionError:
            return pid
        except (OSError, ValueError):
            return None
        return pid

    def holders(self) -> Iterator[Holder]:
        """Everybody who has certificates in the home.

        Services are among them while they run: at their start they look after theirs themselves.
        """
        for folder in _folders(self.home / "crypto" / "users"):
            yield self._user(folder.name)
        for folder in _folders(self.home / "crypto" / "chaincodes"):
            yield self.holder_of(folder.name)
        if self.running is not None:
            for name, identities in _SERVICES.items():
                folder = self.home / name
                renewal = f"start {name} again, which then enrols anew"
                root = folder / "tls" / "ca.crt"
                yield Holder(folder, layout.service(identities), root, renewal)

    def holder_of(self, chaincode: str) -> Holder:
        """A chaincode of that name, whether it has certificates or not."""
        folder = self.home / "crypto" / "chaincodes" / chaincode
        renewal = f"run `selvedge ca issue --chaincode {chaincode}`"
        return Holder(folder, layout.chaincode(chaincode), folder / "ca.crt", renewal)

    def _is_usable(self, holder: Holder) -> bool:
        """Whether it can make connections."""
        return defect(holder.folder, holder.credentials[-1], None, self.now) is None

    def _user(self, name: str) -> Holder:
        folder = self.home / "crypto" / "users" / name
        profile = AUTOMATIC_USERS.get(name)
        renewal = f"run `selvedge ca issue --user {name}`"
        if profile is not None:
            renewal = f"run `selvedge status --user {name}`, which gets new ones from the ca"
        credentials = layout.user(profile or "user")
        root = folder / "tls" / "ca.crt"
        return Holder(folder, credentials, root, renewal, automatic=profile is not None)


def _folders(parent: Path) -> list[Path]:
    return sorted(each for each in parent.iterdir() if each.is_dir()) if parent.is_dir() else []
