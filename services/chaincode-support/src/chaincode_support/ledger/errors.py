"""What can go wrong in a channel's ledger, each cause with its own type."""


class LedgerError(Exception):
    """Base of every ledger failure; the message is a sentence for people."""


class LedgerBusy(LedgerError):
    """Every snapshot that the settings allow is in use by a running simulation."""


class SimulationTooLarge(LedgerError):
    """The simulation reads and writes more than a transaction that can be ordered."""


class PagesAreReadOnly(LedgerError):
    """The transaction reads pages and writes: as in Fabric it can do one of them only."""


class NotKept(LedgerError):
    """The ledger keeps nothing of the kind that was asked for."""


class ReadFailed(LedgerError):
    """Something could not be read for a reason that may pass."""


class LedgerInUse(LedgerError):
    """Another process works on the channel's files."""


class LedgerUnusable(LedgerError):
    """The channel's file cannot be opened, is damaged, or belongs to something else."""


class LedgerClosed(LedgerError):
    """The ledger, or this simulation of it, has been closed."""


class BlockRefused(LedgerError):
    """The block does not continue this chain, or came without its checks."""


class BlockNotFound(LedgerError):
    """The ledger has not got that block."""


class TransactionNotFound(BlockNotFound):
    """No block of the ledger holds that transaction."""


class CommitFailed(LedgerError):
    """The block could not be written for a reason that may pass; nothing of it is stored."""
