"""A package of a chaincode: how the peer starts it, or where it dials it.

Follows Fabric's chaincode as a service (ccaas_builder/cmd/build/main.go of 2.5, and
core/container/externalbuilder/instance.go there): `metadata.json` with a type and a label, and
`connection.json`. The type `process` is ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chaincode_support.chaincode.registration import DEFAULT_VERSION
from chaincode_support.launchers.errors import BrokenPackage
from chaincode_support.system.names import SYSTEM_CHAINCODES
from selvedge_common.config.bounds import HostPort
from selvedge_common.config.values import parse_duration
from selvedge_common.quoting import quoted

METADATA = "metadata.json"
CONNECTION = "connection.json"

_DIAL_TIMEOUT = 3.0
_LONGEST_DIAL_TIMEOUT = 600.0

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_VERSION = re.compile(r"[A-Za-z0-9_.+-]+")
_SHORT_HASH = 8
# A file of Fabric's is called by the label, the hash and an ending, and by more while it is
# written: 255 characters altogether.
_LONGEST = 160
# Dots, colons and letters of a host or of an address of IPv6: nothing by which gRPC would take it
# for another kind of target, as it does unix:PATH.
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
# What is loaded holds the interpreter's lock: a chain of certificates with a few roots, and a key
# of RSA with 4096 bits, which takes some 3300 characters.
_CERTIFICATE_CHARACTERS = 64 * 1024
_KEY_CHARACTERS = 4096
_RSA_BITS = 4096
_LABEL_WITH_VERSION = re.compile(r"(.+)_(v?[0-9][A-Za-z0-9.+-]*)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEMPLATE = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Command:
    """A chaincode that the peer starts.

    Attributes:
        words: the program and its arguments; in them `$NAME` stands for a variable of its
            environment.
        environment: variables beside those that Fabric gives a chaincode.
        directory: where it runs.
        tls: the folder of its certificate, as `selvedge ca issue --chaincode` writes it.
        enrolment: the file of tokens by which it gets one, if there is one.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    tls: Path
    enrolment: Path | None


@dataclass(frozen=True, slots=True)
class ConnectionTLS:
    """How the peer and a chaincode that serves know each other; PEM.

    Attributes:
        root: what the chaincode's certificate is verified by; None for the peer's own root.
        shows_certificate: whether the peer shows one.
        pair: certificate and key that it shows; None for the peer's own.
    """

    root: bytes | None
    shows_certificate: bool
    pair: tuple[bytes, bytes] | None


@dataclass(frozen=True, slots=True)
class Connection:
    """A chaincode that serves, and that the peer dials.

    Attributes:
        address: host:port.
        dial_timeout: seconds for one attempt.
        tls: None for plaintext.
    """

    address: str
    dial_timeout: float
    tls: ConnectionTLS | None


@dataclass(frozen=True, slots=True)
class Package:
    """What can be launched.

    Attributes:
        id: label:hash.
        label: the package's.
        name: the chaincode's, under which it is called.
        version: what its endorsements name.
        place: its folder or file.
        launch: how.
    """

    id: str
    label: str
    name: str
    version: str
    place: Path
    launch: Command | Connection

    @property
    def short_id(self) -> str:
        """The id with so much of the hash as tells packages apart."""
        return f"{self.label}:{self.id[len(self.label) + 1 :][:_SHORT_HASH]}"

    def accepts(self, registered: str) -> bool:
        """Whether a name in REGISTER is one of its own: the package's id or label, or the
        chaincode's name with any version."""
        return registered in (self.id, self.label) or registered.partition(":")[0] == self.name


