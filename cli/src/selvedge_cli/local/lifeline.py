"""Run as a program, becomes the command it is given, which the kernel ends with its parent.

Should `selvedge up` be killed, nobody else is left to stop its services. Linux alone can do that.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - the command is ours
