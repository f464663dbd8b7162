"""The peer's chaincode side: chaincode streams, endorser, ledger, ordering and Deliver."""

import os

# A chaincode that the peer starts is a fork of it first, and gRPC core's fork handlers may crash
# that before it is the chaincode. Read when grpc is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
