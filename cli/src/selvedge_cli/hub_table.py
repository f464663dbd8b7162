"""The event hub's state for people, aligned, and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from selvedge_cli.columns import aligned
from selvedge_cli.durations import ago
from selvedge_cli.records import Record
from selvedge_common.quoting import printable
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import (
    ChannelState,
    ConsumerState,
    HubState,
    ProducersState,
)

TROUBLE_CHARACTERS = 400
"""How much is shown of what a source says."""

_CHANNEL_HEADINGS = ("CHANNEL", "HEIGHT", "BEHIND", "SOURCE")
_HEADINGS = (*("SERVICE", "PEER", "IDENTITY", "UP", "WAITING", "BEHIND", "DELIVERED", "INTERESTS"),)
_NUMBERS = {"HEIGHT", "BEHIND", "WAITING", "DELIVERED"}


def table(state: HubState) -> Iterator[str]:
    """The lines for people: the channels, the consumers, and what ended before."""
    at = state.at.ToDatetime(UTC)
    up = ago(state.started.ToDatetime(UTC), at)
    yield f"{printable(state.hub)}: up {up}, at {at:%H:%M:%S} UTC"
    yield ""
    channels = [_CHANNEL_HEADINGS, *map(_channel_row, state.channels)]
    heading, *lines = aligned(channels, _NUMBERS)
    yield heading
    for channel, line in zip(state.channels, lines, strict=True):
        yield line
        if channel.trouble:
            yield f"  {printable(channel.trouble, TROUBLE_CHARACTERS)}"
    yield ""
    if state.consumers:
        yield from aligned([_HEADINGS, *(_row(each, at) for each in state.consumers)], _NUMBERS)
        yield ""
    yield _open(state)
    yield f"ended since the start: {_counts(state.ended) or 'none'}"
    yield _producers(state.producers)


def record(state: HubState) -> Record:
    """The state as `--json` prints it: times in ISO 8601, services in lower case."""
    return {
        "type": "hub",
        "hub": state.hub,
        "started": _iso(state.started),
        "at": _iso(state.at),
        "channels": [
            {
                "name": channel.name,
                "height": channel.height,
                "source": channel.source,
                "behind": channel.behind,
                "trouble": channel.trouble,
            }
            for channel in state.channels
        ],
        "open": {service.lower(): count for service, count in sorted(state.open.items())},
        "waiting_events": state.waiting_events,
        "waiting_bytes": state.waiting_bytes,
        "consumers": [
            {
                "service": _service(consumer),
                "peer": consumer.peer,
                "identity": consumer.identity,
                "since": _iso(consumer.since),
                "interests": list(consumer.interests),
                "more_interests": consumer.more_interests,
                "delivered": consumer.delivered,
                "waiting_events": consumer.waiting_events,
                "waiting_bytes": consumer.waiting_bytes,
                "behind": dict(consumer.behind),
            }
            for consumer in state.consumers
        ],
        "ended": dict(sorted(state.ended.items())),
        "producers": {
            "open": state.producers.open,
            "accepted": state.producers.accepted,
            "dropped": dict(sorted(state.producers.dropped.items())),
        },
    }


def _channel_row(channel: ChannelState) -> tuple[str, ...]:
    cells = (channel.name, str(channel.height), str(channel.behind), channel.source or "none")
    return tuple(map(printable, cells))


def _row(consumer: ConsumerState, now: datetime) -> tuple[str, ...]:
    wanted = [*consumer.interests, *(["…"] if consumer.more_interests else [])]
    cells = (
        _service(consumer),
        consumer.peer,
        consumer.identity or "-",
        ago(consumer.since.ToDatetime(UTC), now),
        _waiting(consumer) if consumer.waiting_events or consumer.waiting_bytes else "-",
        _behind(consumer.behind),
        str(consumer.delivered),
    )
    # Names are a stranger's: they must neither command the terminal nor fake a line.
    interests = "; ".join(wanted)
    return (*map(printable, cells), printable(interests, limit=len(interests)))


def _service(consumer: ConsumerState) -> str:
    return ConsumerState.Service.Name(consumer.service).lower()


def _behind(blocks: Mapping[str, int]) -> str:
    return ", ".join(f"{channel}: {number}" for channel, number in sorted(blocks.items())) or "-"


def _waiting(consumer: ConsumerState) -> str:
    size = _size(consumer.waiting_bytes)
    return f"{consumer.waiting_events} ({size})" if consumer.waiting_events else size


def _open(state: HubState) -> str:
    total = sum(state.open.values())
    if not total:
        return "no consumers"
    open_ = {service.lower(): count for service, count in state.open.items() if count}
    waiting = f"; {_size(state.waiting_bytes)} wait for them" if state.waiting_bytes else ""
    told = len(state.consumers)
    shown = f"; above are the {told} that are furthest behind" if told < total else ""
    return f"{total} consumer{'s' * (total > 1)}: {_counts(open_)}{waiting}{shown}"


def _producers(producers: ProducersState) -> str:
    dropped = _counts(producers.dropped)
    return (
        f"producers: {producers.open} open, {producers.accepted} events taken, "
        f"{f'dropped: {dropped}' if dropped else 'none dropped'}"
    )


def _counts(counts: Mapping[str, int]) -> str:
    """Those there are most of first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number} {printable(name)}" for name, number in ordered)


def _size(number: int) -> str:
    """So many bytes, in a unit that makes it short."""
    size, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


def _iso(moment: Timestamp) -> str:
    return moment.ToDatetime(UTC).isoformat()
