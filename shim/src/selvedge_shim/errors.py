"""What can go wrong between a chaincode and its peer, one type per cause."""


class ShimError(Exception):
    """Root of everything the shim raises. Left uncaught it fails only the running transaction."""


class ConfigurationError(ShimError):
    """The environment does not say, or says wrongly, how to reach the peer."""


class InvalidKey(ShimError):
    """A key that the ledger could not hold, or that would collide with composite keys."""


class PeerError(ShimError):
    """The peer answered a request of this transaction with an error.

    Attributes:
        request: name of the refused request, for example ``PUT_STATE``.
        reason: the peer's own sentence.
    """

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(f"the peer refused {request}: {reason}")
        self.request = request
        self.reason = reason


class ProtocolError(ShimError):
    """The peer sent something that is not allowed at this point of the conversation."""
