"""Content that OpenSSL takes from a file alone."""

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def openssl_file(content: bytes) -> Iterator[str]:
    """A file with this content, which OpenSSL wants; in memory where the system has that, so that
    the key is on no disk."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pair")
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name
