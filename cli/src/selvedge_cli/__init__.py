"""The `selvedge` command, and the client that it is made of."""

import time

STARTED = time.monotonic()
"""When this process began; `selvedge up` tells how long it took from here."""
