"""Why something is not done, each cause with its own type."""


class MaintenanceError(Exception):
    """Base of every failure; the message is a sentence for people."""


class NothingThere(MaintenanceError):
    """The volume or backup has no such channel, or none at all."""


class NotNow(MaintenanceError):
    """A file cannot be read or written for a reason that may pass; it may be sound."""


class NoRoom(MaintenanceError):
    """The disk has not enough room for what is to be written."""


class InTheWay(MaintenanceError):
    """Files that would be overwritten are there already."""


class NoBackup(MaintenanceError):
    """The folder holds no backup, or one that is not whole."""


class BlockLost(MaintenanceError):
    """Neither of a channel's files holds a block any more."""


class TwoChains(MaintenanceError):
    """A channel's files hold blocks that do not belong together."""


class Damaged(Exception):
    """A file, or a block in it, is not as it was written; the message says what is wrong."""