def read_package(
    metadata: bytes,
    connection: bytes | None,
    digest: str,
    place: Path,
    templates: Mapping[str, str],
) -> Package:
    """What the files of a package say.

    Args:
        metadata: the content of metadata.json.
        connection: that of connection.json, if there is one.
        digest: the hash in its id.
        place: its folder or file; a process needs a folder.
        templates: what stands for `{{.name}}` in connection.json.

    Raises:
        BrokenPackage: with what is wrong and what to do, and with the chaincode's name from where
            that is known.
    """
    document = _Document(metadata, METADATA)
    label = document.name("label", _LABEL)
    name, version = label, DEFAULT_VERSION
    if parts := _LABEL_WITH_VERSION.fullmatch(label):
        name, version = parts.groups()
    name = document.name("name", _LABEL, name)
    if name in SYSTEM_CHAINCODES:
        raise BrokenPackage(f"{METADATA} names chaincode {name}, which is a part of the peer")
    try:
        version = document.name("version", _VERSION, version)
        launch = _read_launch(document, connection, place, templates)
    except BrokenPackage as error:
        error.chaincode = name
        raise
    return Package(f"{label}:{digest}", label, name, version, place, launch)


def _read_launch(
    metadata: _Document, connection: bytes | None, place: Path, templates: Mapping[str, str]
) -> Command | Connection:
    kind = metadata.text("type").lower()
    if kind == "process":
        if not place.is_dir():
            raise BrokenPackage(
                "a package of type process cannot be installed, for whoever may install would run "
                "commands as the peer's user: put its folder into chaincode.packages on the peer's "
                "disk"
            )
        return _read_command(metadata, place)
    if kind == "ccaas":
        if connection is None:
            raise BrokenPackage(
                f"there is no {CONNECTION}: put one beside {METADATA}, or into code.tar.gz, with "
                "the address of the chaincode"
            )
        return _read_connection(_Document(connection, CONNECTION, templates))
    raise BrokenPackage(
        f"{METADATA} has the type {quoted(kind)}, and this peer builds no chaincode: package it as "
        "ccaas, which serves and is dialled, or as process, or start it yourself and let it dial in"
    )


def _read_command(metadata: _Document, place: Path) -> Command:
    words = metadata.get("command")
    if not isinstance(words, list) or not words or not all(map(_is_word, words)):
        raise BrokenPackage(
            f'{METADATA} lacks "command", a list of words such as ["python", "chaincode.py"]'
        )
    environment = metadata.get("environment", {})
    if not isinstance(environment, dict) or not all(
        _VARIABLE.fullmatch(name) and _is_text(value) for name, value in environment.items()
    ):
        raise BrokenPackage(
            f'"environment" in {METADATA} must be an object of variables, with text as values'
        )
    enrolment = metadata.text("enrolment", "")
    return Command(
        tuple(words),
        environment,
        place / metadata.text("directory", "."),
        place / metadata.text("tls", "tls"),
        place / enrolment if enrolment else None,
    )


def _is_word(word: object) -> bool:
    return bool(word) and _is_text(word)


