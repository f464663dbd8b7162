"""The address that a chaincode of this shell dials: who listens there."""

from __future__ import annotations

from collections.abc import Iterator

from selvedge_cli.addresses import port_of
from selvedge_cli.doctor.findings import Finding, Severity, error, note, warning
from selvedge_cli.doctor.installation import Installation
from selvedge_cli.doctor.listener import HTTP2, Fault, dial
from selvedge_cli.doctor.listeners import Listener, known_listeners
from selvedge_cli.doctor.shell import ADDRESS, starts_chaincode
from selvedge_cli.errors import CommandError


def examine(installation: Installation) -> Iterator[Finding]:
    """Dial what CORE_PEER_ADDRESS names, unless that is the home's chaincode listener, which is
    examined with all others."""
    address = dialled(installation)
    right = installation.settings.addresses.chaincode
    if address == right:
        return
    # Without a chaincode in sight it may be meant for Fabric's `peer` command.
    is_for_chaincode = installation.chaincode is not None or starts_chaincode(installation.environ)
    wrong = error if is_for_chaincode else warning
    remedy = f"chaincode dials {right}: export {ADDRESS}={right}"
    try:
        listener = _known(installation, address)
    except CommandError:
        yield error(ADDRESS, f"{address!r} is no address", remedy)
        return
    fault = _dial(installation, address, HTTP2 if listener is None else listener.protocol)
    if listener is not None and listener.address != right:
        but = f" ({fault.what})" if fault else ""
        yield wrong(ADDRESS, f"{address} is {_purpose(installation, listener)}{but}", remedy)
    elif fault is not None:
        yield wrong(ADDRESS, f"{address}: {fault.what}", remedy)
    elif listener is None:
        yield note(
            ADDRESS,
            f"at {address} listens a service of our root that is at none of this home's addresses",
            f"{remedy}; if it is the chaincode listener, export SELVEDGE_CHAINCODE={address}",
        )


def dialled(installation: Installation) -> str:
    """What a chaincode of this shell dials; where nothing is said, the home's own listener."""
    address = installation.environ.get(ADDRESS, "").strip()
    return address or installation.settings.addresses.chaincode


def is_wrong(installation: Installation) -> bool:
    """Whether a chaincode of this shell comes to nobody who would register it."""
    return any(finding.severity is not Severity.NOTE for finding in examine(installation))


def _known(installation: Installation, address: str) -> Listener | None:
    """Which of ours has that port, under whatever name its host is dialled; None for none."""
    port = port_of(address)
    known = known_listeners(installation)
    return next((each for each in known if port_of(each.address) == port), None)


def _dial(installation: Installation, address: str, protocol: str | None) -> Fault | None:
    try:
        dial(address, installation.root, installation.pair, protocol=protocol)
    except Fault as fault:
        return fault
    return None


def _purpose(installation: Installation, listener: Listener) -> str:
    if listener.address == installation.settings.addresses.peer:
        return "the peer API, which Fabric's `peer` command dials, and a chaincode must not"
    return f"{listener.service}'s {listener.purpose}, where no chaincode registers"
