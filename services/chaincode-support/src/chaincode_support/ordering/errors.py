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
    """As many blocks as the settings allow are ordered and not committed yet."""

    reason = "behind"


class CommittingStopped(OrderingRefused):
    """What is ordered is not committed until the service has been mended and started anew."""

    reason = "stopped"


class LogDamaged(OrderingRefused):
    """The ordering log can take nothing until it has been mended and the service started anew."""

    reason = "damaged"


class OrderingFailed(OrderingError):
    """The block that held the envelope could not be made durable; it is not ordered."""


class LogUnreadable(OrderingError):
    """A block of the ordering log cannot be read for a reason that may pass."""


class LogUnusable(OrderingError):
    """The ordering log cannot be opened, is damaged, or belongs to something else."""