def _is_text(value: object) -> bool:
    """Whether others can be told it: JSON can escape half a character, which nothing encodes."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_connection(document: _Document) -> Connection:
    address = document.text("address")
    try:
        HostPort().check(address)
        if not _HOST.fullmatch(address.rpartition(":")[0]):
            raise ValueError("host:port with the name of a host, an address, or [::1]")
    except ValueError as error:
        raise BrokenPackage(
            f"the address in {CONNECTION} is {quoted(address)}, but must be {error}"
        ) from error
    tls = None
    if document.flag("tls_required"):
        root = document.pem("root_cert", _CERTIFICATE_CHARACTERS) or None
        shows = document.flag("client_auth_required")
        tls = ConnectionTLS(root, shows, _read_pair(document) if shows else None)
        if root is not None:
            _check_root(root)
    return Connection(address, _read_dial_timeout(document), tls)


def _read_dial_timeout(document: _Document) -> float:
    value = document.get("dial_timeout")
    if value in (None, "", 0):
        return _DIAL_TIMEOUT
    try:
        # A number is one of nanoseconds, as for Go.
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        seconds = value / 1e9 if is_number else parse_duration(document.text("dial_timeout"))
    except (ValueError, OverflowError):
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_DIAL_TIMEOUT:
        raise BrokenPackage(
            f"dial_timeout in {CONNECTION} is {quoted(str(value))}, but must be a duration of at "
            'most ten minutes, such as "10s"'
        )
    return float(seconds)


def _check_root(pem: bytes) -> None:
    try:
        x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BrokenPackage(
            f"root_cert in {CONNECTION} holds no certificate in PEM: put the root of the "
            "chaincode's certificate there, with its line breaks as \\n"
        ) from error


def _read_pair(document: _Document) -> tuple[bytes, bytes] | None:
    certificate = document.pem("client_cert", _CERTIFICATE_CHARACTERS)
    key = document.pem("client_key", _KEY_CHARACTERS)
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise BrokenPackage(
            f"of client_cert and client_key in {CONNECTION} one is missing: give both, or neither "
            "for this peer's own"
        )
    try:
        own = x509.load_pem_x509_certificates(certificate)[0].public_key()
        # Whether RSA's numbers are primes takes long, and shows when it is used.
        private = load_pem_private_key(key, password=None, unsafe_skip_rsa_key_validation=True)
        public = private.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BrokenPackage(
            f"client_cert or client_key in {CONNECTION} cannot be read: give a certificate and its "
            "unencrypted key, both in PEM"
        ) from error
    is_usual = isinstance(public, ec.EllipticCurvePublicKey) or (
        isinstance(public, rsa.RSAPublicKey) and public.key_size <= _RSA_BITS
    )
    if not is_usual:
        raise BrokenPackage(
            f"client_key in {CONNECTION} must be a key of ECDSA, or of RSA with at most "
            f"{_RSA_BITS} bits: issue another one"
        )
    if public != own:
        raise BrokenPackage(
            f"client_key in {CONNECTION} is not the key of client_cert: give the matching pair"
        )
    return certificate, key


class _Document:
    """A JSON object of a package, whose values are asked for by type."""

    def __init__(
        self, data: bytes, source: str, templates: Mapping[str, str] | None = None
    ) -> None:
        self._source = source
        self._templates = templates
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BrokenPackage(f"{source} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise BrokenPackage(f"{source} is not a JSON object")
        self._content = content

    def get(self, key: str, default: object = None) -> Any:
        """The value as it is; null is as good as none."""
        value = self._content.get(key)
        return default if value is None else value

    def text(self, key: str, default: str | None = None) -> str:
        """A text with what templates stand for; one without default must be there."""
        value = self.get(key, default)
        if not isinstance(value, str) or (default is None and not value) or not _is_text(value):
            raise BrokenPackage(f'{self._source} lacks the text "{key}"')
        return value if self._templates is None else _TEMPLATE.sub(self._substitute, value)

    def pem(self, key: str, limit: int) -> bytes:
        """A text of so many characters at most; empty when it is missing."""
        value = self.text(key, "")
        if len(value) > limit:
            raise BrokenPackage(
                f"{key} in {self._source} has {len(value)} characters, but must have at most "
                f"{limit}: give what is needed and no more"
            )
        return value.encode()

    def name(self, key: str, form: re.Pattern[str], default: str | None = None) -> str:
        """A text of some form."""
        value = self.text(key, default)
        if len(value) > _LONGEST or not form.fullmatch(value):
            raise BrokenPackage(
                f"the {key} in {self._source} is {quoted(value)}, but must be letters, digits and "
                f"_ . + -, at most {_LONGEST}, beginning with a letter or digit"
            )
        return value

    def flag(self, key: str) -> bool:
        """A truth value; false when it is missing."""
        value = self.get(key, False)
        if not isinstance(value, bool):
            raise BrokenPackage(f'"{key}" in {self._source} must be true or false')
        return value

    def _substitute(self, template: re.Match[str]) -> str:
        assert self._templates is not None
        try:
            return self._templates[template[1]]
        except KeyError:
            known = ", ".join(f"{{{{.{name}}}}}" for name in self._templates)
            raise BrokenPackage(
                f"{self._source} has the template {quoted(template[0])}: here there is only {known}"
            ) from None
