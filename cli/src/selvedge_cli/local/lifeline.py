"""Run as a program, becomes the command it is given, which the kernel ends with its parent.

`lifeline.py PARENT COMMAND…`, with the parent's process id. Should `selvedge up` be killed, nobody
else is left to stop its services. Linux alone can do that.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # A parent that ended before that call causes no signal: another process has adopted this one.
    if os.getppid() != int(parent):
        sys.exit("the process that started this one has ended")
    os.execv(command[0], command)  # noqa: S606 - the command is ours
