"""The variables of this shell that a chaincode, or Fabric's `peer` command, would read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from selvedge_cli.doctor.findings import Finding, error, warning
from selvedge_cli.doctor.installation import Installation

NAME, ADDRESS, TLS = "CORE_CHAINCODE_ID_NAME", "CORE_PEER_ADDRESS", "CORE_PEER_TLS_ENABLED"
ROOT = "CORE_PEER_TLS_ROOTCERT_FILE"
# Certificate and key; shims of Fabric want base64 of the PEM in the second pair.
PLAIN_PAIR = "CORE_TLS_CLIENT_CERT_FILE", "CORE_TLS_CLIENT_KEY_FILE"
ENCODED_PAIR = "CORE_TLS_CLIENT_CERT_PATH", "CORE_TLS_CLIENT_KEY_PATH"
CHAINCODE_VARIABLES = (NAME, ADDRESS, TLS, ROOT, *PLAIN_PAIR, *ENCODED_PAIR)
"""What `selvedge ca issue --chaincode` prints."""
VARIABLES = (
    *CHAINCODE_VARIABLES,
    "CORE_CHAINCODE_LOGGING_LEVEL",
    "CORE_CHAINCODE_LOGGING_SHIM",
    "CORE_CHAINCODE_LOGGING_FORMAT",
    "CORE_CHAINCODE_BUILDLEVEL",
    "CORE_PEER_LOCALMSPID",
    "CORE_PEER_MSPCONFIGPATH",
    "CORE_PEER_TLS_CERT_FILE",
    "CORE_PEER_TLS_KEY_FILE",
    "CORE_PEER_TLS_CLIENTAUTHREQUIRED",
    "CORE_PEER_TLS_CLIENTCERT_FILE",
    "CORE_PEER_TLS_CLIENTKEY_FILE",
    "CORE_PEER_TLS_CLIENTROOTCAS_FILES",
    "CORE_PEER_TLS_SERVERHOSTOVERRIDE",
)
"""Those that Fabric's shims and its `peer` command read."""

_EVERY_SHIM = {"true", "false"}
_SOME_SHIMS = {"1", "t", "0", "f"}  # Go's alone
_URI = "selvedge://chaincode/"


class _Form(Enum):
    PEM = "PEM"
    BASE64 = "the base64 of PEM"
    OTHER = "neither PEM nor its base64"


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at what `selvedge ca issue --chaincode` has one export, and what else is like it."""
    environ = {name: value for name, value in installation.environ.items() if value.strip()}
    yield from _tls(environ)
    for variable in (ROOT, *PLAIN_PAIR):
        yield from _file(variable, environ, _Form.PEM)
    for variable in ENCODED_PAIR:
        yield from _file(variable, environ, _Form.BASE64)
    yield from _root(installation, environ)
    pairs = (*_pair(environ, ENCODED_PAIR, _decoded), *_pair(environ, PLAIN_PAIR, _pem))
    # Both forms of one certificate are there as a rule: whom it is not for is told once.
    yield from {finding.where: finding for finding in pairs}.values()
    yield from _no_pair(environ)


def chaincode_name(environ: Mapping[str, str]) -> str | None:
    """The name, without a version, by which a chaincode of this shell registers; None for none."""
    return environ.get(NAME, "").strip().partition(":")[0] or None


def starts_chaincode(environ: Mapping[str, str]) -> bool:
    """Whether these variables are for a chaincode, and not only for Fabric's `peer` command."""
    return any(environ.get(name) for name in (NAME, *PLAIN_PAIR, *ENCODED_PAIR))


def _tls(environ: Mapping[str, str]) -> Iterator[Finding]:
    value = environ.get(TLS, "true").strip()
    if value.lower() in _SOME_SHIMS:
        yield warning(
            TLS,
            f"it is {value!r}, which shims of Go understand, and those of Node and Python do not",
            f"export {TLS}={'true' if value.lower() in ('1', 't') else 'false'}",
        )
    elif value.lower() not in _EVERY_SHIM:
        yield error(TLS, f"it is {value!r}, which is no boolean", f"export {TLS}=true")
    elif value.lower() == "false":
        yield warning(
            TLS,
            "it is off: a chaincode of this shell dials in plaintext, and a service that is "
            "started here by hand serves in plaintext",
            f"export {TLS}=true, or unset it for services",
        )


