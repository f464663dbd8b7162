"""What the hub counts. No label carries a consumer, a transaction or a chaincode."""

from prometheus_client import Counter, Gauge

CONSUMERS = Gauge("eventhub_consumers", "Streams of consumers that are open.", ["kind"])
INTERESTS = Gauge("eventhub_interests", "Interests that are registered, over all consumers.")
REGISTRATIONS = Counter(
    "eventhub_registrations",
    "Interests that consumers registered or unregistered, and what came of it.",
    ["operation", "result"],
)
REFUSED_MESSAGES = Counter(
    "eventhub_refused_messages",
    "Signed messages of consumers that were refused, by the check they failed.",
    ["check"],
)
EVENTS_DELIVERED = Counter(
    "eventhub_events_delivered",
    "Events handed to the outboxes of consumers, once for each consumer.",
    ["type"],
)
REPLAYS = Gauge(
    "eventhub_replays", "Chat consumers that are being told the past of a channel, by channel each."
)
REPLAY_READS_FAILED = Counter(
    "eventhub_replay_reads_failed",
    "Older blocks that no source gave when a consumer was to hear of them; asked for again.",
    ["channel"],
)
NOTICES = Counter(
    "eventhub_notices",
    "Notices sent to subscribers: of transactions, and of positions that have moved.",
    ["kind"],
)
EVENTS_ABANDONED = Counter(
    "eventhub_events_abandoned",
    "Events that were still in the outbox of a consumer when its stream ended.",
)
CONSUMERS_CLOSED = Counter(
    "eventhub_consumers_closed", "Streams of consumers that ended, by the reason.", ["reason"]
)
OUTBOX_EVENTS = Gauge("eventhub_outbox_events", "Events waiting in outboxes, over all consumers.")
OUTBOX_BYTES = Gauge(
    "eventhub_outbox_bytes",
    "Bytes waiting in outboxes and their streams, over all consumers; bytes that consumers share "
    "count for each.",
)
PROCESSOR_DEPTH = Gauge("eventhub_processor_depth", "Publications waiting in the processor.")
PROCESSOR_BYTES = Gauge(
    "eventhub_processor_bytes", "Bytes of blocks waiting in the processor, of all sources."
)
PUBLICATIONS_DROPPED = Counter(
    "eventhub_publications_dropped",
    "Events of publishers that found the processor full. Blocks of a source are never among them.",
)
PRODUCERS = Gauge("eventhub_producers", "Publish streams that are open.")
PRODUCERS_REFUSED = Counter(
    "eventhub_producers_refused", "Publish streams refused, as many being open as may be."
)
WATCHERS = Gauge("eventhub_watchers", "Watch streams that are open.")
WATCHERS_REFUSED = Counter(
    "eventhub_watchers_refused", "Watch streams refused, as many being open as may be."
)
PUBLICATIONS_ACCEPTED = Counter(
    "eventhub_publications_accepted", "Events of producers that entered the processor."
)
PUBLICATIONS_REFUSED = Counter(
    "eventhub_publications_refused", "Events of producers that were not taken.", ["reason"]
)
PUBLICATIONS_FAILED = Counter(
    "eventhub_publications_failed", "Publications whose events could not be built."
)
SOURCE_CONNECTED = Gauge(
    "eventhub_source_connected", "1 while the stream to a source stands, else 0.", ["channel"]
)
SOURCE_HEIGHT = Gauge(
    "eventhub_source_height",
    "Number of blocks of the channel whose events were handed to the outboxes.",
    ["channel"],
)
SOURCE_BEHIND = Gauge(
    "eventhub_source_behind",
    "Blocks that the source has, as far as was seen, and whose events were not handed over yet.",
    ["channel"],
)
SOURCE_UNFIT = Gauge(
    "eventhub_source_unfit",
    "1 while the source's blocks do not continue those that were read, or one is too large; else "
    "0.",
    ["channel"],
)
SOURCE_FAILURES = Counter(
    "eventhub_source_failures",
    "Streams to a source that ended.",
    ["channel", "cause"],
)
HISTORY_BLOCKS = Counter(
    "eventhub_history_blocks",
    "Blocks that were told of before, and were read from the source again.",
    ["channel"],
)
HISTORY_FAILURES = Counter(
    "eventhub_history_failures",
    "Streams for older blocks that ended, and blocks that the source refused.",
    ["channel", "cause"],
)
HISTORY_UNFIT = Gauge(
    "eventhub_history_unfit",
    "1 while an older block that was wanted is not the channel's, or too large, and no address of "
    "the source gives it; else 0.",
    ["channel"],
)
HISTORY_WAITING = Gauge(
    "eventhub_history_waiting", "Older blocks that are waited for.", ["channel"]
)
HISTORY_BYTES = Gauge(
    "eventhub_history_bytes",
    "Memory that older blocks of the channel take, with what was made of them.",
    ["channel"],
)
RECENT_BYTES = Gauge(
    "eventhub_recent_bytes",
    "Memory that the newest blocks of the channel take, with what was made of them.",
    ["channel"],
)
