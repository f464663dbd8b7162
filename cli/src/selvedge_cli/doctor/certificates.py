"""The certificates and keys in the home: whether each can be used, and for how long."""

from __future__ import annotations

import base64
import binascii
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509

from selvedge_cli.doctor.findings import Finding, error, warning
from selvedge_cli.doctor.installation import Holder, Installation
from selvedge_common.enrolment.layout import Credential
from selvedge_common.enrolment.material import ageing, defect


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at those of users, chaincodes and services."""
    for holder in installation.holders():
        for credential in holder.credentials:
            yield from _validity(holder, credential, installation.now)
            yield from _secrecy(holder, credential)
            if credential.encoded:
                yield from _encoding(holder, credential)


def ahead(certificate: x509.Certificate, now: datetime) -> str | None:
    """What to say of a certificate that begins in the future; None of others."""
    begins = certificate.not_valid_before_utc
    if begins <= now:
        return None
    return (
        f"it is valid from {begins:%Y-%m-%d %H:%M} UTC on, and here it is {now:%Y-%m-%d %H:%M}: "
        "this machine's clock and the ca's differ"
    )


def _validity(holder: Holder, credential: Credential, now: datetime) -> Iterator[Finding]:
    file = holder.folder / credential.certificate
    if (reason := defect(holder.folder, credential, None, now)) is not None:
        yield error(file, reason, holder.renewal)
    elif (reason := ahead(x509.load_pem_x509_certificate(file.read_bytes()), now)) is not None:
        yield error(file, reason, "set both clocks right")
    elif not holder.automatic and (reason := ageing(holder.folder, credential, now)) is not None:
        yield warning(file, reason, holder.renewal)


def _secrecy(holder: Holder, credential: Credential) -> Iterator[Finding]:
    for file in _forms(holder.folder / credential.key, credential):
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            yield warning(
                file, f"others may read this key (mode {mode:04o})", f"run `chmod 600 {file}`"
            )


def _encoding(holder: Holder, credential: Credential) -> Iterator[Finding]:
    for name in (credential.certificate, credential.key):
        plain, encoded = holder.folder / name, holder.folder / f"{name}.b64"
        if not (plain.is_file() and encoded.is_file()):
            continue  # said already
        try:
            same = base64.b64decode(encoded.read_bytes(), validate=True) == plain.read_bytes()
        except binascii.Error:
            same = False
        if not same:
            yield error(encoded, f"it is not the base64 of {name} beside it", holder.renewal)


def _forms(key: Path, credential: Credential) -> list[Path]:
    files = [key, key.with_name(f"{key.name}.b64")] if credential.encoded else [key]
    return [file for file in files if file.is_file()]
