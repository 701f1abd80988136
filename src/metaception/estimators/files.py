"""Images of one's own in files, for a run: the support set and the queries."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from metaception.data.folders import SUFFIXES, list_classes, list_images, read_image
from metaception.data.places import DataError
from metaception.domains.classification.image_tasks import OF_IMAGES
from metaception.runs.errors import UsageError
from metaception.runs.run import TrainedRun

INK = ("glyphs", "omniglot")
"""Sets whose images are white ink on black: most of an image is dark."""


@dataclass(frozen=True)
class Format:
    """What images a run takes.

    Attributes:
        size: (height, width).
        channels: 1 or 3.
        ways: the most classes.
        dark: whether it was trained on white ink on black; None where nothing is known of it.
    """

    size: tuple[int, int]
    channels: int
    ways: int
    dark: bool | None

    def __str__(self) -> str:
        height, width = self.size
        return f"{height}×{width}, {'grey' if self.channels == 1 else 'RGB'}"


def format_of(run: TrainedRun) -> Format:
    """What images the run takes.

    Raises:
        UsageError: for a run that was not trained on images.
    """
    tasks = run.algorithm.tasks
    if not isinstance(tasks, OF_IMAGES):
        raise UsageError(
            f"{run.folder} was not trained on images but on {type(tasks).__name__}; give a run of an image preset "
            "(`metaception list`), or adapt this one in Python with metaception.FewShotRegressor."
        )
    height, width, channels = tasks.images.shape[1:]
    images = getattr(run.preset.tasks, "images", None) if run.preset else None
    return Format((height, width), channels, tasks.ways, True if images in INK else None)


def support_files(folder: Path, expected: Format) -> dict[str, list[Path]]:
    """The files of each class.

    Raises:
        UsageError: for a folder without classes, a class without images, or a number of classes that the run cannot tell apart.
    """
    try:
        classes = list_classes(folder)
    except DataError as error:
        raise UsageError(f"--support: {error}") from error
    if len(classes) < 2:
        raise UsageError(f"--support: {folder} has only one class, {next(iter(classes))!r}; give two or more.")
    if len(classes) > expected.ways:
        raise UsageError(
            f"--support: {folder} has {len(classes)} classes and the run was trained with {expected.ways} ways; leave classes "
            f"out, or train with --ways {len(classes)}."
        )
    return classes


def query_files(folder: Path, classes: Sequence[str]) -> list[tuple[Path, str | None]]:
    """The files to be classified, each with its class where it lies in a folder of that name.

    Raises:
        UsageError: where there are none, or lie in a folder that is no class of the support set.
    """
    try:
        files: list[tuple[Path, str | None]] = [(path, None) for path in list_images(folder)]
        below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        inside = [(image, path.name) for path in below for image in list_images(path)]
    except OSError as error:
        raise UsageError(f"--query: {folder} is not a folder that can be read ({error.strerror}).") from error
    other = sorted({name for _, name in inside} - set(classes))
    if other:
        raise UsageError(
            f"--query: {folder / other[0]} is no class of the support set ({', '.join(classes)}). Put its images directly into "
            f"{folder} if their class is not known, or add the class to the support set."
        )
    files += inside
    if not files:
        raise UsageError(
            f"--query: no image in {folder}; expected FOLDER/IMAGE, or FOLDER/CLASS/IMAGE to count the right ones."
        )
    return files


def read(files: Sequence[Path], expected: Format, *, invert: bool) -> tuple[list[np.ndarray | None], list[str]]:
    """Images as the run takes them, [height, width, channels] from 0 to 1; None, and why, where one cannot be read."""
    images: list[np.ndarray | None] = []
    errors = []
    for path in files:
        try:
            pixels = read_image(path, expected.size, expected.channels).astype(np.float32) / 255
        except DataError as error:
            images.append(None)
            errors.append(str(error))
            continue
        images.append(1 - pixels if invert else pixels)
        errors.append("")
    return images, errors


def read_support(classes: dict[str, list[Path]], expected: Format, *, invert: bool) -> tuple[np.ndarray, np.ndarray]:
    """The support images, and the name of each one's class.

    Raises:
        UsageError: naming every image that cannot be read.
    """
    files = [path for paths in classes.values() for path in paths]
    images, errors = read(files, expected, invert=invert)
    bad = [error for error in errors if error]
    if bad:
        raise UsageError("--support: " + "\n".join(bad))
    names = [name for name, paths in classes.items() for _ in paths]
    support = np.stack([image for image in images if image is not None])
    if expected.dark and support.mean() > 0.5:
        remedy = "leave --invert out" if invert else "if they are dark ink on white, add --invert"
        warn(
            f"the support images are bright (on average {support.mean():.2f}, 1 is white) and the run was trained on white ink "
            f"on black; {remedy}. Photographs want a run trained on images like them (`metaception train` with --images)."
        )
    return support, np.array(names)


def note_conversions(files: Sequence[Path], expected: Format) -> None:
    """Say which images are not of the run's size and channels, and so are resized and converted."""
    sizes, colours = [], []
    for path in files:
        try:
            with Image.open(path) as image:
                if image.size[::-1] != expected.size:
                    sizes.append(f"{path.name}: {image.height}×{image.width}")
                if (image.mode in ("1", "L", "LA", "I", "I;16")) != (expected.channels == 1):
                    colours.append(f"{path.name}: {image.mode}")
        except Exception:  # it cannot be read, which the reader will say
            continue
    for found, done in ((sizes, "resized"), (colours, "converted")):
        if found:
            warn(f"{len(found)} of {len(files)} images are not {expected} ({found[0]}); they are {done}.", "note")


def note_passed_over(folders: Sequence[Path]) -> None:
    """Say which files of these folders are not taken for images, by their names."""
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    other = [path.name for path in files if path.suffix.lower() not in SUFFIXES and not path.name.startswith(".")]
    if other:
        kinds = ", ".join(suffix.removeprefix(".") for suffix in SUFFIXES)
        how_many = "1 file is" if len(other) == 1 else f"{len(other)} files are"
        warn(
            f"{how_many} passed over, being no image by name ({other[0]}); read are {kinds}.",
            "note",
        )


def warn(message: str, kind: str = "warning") -> None:
    """Tell the user of something that does not stop the work."""
    print(f"{kind}: {message}", file=sys.stderr)
