"""Writing files so that a reader never meets half of one, whatever happens to the writer."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Replace the file at `path`: a reader, or a crash, meets the old one or the new one.

    Args:
        path: the file.
        content: what it is to hold, or a function that writes it into the open file.
    """
    # Of a name that no other process or thread has.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def is_full(error: BaseException) -> bool:
    """Whether an exception says that the disk (or the user's share of it) is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error) or "Disk quota exceeded" in str(error)
