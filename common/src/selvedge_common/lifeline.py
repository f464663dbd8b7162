"""Children that end with the process that started them, however that ends.

Run as a program, `lifeline.py PARENT COMMAND…`, with the parent's process id, it becomes the
command, which the kernel sends SIGTERM once the parent is gone: should the parent be killed, nobody
else is left to stop what it started. Linux alone can do that.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def ending_with_parent() -> list[str]:
    """What to put before a command, the path of a program, so that it ends with this process; to be
    started by a thread that lives as long as the process does."""
    # A program of its own and not a preexec_fn: that would have Python fork, which gRPC's threads
    # do not survive.
    if sys.platform != "linux":
        return []
    return [sys.executable, "-IS", __file__, str(os.getpid())]


if __name__ == "__main__":
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # A parent that ended before that call causes no signal: another process has adopted this one.
    if os.getppid() != int(parent):
        sys.exit("the process that started this one has ended")
    try:
        os.execv(command[0], command)  # noqa: S606 - the parent's command
    except OSError as error:
        missing = " (or the interpreter in its first line)" * isinstance(error, FileNotFoundError)
        sys.exit(f"{command[0]}{missing} cannot be run: {error.strerror}")
