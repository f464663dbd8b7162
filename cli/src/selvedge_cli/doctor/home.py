"""The home: is it there, may it be written, and is all of it from one ca?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from selvedge_cli.doctor.findings import Finding, error, note, warning
from selvedge_cli.doctor.installation import Holder, Installation
from selvedge_common.msp.certificates import read_certificates
from selvedge_common.msp.errors import NotACertificate


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at the folder itself, at who asks, and at whose roots lie in it."""
    home = installation.home
    if not home.is_dir():
        yield error(
            home,
            "there is no such home",
            "run the command where `selvedge up` was started, or give its home with --home; with "
            "docker compose, run `selvedge status`, which makes one",
        )
        return
    if not os.access(home, os.W_OK | os.X_OK):
        yield error(home, "it cannot be written", "make it this user's, or give another --home")
    if (home / "addresses.json").exists() and installation.running is None:
        yield warning(
            home / "addresses.json",
            "a `selvedge up` that was killed has left the addresses of its services behind",
            "delete the file, or start `selvedge up` again",
        )
    if not installation.user.folder.is_dir():
        yield from _not_enrolled(installation)
    yield from _foreign(installation)


def _not_enrolled(installation: Installation) -> Iterator[Finding]:
    found = note if installation.user.automatic else error
    yield found(
        installation.user.folder,
        f"user {installation.settings.user} has not enrolled yet",
        installation.user.renewal,
    )


def _foreign(installation: Installation) -> Iterator[Finding]:
    """Who trusts another root than the ca that runs on the home, or else than who asks."""
    own = installation.home / "ca" / "tls" / "ca.crt"
    reference = own if installation.running is not None and own.is_file() else installation.root
    if reference is None or not (expected := _roots(reference)):
        return
    for holder in installation.holders():
        if _is_foreign(holder, expected):
            yield error(holder.root, f"it is from another ca than {reference}", holder.renewal)


def _is_foreign(holder: Holder, expected: set[bytes]) -> bool:
    found = _roots(holder.root)
    return bool(found) and not found & expected


def _roots(file: Path) -> set[bytes]:
    """Fingerprints of the certificates in a file; none where the certificates' own examination
    says what is wrong with it."""
    try:
        return {each.fingerprint(hashes.SHA256()) for each in read_certificates(file.read_bytes())}
    except (OSError, NotACertificate):
        return set()
