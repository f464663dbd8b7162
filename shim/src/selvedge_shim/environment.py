"""How to reach the peer: the environment that Fabric gives a chaincode."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selvedge_shim.errors import ConfigurationError

CHAINCODE_ID = "CORE_CHAINCODE_ID_NAME"
PEER_ADDRESS = "CORE_PEER_ADDRESS"
TLS_ENABLED = "CORE_PEER_TLS_ENABLED"
ROOT_CERTIFICATE = "CORE_PEER_TLS_ROOTCERT_FILE"
KEY_FILE, CERTIFICATE_FILE = "CORE_TLS_CLIENT_KEY_FILE", "CORE_TLS_CLIENT_CERT_FILE"
KEY_BASE64, CERTIFICATE_BASE64 = "CORE_TLS_CLIENT_KEY_PATH", "CORE_TLS_CLIENT_CERT_PATH"
LOG_LEVEL = "CORE_CHAINCODE_LOGGING_LEVEL"

# Fabric's level names that Python's logging does not know.
LEVELS = {"NOTICE": "INFO", "PANIC": "CRITICAL", "FATAL": "CRITICAL"}


@dataclass(frozen=True, slots=True)
class ClientTLS:
    """Where the material for TLS lies; read for each connection, so that renewed files count."""

    root: Path
    certificate: Path | None
    key: Path | None
    base64: bool

    def read(self) -> tuple[bytes, bytes | None, bytes | None]:
        """Give the root, the client certificate and its key, each as PEM.

        Raises:
            ConfigurationError: a file cannot be read, or is not base64 where it has to be.
        """
        pair = [
            None if path is None else self._read_pair(path) for path in (self.certificate, self.key)
        ]
        return _read(self.root), pair[0], pair[1]

    def _read_pair(self, path: Path) -> bytes:
        content = _read(path)
        if not self.base64:
            return content
        try:
            return base64.b64decode(b"".join(content.split()), validate=True)
        except binascii.Error as failure:
            raise ConfigurationError(f"{path} must hold the base64 of a PEM: {failure}") from None


@dataclass(frozen=True, slots=True)
class Environment:
    """What a chaincode is called and where its peer listens."""

    chaincode_id: str
    peer_address: str
    tls: ClientTLS | None
    log_level: int


def read_environment(environ: Mapping[str, str]) -> Environment:
    """Read Fabric's variables for chaincodes; README.md lists them.

    Raises:
        ConfigurationError: a variable is missing or makes no sense; the sentence names it.
    """
    return Environment(
        chaincode_id=_require(
            environ, CHAINCODE_ID, "the name to register, for example asset-transfer:1.0"
        ),
        peer_address=_require(
            environ, PEER_ADDRESS, "the peer's chaincode listener, for example localhost:7052"
        ),
        tls=_read_tls(environ),
        log_level=_read_level(environ.get(LOG_LEVEL, "info")),
    )


def _read_tls(environ: Mapping[str, str]) -> ClientTLS | None:
    enabled = environ.get(TLS_ENABLED, "false").strip().lower()
    if enabled not in ("true", "false"):
        raise ConfigurationError(f"{TLS_ENABLED} is {enabled!r}: set it to true or false")
    if enabled == "false":
        return None
    root = _require(
        environ, ROOT_CERTIFICATE, "the file with the root certificate of the peer, PEM"
    )
    for certificate, key, encoded in (
        (CERTIFICATE_FILE, KEY_FILE, False),
        (CERTIFICATE_BASE64, KEY_BASE64, True),
    ):
        pair = environ.get(certificate), environ.get(key)
        if all(pair):
            return ClientTLS(Path(root), Path(str(pair[0])), Path(str(pair[1])), base64=encoded)
        if any(pair):
            raise ConfigurationError(
                f"of {certificate} and {key} only one is set: set both, or neither"
            )
    return ClientTLS(Path(root), None, None, base64=False)


def _read_level(name: str) -> int:
    upper = name.strip().upper()
    level = logging.getLevelNamesMapping().get(LEVELS.get(upper, upper))
    if level is None:
        raise ConfigurationError(
            f"{LOG_LEVEL} is {name!r}: use debug, info, warning, error or critical"
        )
    return level


def _require(environ: Mapping[str, str], name: str, meaning: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise ConfigurationError(f"{name} is not set: it gives {meaning}")
    return value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise ConfigurationError(f"{path} cannot be read: {failure.strerror}") from None