def _file(variable: str, environ: Mapping[str, str], wanted: _Form) -> Iterator[Finding]:
    if variable not in environ:
        return
    file = Path(environ[variable])
    try:
        form = _form(file.read_bytes())
    except OSError as failure:
        yield error(
            variable,
            f"{file} cannot be read ({failure.strerror})",
            "`selvedge ca issue --chaincode NAME` prints the right ones",
        )
        return
    if form is not wanted:
        yield error(
            variable, f"{file} holds {form.value}, not {wanted.value}", _other(variable, form)
        )


def _other(variable: str, form: _Form) -> str:
    if variable in ENCODED_PAIR and form is _Form.PEM:
        plain = PLAIN_PAIR[ENCODED_PAIR.index(variable)]
        return f"name the .b64 file beside it, or set {plain} where the shim reads that"
    if variable in PLAIN_PAIR and form is _Form.BASE64:
        encoded = ENCODED_PAIR[PLAIN_PAIR.index(variable)]
        return f"name the file without .b64 beside it, or set {encoded} instead"
    return "`selvedge ca issue --chaincode NAME` prints the right ones"


def _root(installation: Installation, environ: Mapping[str, str]) -> Iterator[Finding]:
    if installation.root is None or ROOT not in environ:
        return
    theirs, ours = (_pem(file) for file in (Path(environ[ROOT]), installation.root))
    try:
        foreign = bool(
            theirs
            and ours
            and x509.load_pem_x509_certificate(theirs) != x509.load_pem_x509_certificate(ours)
        )
    except ValueError:
        return  # certificates in the home are a subject of their own
    if foreign:
        yield error(
            ROOT,
            f"{environ[ROOT]} is from another ca than {installation.root}",
            "`selvedge ca issue --chaincode NAME` prints the right one",
        )


def _pair(
    environ: Mapping[str, str], variables: tuple[str, str], read: Callable[[Path], bytes | None]
) -> Iterator[Finding]:
    given = [variable for variable in variables if variable in environ]
    if len(given) == 1:
        (missing,) = set(variables) - set(given)
        yield error(given[0], f"it is set, and {missing} is not", "set both, or neither")
    if len(given) < 2:
        return
    certificate, key = (read(Path(environ[variable])) for variable in variables)
    if certificate is None or key is None:
        return  # said of the file
    yield from _fit(environ, variables[0], certificate, key)


def _fit(
    environ: Mapping[str, str], variable: str, certificate: bytes, key: bytes
) -> Iterator[Finding]:
    issue = f"run `selvedge ca issue --chaincode {chaincode_name(environ) or 'NAME'}`"
    file = environ[variable]
    try:
        parsed = x509.load_pem_x509_certificate(certificate)
        fits = load_pem_private_key(key, None).public_key() == parsed.public_key()
    except (ValueError, TypeError) as failure:
        yield error(variable, f"{file}, or its key, cannot be used ({failure})", issue)
        return
    if not fits:
        yield error(
            variable, f"the key beside {file} is not its key", "name the pair of one folder"
        )
    if (name := chaincode_name(environ)) is not None and name not in (named := _named(parsed)):
        yield error(
            NAME,
            f"it registers {name}, and {file} is for {', '.join(named) or 'no chaincode'}",
            issue,
        )


def _no_pair(environ: Mapping[str, str]) -> Iterator[Finding]:
    dials_tls = NAME in environ and environ.get(TLS, "").strip().lower() == "true"
    if dials_tls and not any(name in environ for name in (*PLAIN_PAIR, *ENCODED_PAIR)):
        yield error(
            NAME,
            "a chaincode of this shell has no client certificate, which the listener demands",
            f"run `selvedge ca issue --chaincode {chaincode_name(environ)}`, and export what it "
            "prints",
        )


def _form(content: bytes) -> _Form:
    if b"-----BEGIN " in content:
        return _Form.PEM
    try:
        decoded = base64.b64decode(b"".join(content.split()), validate=True)
    except binascii.Error:
        return _Form.OTHER
    return _Form.BASE64 if b"-----BEGIN " in decoded else _Form.OTHER


def _pem(file: Path) -> bytes | None:
    """What a file of PEM holds; None for any other file."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    return content if _form(content) is _Form.PEM else None


def _decoded(file: Path) -> bytes | None:
    """The PEM that a file of base64 holds; None for any other file."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    return base64.b64decode(content) if _form(content) is _Form.BASE64 else None


def _named(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return [uri.removeprefix(_URI) for uri in uris if uri.startswith(_URI)]
