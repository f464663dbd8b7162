"""Who a chaincode is: the name in its REGISTER, and the certificate that proves it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from chaincode_support.system.names import SYSTEM_CHAINCODES
from selvedge_common.comm import StatusError
from selvedge_common.quoting import printable
from selvedge_protos.peer.chaincode_pb2 import ChaincodeID

# A chaincode's name as Fabric's lifecycle has it, or a package's label; what may follow the colon
# is a version or a package's hash.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*(:[A-Za-z0-9_.+-]+)?")
_MAX_NAME = 256
# What a chaincode that registers without a version is endorsed as: a transaction must name one.
DEFAULT_VERSION = "1.0"

_URI = "selvedge://chaincode/"


@dataclass(frozen=True, slots=True)
class Expected:
    """Whom the peer dialled or started itself.

    Attributes:
        name: the chaincode's name, under which it is called.
        version: what its endorsements name.
        accepts: whether a name in REGISTER is one of its own, such as its package's id.
    """

    name: str
    version: str
    accepts: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Registration:
    """What REGISTER said.

    Attributes:
        registered: the name as it was sent.
        name: the chaincode's name, without a version.
        version: what its endorsements name.
    """

    registered: str
    name: str
    version: str


def read_registration(payload: bytes, expected: Expected | None) -> Registration:
    """The content of a REGISTER. Raises StatusError: INVALID_ARGUMENT, PERMISSION_DENIED."""
    try:
        registered = ChaincodeID.FromString(payload).name
    except DecodeError as error:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"the payload of REGISTER ({len(payload)} bytes) is not a protos.ChaincodeID: {error}",
        ) from error
    if len(registered) > _MAX_NAME or not _NAME.fullmatch(registered):
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"REGISTER names the chaincode {registered[:_MAX_NAME]!r}; a name is a letter or "
            "digit, then letters, digits and _ . + -, then optionally a colon and a version "
            f"(mycc:1.0), in at most {_MAX_NAME} characters: set CORE_CHAINCODE_ID_NAME to one",
        )
    if registered.partition(":")[0] in SYSTEM_CHAINCODES:
        raise StatusError(
            grpc.StatusCode.PERMISSION_DENIED,
            f"REGISTER names chaincode {registered}, which is a part of the peer: register another "
            "name",
        )
    if expected is None:
        name, _, version = registered.partition(":")
        return Registration(registered, name, version or DEFAULT_VERSION)
    if not expected.accepts(registered):
        raise StatusError(
            grpc.StatusCode.PERMISSION_DENIED,
            f"REGISTER names chaincode {registered}, but what the peer dialled is the package of "
            f"chaincode {expected.name}: start it with its package's id as CORE_CHAINCODE_ID_NAME, "
            "or correct the address in its connection.json",
        )
    return Registration(registered, expected.name, expected.version)


def is_chaincode(certificate_names: Sequence[str]) -> bool:
    """Whether a certificate with these alternative names is any chaincode's."""
    return any(name.startswith(_URI) for name in certificate_names)


def check_is_no_other(name: str, certificate_names: Sequence[str]) -> None:
    """Return when a server's certificate with these alternative names is this chaincode's, or none
    of ours.

    Raises StatusError PERMISSION_DENIED, with both names.
    """
    chaincodes = [each for each in certificate_names if each.startswith(_URI)]
    if chaincodes and _URI + name not in chaincodes:
        raise StatusError(
            grpc.StatusCode.PERMISSION_DENIED,
            f"the chaincode that serves there has the certificate of "
            f"{printable(', '.join(chaincodes))}, not of {name}: correct the address, or issue its "
            f"own with `selvedge ca issue --chaincode {name} --host HOST`",
        )


def check_is_named(name: str, certificate_names: Sequence[str], common_name: Sequence[str]) -> None:
    """Return when a certificate with these alternative names is this chaincode's.

    Raises StatusError PERMISSION_DENIED, with both names.
    """
    wanted = _URI + name
    if wanted in certificate_names:
        return
    chaincodes = ", ".join(each for each in certificate_names if each.startswith(_URI))
    presented = chaincodes or f"{', '.join(common_name) or 'nobody'}, which is no chaincode"
    raise StatusError(
        grpc.StatusCode.PERMISSION_DENIED,
        f"REGISTER names chaincode {name}, but the client certificate is for "
        f"{printable(presented)}: it must hold the URI {wanted}; issue one with `selvedge ca issue "
        f"--chaincode {name}`",
    )
