"""What ended TLS connections leave behind: memory that the C library keeps in pieces.

OpenSSL takes some fifty kilobytes a connection in pieces of all sizes. Once they are free, glibc
gives back to the system only what lies at the end of its heap, which under many short connections
grows for hours, though nothing is leaked.
"""

import ctypes

EVERY = 500
"""Connections that end before it is worth looking; a look takes some milliseconds."""


def trim() -> None:
    """Give free memory back to the system, where the C library can."""
    if _malloc_trim is not None:
        _malloc_trim(0)


# glibc's own; others give memory back by themselves, or not at all.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
