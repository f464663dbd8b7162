"""What can be wrong with a package, and why a chaincode that was launched is not there."""

from __future__ import annotations

from chaincode_support.chaincode.errors import ChaincodeError


class BrokenPackage(Exception):
    """A package cannot be used; the text is one sentence, without saying which package it is."""


class PackageTooLarge(BrokenPackage):
    """A package is beyond a bound."""


class UnknownPackage(Exception):
    """No package has the id that was asked for."""


class DroppedPackage(Exception):
    """The package was put on the disk by an operator, who alone takes it away."""


class LaunchFailed(ChaincodeError):
    """The chaincode could not be started, or ended before it registered."""
