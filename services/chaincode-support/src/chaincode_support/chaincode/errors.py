"""Why a chaincode did not answer a proposal: one class per cause, each carrying its sentence.

The sentence goes to the client in the proposal response, so it says what was wrong, where, and
what to do about it.
"""

from __future__ import annotations


class ChaincodeError(Exception):
    """An execution that ended without a result of the chaincode's own."""


class UnknownChaincode(ChaincodeError):
    """No chaincode of that name has ever registered here."""


class LaunchTimeout(ChaincodeError):
    """The chaincode registered before, is gone, and did not come back in time."""


class ExecuteTimeout(ChaincodeError):
    """The chaincode did not complete the transaction in time."""


class StreamTerminated(ChaincodeError):
    """The chaincode's stream ended while the transaction ran."""


class TransactionRunning(ChaincodeError):
    """The same transaction already runs on this chaincode."""


class TooManyTransactions(ChaincodeError):
    """The chaincode runs as many transactions as one stream may."""


class MessageTooLarge(ChaincodeError):
    """The transaction is larger than the chaincode's stream takes, or takes now."""


class TooManyWaiting(ChaincodeError):
    """As many proposals as may already wait for the chaincode to come back."""


class ChaincodeFailure(ChaincodeError):
    """The chaincode answered with ERROR, or a failed write aborted its transaction."""


class NotInitialized(ChaincodeError):
    """The chaincode's definition wants Init first, or no (further) Init."""


class CallRefused(ChaincodeError):
    """A chaincode may not call what it asked for."""


class DuplicateChaincode(Exception):
    """A second stream asked for a name that another stream holds."""


class TooManyReplicas(Exception):
    """As many streams as may already serve the name."""


class RequestError(Exception):
    """A request of a running transaction cannot be done; its text is the reason in the ERROR."""
