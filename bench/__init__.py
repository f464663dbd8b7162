"""Measurements of running services, each beside servers that only answer: `python -m bench`."""

import os

# Before gRPC is loaded: programs are started while there are channels, and what gRPC does in a fork
# on uvloop ends some of them before they begin.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
