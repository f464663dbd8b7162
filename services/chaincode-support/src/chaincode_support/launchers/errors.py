"""What can be wrong with a package, and why a chaincode that was launched is not there."""

from __future__ import annotations

from chaincode_support.chaincode.errors import ChaincodeError


class BrokenPackage(Exception):
    """A package cannot be used; the text is one sentence, without saying which package it is.

    Attributes:
        chaincode: the name of its chaincode, where so much of it could be read.
    """

    chaincode: str | None = None


class PackageTooLarge(BrokenPackage):
    """A package is beyond a bound."""


class UnknownPackage(Exception):
    """No package has the id that was asked for."""


class DroppedPackage(Exception):
    """The package was put on the disk by an operator, who alone takes it away."""


class NotLaunched(Exception):
    """An attempt was in vain, and will be until a person mends why; the text continues a sentence
    about the chaincode."""


class LaunchFailed(ChaincodeError):
    """The chaincode could not be started, or ended before it registered."""
