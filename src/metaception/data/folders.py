"""Images of your own: a folder of folders, one a class."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from metaception.data.images import ImageSet
from metaception.data.places import DataError, kept

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
"""What counts as an image, by the end of its name."""

A = TypeVar("A")
B = TypeVar("B")


def load_folder(
    folder: str | Path,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    name: str | None = None,
    licence: str = "not stated",
) -> ImageSet:
    """Images sorted into folders: the name of each folder is its class's.

    Classes and images are in natural order (`2.png` before `10.png`). Hidden files, and files that are no images by their
    names, are passed over; so are images further down than folder/class/image. Of an animation the first picture is taken.

    Args:
        folder: holds one folder a class.
        size: (height, width) that every image is resized to (Lanczos, which smooths what it makes smaller); None where they
            all have one size.
        channels: 1 for grey, 3 for RGB; None is grey if all images are. What is transparent is laid on white.
        name: for messages and pages; the folder's name if None.
        licence: under which terms the images may be used.

    Returns:
        The images [n, height, width, channels].

    Raises:
        DataError: where there is no such folder, no class in it, a class without images, an image that cannot be read, or one
            of another size than those before it.

    Examples:
        >>> import tempfile, numpy as np, metaception as mc
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     for name, shade in (("dark", 10), ("light", 240)):
        ...         (Path(parent) / name).mkdir()
        ...         Image.fromarray(np.full((30, 40), shade, np.uint8)).save(Path(parent) / name / "one.png")
        ...     images = mc.load_folder(parent, size=(28, 28), name="greys")
        >>> images.classes, images.images[:, 0, 0, 0].tolist()
        (('dark', 'light'), [10, 240])
    """
    folder = Path(folder).expanduser()
    _check(size, channels)
    classes = list_classes(folder)
    files = [path for paths in classes.values() for path in paths]
    images = in_parallel(lambda path: read_image(path, size, channels), files)
    for path, image in zip(files, images, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            found, first = ("{}×{}".format(*shape) for shape in (image.shape, images[0].shape))
            raise DataError(
                f"{path} is {found} (height×width) and {files[0]} is {first}; give size=(height, width) to resize all of them."
            )
    if len({image.shape[2] for image in images}) > 1:
        images = [np.broadcast_to(image, (*image.shape[:2], 3)) for image in images]
    counts = np.array([len(paths) for paths in classes.values()])
    return ImageSet(name or folder.resolve().name, np.stack(images), counts, tuple(classes), licence=licence)


def read_image(
    path: str | Path, size: tuple[int, int] | None = None, channels: int | None = None
) -> UInt8[np.ndarray, "height width channels"]:
    """One image, upright as its camera noted it.

    Args:
        path: the file.
        size: (height, width) to resize it to; None for its own.
        channels: 1 for grey, 3 for RGB; None is grey if the image is. What is transparent is laid on white.

    Returns:
        [height, width, channels], 0 for black and 255 for white.

    Raises:
        DataError: where it cannot be read.
    """
    return decode_image(path, str(path), size, channels)


def decode_image(
    content: str | Path | bytes, name: str, size: tuple[int, int] | None = None, channels: int | None = None
) -> UInt8[np.ndarray, "height width channels"]:
    """`read_image` of a file, or of a file's bytes, which messages call `name`."""
    _check(size, channels)
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            # Pillow copies the image even where there is nothing to turn, which would take as long as decoding it.
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            array = _as_array(ImageOps.exif_transpose(image) if turned else image, size, channels)
    except Exception as error:  # decoders meet damaged files with exceptions of every kind
        # That exception names the file, or an object in memory.
        why = "of no format that is known" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{name}: not an image that can be read ({why}); replace it or delete it.") from error
    return array.reshape(*array.shape[:2], -1)


def _as_array(image: Image.Image, size: tuple[int, int] | None, channels: int | None) -> UInt8[np.ndarray, "..."]:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):  # 16 bits; Pillow would make everything above 255 white
        image = Image.fromarray((np.clip(np.asarray(image), 0, 2**16 - 1) >> 8).astype(np.uint8))
    grey = image.mode in ("1", "L", "LA")
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white.convert("RGB")
    image = image.convert("L" if channels == 1 or (channels is None and grey) else "RGB")
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(image)


def _check(size: tuple[int, int] | None, channels: int | None) -> None:
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise DataError(f"size={size}; expected (height, width), both positive.")
    if channels not in (None, 1, 3):
        raise DataError(f"channels={channels}; expected 1 (grey) or 3 (RGB).")


def list_images(folder: Path) -> list[Path]:
    """The images that lie directly in a folder, in natural order, without hidden files."""
    names = [entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(SUFFIXES) and not entry.is_dir()]
    return [folder / name for name in sorted(names, key=_natural) if not name.startswith(".")]


def list_classes(folder: Path) -> dict[str, list[Path]]:
    """The images of every class, both in natural order.

    Raises:
        DataError: where there is no such folder, no class in it, or a class without images.
    """
    try:
        below = sorted((path.name for path in folder.iterdir() if path.is_dir()), key=_natural)
        classes = {name: list_images(folder / name) for name in below if not name.startswith(".")}
        loose = len(list_images(folder))
    except OSError as error:
        raise DataError(
            f"{folder}: not a folder that can be read ({error.strerror}); expected FOLDER/CLASS/IMAGE."
        ) from error
    if not classes:
        what = f"{loose:,} images lie directly in it" if loose else "there is no folder in it"
        raise DataError(f"{folder}: {what}; expected one folder a class with its images in it, FOLDER/CLASS/IMAGE.")
    for name, paths in classes.items():
        if not paths:
            deeper = any(path.is_dir() for path in (folder / name).iterdir())
            remedy = f"If its folders are the classes, load {folder / name}; else" if deeper else "Fill it or"
            raise DataError(f"{folder / name}: no image in it ({', '.join(SUFFIXES)}). {remedy} delete it.")
    return classes


def read_classes(
    classes: Mapping[str, Sequence[Path]], size: tuple[int, int], channels: int, keep: tuple[Path, str]
) -> UInt8[np.ndarray, "n height width channels"]:
    """The images of all classes in turn, kept as one decoded file, for sets that take long to decode.

    Args:
        classes: the files of every class.
        size: (height, width) of what is returned.
        channels: 1 or 3.
        keep: the folder of the decoded file and what its name begins with; it is made anew when a file's size or time changed.
    """
    files = [path for paths in classes.values() for path in paths]
    shape = (len(files), *size, channels)
    lines = [f"1 {shape}"]  # raise the number when something else comes out of the same files
    for label, paths in classes.items():
        for path in paths:
            try:
                status = path.stat()
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror}); put it there again.") from error
            lines.append(f"{label}/{path.name} {status.st_size} {status.st_mtime_ns}")
    key = hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:12]

    def decode() -> UInt8[np.ndarray, "n height width channels"]:
        images = np.empty(shape, np.uint8)

        def fill(index: int) -> None:
            images[index] = read_image(files[index], size, channels)

        in_parallel(fill, range(len(files)))
        return images

    return kept(*keep, key, shape, decode)


def in_parallel(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """`map` over threads: decoding a picture leaves the interpreter to others. The first error ends it."""

    def some(start: int) -> list[B]:
        return [function(item) for item in items[start : start + 32]]

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        try:
            return [result for results in pool.map(some, range(0, len(items), 32)) for result in results]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sorts numbers by their value: 2 before 10."""
    parts: list[str | int] = list(re.split(r"([0-9]+)", name.casefold()))
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, name
