"""What can be wrong with an identity or a policy; each cause is a type of its own.

Every message is one sentence: what was wrong, where, and what to do about it.
"""

from __future__ import annotations


class IdentityError(ValueError):
    """The root of everything that can be wrong with an identity."""


class MalformedIdentity(IdentityError):
    """The bytes are not a SerializedIdentity."""


class NotACertificate(IdentityError):
    """The identity's bytes hold no readable X.509 certificate."""


class UnknownMSP(IdentityError):
    """The identity names an organisation that is not known here."""


class UntrustedIdentity(IdentityError):
    """No chain of valid signatures leads from the certificate to a root of its organisation."""


class IdentityExpired(IdentityError):
    """The certificate, or one that it hangs on, was valid and no longer is."""


class IdentityNotYetValid(IdentityError):
    """The certificate, or one that it hangs on, is not valid yet."""


class IdentityRevoked(IdentityError):
    """The certificate is on a revocation list of the authority that issued it."""


class UnfitCertificate(IdentityError):
    """The certificate is genuine but may not be an identity: a CA, a foreign key type, no role."""


class BadSignature(IdentityError):
    """The signature is not one by this identity over this message."""


class MSPConfigurationError(ValueError):
    """An MSP folder or FabricMSPConfig cannot be used."""


class PolicyError(ValueError):
    """The root of everything that can be wrong with a policy."""


class MalformedPolicy(PolicyError):
    """The policy itself is broken: no rule, an index out of range, an unknown type."""


class PolicyNotSatisfied(PolicyError):
    """The policy is sound and the given signatures do not satisfy it."""
