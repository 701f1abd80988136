"""Writing files so that a reader never meets half of one, whatever happens to the writer."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metaception.runs.errors import RunError


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by one that holds `content`: a reader, or a crash, meets the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())


def plain(value: Any) -> Any:
    """Arrays and numbers as what JSON has: the shortest text that gives the number back; null where it is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(str(value)) if np.isfinite(value) else None
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return plain(array[()]) if array.ndim == 0 else [plain(item) for item in array]
    return value


def is_full(error: BaseException) -> bool:
    """Whether an exception says that the disk (or the user's share of it) is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error) or "Disk quota exceeded" in str(error)


@contextlib.contextmanager
def disk_errors(what: str, remedy: str) -> Iterator[None]:
    """Turn a failed write inside into a `RunError` that says what could not be written, and what to do."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        if is_full(error):
            raise RunError(f"the disk is full: could not write {what}. {remedy}") from error
        if isinstance(error, OSError):
            raise RunError(f"could not write {what}: {error}. {remedy}") from error
        raise
