"""The peer's chaincodes for people, aligned, and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from selvedge_cli.columns import aligned
from selvedge_cli.durations import ago
from selvedge_cli.records import Record
from selvedge_common.quoting import printable
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import Chaincode, Stream

_HEADINGS = ("NAME", "VERSION", "STARTED BY", "STATE", "UP", "RUNNING", "COMPLETED", "FAILED")
_NUMBERS = {"RUNNING", "COMPLETED", "FAILED"}
_STARTED_BY = {
    Chaincode.EXTERNAL: "others",
    Chaincode.PROCESS: "the peer",
    Chaincode.SERVICE: "others, dialled",
}
_REASON_CHARACTERS = 400  # of what a chaincode says of its failure


def table(chaincodes: Sequence[Chaincode], now: datetime) -> Iterator[str]:
    """The lines for people: headings, a line for each chaincode, what is to be said of it below.

    Args:
        chaincodes: as the peer tells them.
        now: the present, to tell how long ago something was.
    """
    heading, *rows = aligned([_HEADINGS, *(_row(each, now) for each in chaincodes)], _NUMBERS)
    yield heading
    for chaincode, row in zip(chaincodes, rows, strict=True):
        yield row
        for line in _below(chaincode, now):
            # Names and failures are a stranger's: they must neither command the terminal nor fake a
            # line.
            yield "  " + printable(line, limit=len(line))


def record(chaincode: Chaincode) -> Record:
    """A chaincode as `--json` prints it: times in ISO 8601, enumerations in lower case."""
    return {
        "name": chaincode.name,
        "version": chaincode.version,
        "launcher": Chaincode.Launcher.Name(chaincode.launcher).lower(),
        "launcher_state": chaincode.launcher_state,
        "package_id": chaincode.package_id,
        "init_required": chaincode.init_required,
        "running": chaincode.running,
        "completed": chaincode.completed,
        "failed": chaincode.failed,
        "last_error": chaincode.last_error,
        "last_error_at": _iso(chaincode, "last_error_at"),
        "streams": [
            {
                "registered_name": stream.registered_name,
                "peer": stream.peer,
                "state": state_of(stream),
                "since": _iso(stream, "since"),
                "running": stream.running,
                "completed": stream.completed,
                "failed": stream.failed,
            }
            for stream in chaincode.streams
        ],
    }


def state_of(stream: Stream) -> str:
    """A stream's state in a word."""
    return Stream.State.Name(stream.state).lower()


def _row(chaincode: Chaincode, now: datetime) -> tuple[str, ...]:
    since = min((stream.since.ToDatetime(UTC) for stream in chaincode.streams), default=None)
    cells = (
        chaincode.name,
        chaincode.version or "-",
        _STARTED_BY.get(chaincode.launcher, "-"),
        _state(chaincode),
        "-" if since is None else ago(since, now),
        str(chaincode.running),
        str(chaincode.completed),
        str(chaincode.failed),
    )
    return tuple(printable(cell) for cell in cells)


def _state(chaincode: Chaincode) -> str:
    if chaincode.launcher == Chaincode.SYSTEM:
        return "part of the peer"
    states = Counter(map(state_of, chaincode.streams))
    if not states:
        return "not connected"
    if len(chaincode.streams) == 1:
        return next(iter(states))
    return ", ".join(f"{count} {state}" for state, count in states.items())


def _below(chaincode: Chaincode, now: datetime) -> Iterator[str]:
    if chaincode.init_required:
        yield "its Init comes first, once a version: chaincode.initRequired"
    if chaincode.package_id:
        yield f"package {chaincode.package_id}"
    if chaincode.launcher_state:
        yield chaincode.launcher_state
    streams = chaincode.streams
    if len(streams) > 1 or any(stream.state != Stream.READY for stream in streams):
        for stream in streams:
            yield (
                f"{stream.registered_name} at {stream.peer}: {state_of(stream)}, up "
                f"{ago(stream.since.ToDatetime(UTC), now)}, {stream.running} running, "
                f"{stream.completed} completed, {stream.failed} failed"
            )
    if chaincode.last_error:
        reason = printable(chaincode.last_error, _REASON_CHARACTERS)
        yield f"last error, {ago(chaincode.last_error_at.ToDatetime(UTC), now)} ago: {reason}"


def _iso(message: Chaincode | Stream, field: str) -> str | None:
    # Presence is asked for by name: an unset time would otherwise be that of 1970.
    if not message.HasField(field):  # type: ignore[arg-type]
        return None
    moment: Timestamp = getattr(message, field)
    return moment.ToDatetime(UTC).isoformat()
