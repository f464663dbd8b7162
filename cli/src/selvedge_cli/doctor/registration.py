"""Whether one chaincode can register: its certificate, the listener that it dials, and the peer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC

from selvedge_cli.chaincode_table import state_of
from selvedge_cli.doctor.address import dialled, is_wrong
from selvedge_cli.doctor.chaincodes import ask
from selvedge_cli.doctor.findings import Finding, error, note
from selvedge_cli.doctor.installation import Installation
from selvedge_cli.doctor.listener import Fault, dial
from selvedge_cli.doctor.shell import chaincode_name
from selvedge_cli.durations import ago
from selvedge_cli.errors import CallRefused
from selvedge_common.enrolment.material import defect
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import Chaincode


def examine(installation: Installation) -> Iterator[Finding]:
    """Follow it from its shell to the peer; nothing to examine where no chaincode was named.

    The listener is dialled with the chaincode's own certificate. Nothing is registered: a REGISTER
    in its name would be in the way of the chaincode itself.
    """
    if installation.chaincode is None:
        return
    yield from _name(installation, installation.chaincode)
    yield from _listener(installation, installation.chaincode)
    yield from _registration(installation, installation.chaincode)


def _name(installation: Installation, name: str) -> Iterator[Finding]:
    here = chaincode_name(installation.environ)
    if here is not None and here != name:
        yield error(
            "CORE_CHAINCODE_ID_NAME",
            f"in this shell a chaincode registers as {here}, and not as {name}",
            f"export CORE_CHAINCODE_ID_NAME={name}:1.0",
        )


def _listener(installation: Installation, name: str) -> Iterator[Finding]:
    holder = installation.holder_of(name)
    (credential,) = holder.credentials
    if not holder.folder.is_dir():
        yield error(holder.folder, f"{name} has no certificate", holder.renewal)
        return
    if defect(holder.folder, credential, None, installation.now) is not None:
        return  # said of all certificates
    if is_wrong(installation):
        return  # said of this shell
    address = dialled(installation)
    pair = holder.folder / credential.certificate, holder.folder / credential.key
    where = f"{address}, dialled with {name}'s certificate"
    try:
        dial(address, holder.root, pair)
    except Fault as fault:
        yield error(where, fault.what, fault.remedy)
        return
    yield note(
        where,
        "the chaincode listener accepts it",
        "a chaincode that cannot connect does not use this one, or dials elsewhere",
    )


def _registration(installation: Installation, name: str) -> Iterator[Finding]:
    try:
        known = ask(installation)
    except CallRefused:
        return  # said of all chaincodes
    if known is None:
        return
    chaincode = next((each for each in known if each.name == name), None)
    where = f"chaincode {name}"
    if chaincode is None:
        yield error(
            where,
            "it never registered with this peer",
            f"start it, with what `selvedge ca issue --chaincode {name}` prints; its log says what "
            "it dials",
        )
    elif not chaincode.streams and chaincode.launcher == Chaincode.EXTERNAL:
        yield error(
            where,
            "it registered before, and is not connected now",
            "start it: most shims end when the peer goes away; its log says why it ended",
        )
    for stream in chaincode.streams if chaincode is not None else ():
        yield note(
            where,
            f"it is registered as {stream.registered_name} from {stream.peer}, {state_of(stream)}, "
            f"up {ago(stream.since.ToDatetime(UTC), installation.now)}",
            f"call it with `selvedge query {name} FUNCTION ARGUMENT...`",
        )
