"""Where data sets lie on this machine, and what is kept beside them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from metaception.core.files import write_atomically


class DataError(ValueError):
    """Data that is missing, incomplete or altered; says how to get it."""


def data_dir(given: str | Path | None = None) -> Path:
    """The folder of all data sets; it need not exist.

    Args:
        given: a folder, or None for $METACEPTION_DATA, else metaception/data in the user's cache folder ($XDG_CACHE_HOME, else
            ~/.cache). A variable that is set but empty counts as not set.
    """
    chosen = given or os.environ.get("METACEPTION_DATA")
    if chosen:
        return Path(chosen).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "metaception" / "data"


def roots(folder: str | Path | None, *names: str) -> list[Path]:
    """Where one data set may lie: in a folder of such a name below the data folder, or in the data folder itself."""
    base = data_dir(folder)
    return [base / name for name in names] + [base]


def check_choice(what: str, given: str, allowed: Collection[str]) -> None:
    """Refuse a name that is none of those allowed.

    Raises:
        DataError: for such a name.
    """
    if given not in allowed:
        raise DataError(f"{what}={given!r}; expected one of {', '.join(map(repr, allowed))}.")


def check_counts(name: str, found: Mapping[str, int], classes: int, images: int, remedy: str) -> None:
    """Refuse a set that is not whole, naming the first classes that are at fault.

    Args:
        name: what is counted, and where.
        found: how many images each class has.
        classes: how many classes there should be.
        images: how many images each of them should have.
        remedy: what to do about it.

    Raises:
        DataError: where a count differs.
    """
    odd = [f"{label} has {count}" for label, count in found.items() if count != images]
    there = sum(count > 0 for count in found.values())
    if not odd and there == classes:
        return
    more = f" and {len(odd) - 3:,} more" if len(odd) > 3 else ""
    which = f" Not {images} images: {', '.join(odd[:3])}{more}." if odd else ""
    raise DataError(
        f"{name}: found {there:,} classes and {sum(found.values()):,} images; expected {classes:,} classes of {images} images, "
        f"{classes * images:,} in all.{which} {remedy}"
    )


def read_arrays(path: Path, names: Collection[str], remedy: str) -> dict[str, Any]:
    """Arrays of an .npz file.

    Raises:
        DataError: where the file is damaged, or another one.
    """
    try:
        # Opened here, for numpy leaves a file open that turns out to be no archive.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except Exception as error:  # a damaged header is met with exceptions of every kind
        raise DataError(f"{path}: damaged, or without the arrays {', '.join(names)} ({error}). {remedy}") from error


def try_to_write(path: Path, content: bytes | Callable[[BinaryIO], object]) -> bool:
    """Write a file that can be made again, atomically.

    Returns:
        Whether it was written; not where the folder is read-only or the disk full, which costs only time.
    """
    try:
        write_atomically(path, content)
    except OSError:
        return False
    return True


def kept(
    folder: Path,
    name: str,
    key: str,
    shape: tuple[int, ...],
    make: Callable[[], UInt8[np.ndarray, "n height width channels"]],
) -> UInt8[np.ndarray, "n height width channels"]:
    """Decoded images from a file beside their originals; made, and kept there if it can be written, where there is none.

    Args:
        folder: where the file lies.
        name: what the file's name begins with.
        key: changes when the originals do; a file of another key is not used, and is deleted once there is a new one.
        shape: the expected shape; a file of another shape is made anew.
        make: decodes the originals.

    Returns:
        The images; those of a file are mapped into memory, read-only.
    """
    path = folder / f"{name}_{key}.npy"
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if images.shape == shape and images.dtype == np.uint8:
            return images
    except Exception:  # none, or damaged: a damaged header is met with exceptions of every kind
        pass
    made = make()
    if try_to_write(path, lambda file: np.save(file, made)):
        for old in folder.glob(f"{name}_*.npy"):
            if old != path:
                with contextlib.suppress(OSError):
                    old.unlink()
    return made
