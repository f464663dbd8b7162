"""The `selvedge` command, and the client that it is made of."""

import os
import time

STARTED = time.monotonic()
"""When this process began; `selvedge up` tells how long it took from here."""

ENVIRONMENT = dict(os.environ)
"""The variables that this process was given, and hands on to the services it starts."""

# gRPC's core reports every refused handshake on standard error, in lines of its own; the commands
# say in a sentence what they could not do. It reads this once, when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
