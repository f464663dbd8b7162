"""The names that Fabric keeps for its system chaincodes.

Those that are not served here are known too, so that a client that asks for one hears so, and so
that no other chaincode's transaction writes under such a name.
"""

SYSTEM_CHAINCODES = frozenset({"_lifecycle", "cscc", "escc", "lscc", "qscc", "vscc"})
