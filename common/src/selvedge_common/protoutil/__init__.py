"""Build, open and hash what travels: proposals, transactions, blocks, seeks, the configuration.

Follows the facts of Fabric's protoutil; each module names the sources. Openers take hostile bytes:
whatever is wrong leaves them as one of the errors in `errors`.
"""
