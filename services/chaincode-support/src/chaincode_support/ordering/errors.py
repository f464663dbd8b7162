"""What can go wrong in ordering, each cause with its own type."""


class OrderingError(Exception):
    """Base of every ordering failure; the message is a sentence for people."""


class OrderingFull(OrderingError):
    """As much as the settings allow is waiting to become durable."""


class OrderingFailed(OrderingError):
    """The block that held the envelope could not be made durable; it is not ordered."""


class OrderingClosed(OrderingError):
    """The ordering is shutting down."""


class LogUnusable(OrderingError):
    """The ordering log cannot be opened, is damaged, or belongs to something else."""
