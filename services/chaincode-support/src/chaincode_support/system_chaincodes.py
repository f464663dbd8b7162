"""Fabric's system chaincodes: parts of a peer that are called like a chaincode.

None is served here yet. Their names are known, so that a client that asks for one hears so, and so
that no other chaincode's transaction writes under such a name.
"""

SYSTEM_CHAINCODES = frozenset({"_lifecycle", "cscc", "escc", "lscc", "qscc", "vscc"})
