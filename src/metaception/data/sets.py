"""The image sets by name: their splits, sizes and loaders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from metaception.data.cifar_fs import load_cifar_fs
from metaception.data.folders import list_classes, load_folder
from metaception.data.glyphs import load_glyphs
from metaception.data.images import ImageSet
from metaception.data.mini_imagenet import load_mini_imagenet
from metaception.data.omniglot import load_omniglot
from metaception.data.places import DataError

Subset = Literal["train", "val", "test"]


class KnownSet(NamedTuple):
    """An image set that the library knows by name.

    Attributes:
        load: (split, subset) -> ImageSet.
        splits: the names of its splits, the default first.
        training_classes: of each split.
        shape: (height, width, channels).
        citations: keys in `metaception.methods.references`.
    """

    load: Callable[[str, Subset], ImageSet]
    splits: tuple[str, ...]
    training_classes: tuple[int, ...]
    shape: tuple[int, int, int]
    citations: tuple[str, ...]


SETS: dict[str, KnownSet] = {
    "glyphs": KnownSet(lambda split, subset: load_glyphs(subset), ("script",), (924,), (28, 28, 1), ()),
    "omniglot": KnownSet(
        lambda split, subset: load_omniglot(split=split, subset=subset),  # type: ignore[arg-type]
        ("maml", "vinyals"),
        (1100, 1028),
        (28, 28, 1),
        ("lake2015omniglot", "vinyals2016matching"),
    ),
    "mini_imagenet": KnownSet(
        lambda split, subset: load_mini_imagenet(subset=subset),
        ("ravi",),
        (64,),
        (84, 84, 3),
        ("vinyals2016matching", "ravi2017lstm"),
    ),
    "cifar_fs": KnownSet(
        lambda split, subset: load_cifar_fs(subset=subset), ("bertinetto",), (64,), (32, 32, 3), ("bertinetto2019r2d2",)
    ),
}


PARTS = ("train", "val", "test")
OWN = 0.2
"""Of a folder's classes, the share that validation gets, and that tests get."""


@cache
def folder_of_yours(folder: str, shape: tuple[int, int, int]) -> ImageSet:
    """All of a folder's images, of one size; kept in memory."""
    *size, channels = shape
    return load_folder(folder, size=(size[0], size[1]), channels=channels)


def load_part(folder: str, subset: Subset, shape: tuple[int, int, int]) -> ImageSet:
    """One part of a folder of your own.

    A folder that has `train`, `val` and `test` in it is taken as that says; of any other, a fifth of the classes, drawn at
    random and always the same while the classes are, is for validation and another fifth for tests.

    Args:
        folder: FOLDER/CLASS/IMAGE, or FOLDER/PART/CLASS/IMAGE.
        subset: train, val or test.
        shape: (height, width, channels) that every image is brought to.

    Raises:
        DataError: for folders that cannot be read, a class in two parts, and fewer classes than three parts need.
    """
    if all((Path(folder) / part).is_dir() for part in PARTS):
        _check_disjoint(Path(folder))
        return folder_of_yours(str(Path(folder) / subset), shape)
    there = [part for part in PARTS if (Path(folder) / part).is_dir()]
    if {"train", "test"} <= set(there):
        missing = next(part for part in PARTS if part not in there)
        raise DataError(
            f"{folder}: {', '.join(there)} are there, but no {missing}; add it, or put all classes side by side."
        )
    images = folder_of_yours(folder, shape)
    held_out = round(OWN * len(images.classes))
    if held_out < 1:
        raise DataError(
            f"{folder}: {len(images.classes)} classes are too few to train on some, validate on others and test on others "
            "still; three or more are needed, and as many as an episode has ways in each part."
        )
    parts = images.split(len(images.classes) - 2 * held_out, held_out, held_out)
    return replace(parts[PARTS.index(subset)], name=f"{images.name} ({subset})")


def _check_disjoint(folder: Path) -> None:
    owner: dict[str, str] = {}
    for part in PARTS:
        for name in list_classes(folder / part):
            if name in owner:
                raise DataError(
                    f"{folder}: the class {name!r} is in {owner[name]} and in {part}; what is tested on must not have been "
                    "seen in training. Leave it in one of them, or rename one where they are different things."
                )
            owner[name] = part


@cache
def load_images(name: str, subset: Subset, *, split: str | None = None) -> ImageSet:
    """One part of a set, by name; kept in memory, so that a second request costs nothing.

    Args:
        name: a key of `SETS`.
        subset: train, val or test; their classes are disjoint.
        split: which of the set's splits; the first unless given.

    Raises:
        DataError: where the data is not there, incomplete or altered; says how to get it.

    Examples:
        >>> from metaception.data.sets import load_images
        >>> load_images("glyphs", "val").images.shape[1:]
        (28, 28, 1)
    """
    known = SETS[name]
    return known.load(split or known.splits[0], subset)
