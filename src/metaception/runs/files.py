"""The files of runs: JSON, and what a failed write says."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metaception.core.files import is_full, write_atomically
from metaception.runs.errors import RunError


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
