"""What can go wrong in ordering, each cause with its own type."""


class OrderingError(Exception):
    """Base of every ordering failure; the message is a sentence for people."""


class OrderingRefused(OrderingError):
    """The envelope was not taken; `reason` is a word for metrics."""

    reason: str


class OrderingFull(OrderingRefused):
    """As much as the settings allow is waiting to become durable."""

    reason = "full"


class OrderingClosed(OrderingRefused):
    """The ordering is shutting down."""

    reason = "closed"


class LedgerBehind(OrderingRefused):
    """As much as the settings allow is ordered and not committed yet."""

    reason = "behind"


class CommittingStopped(OrderingRefused):
    """What is ordered is not committed until the service has been mended and started anew."""

    reason = "stopped"


class LogDamaged(OrderingRefused):
    """The ordering log can take nothing until it has been mended and the service started anew."""

    reason = "damaged"


class OrderingFailed(OrderingError):
    """The block that held the envelope is not known to be durable; it may prove to be, once."""


class PositionTaken(OrderingError):
    """Another block has the place in the ordering log that this one was to have."""


class LogUnwritable(OrderingError):
    """A block is not known to be in the ordering log, for a reason that may pass."""


class LogUnreadable(OrderingError):
    """A block of the ordering log cannot be read for a reason that may pass."""


class LogUnusable(OrderingError):
    """The ordering log cannot be opened, is damaged, or belongs to something else."""
