"""CIFAR-FS: the hundred classes of CIFAR-100 as a few-shot benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from metaception.data.folders import list_images, read_classes
from metaception.data.images import ImageSet
from metaception.data.places import DataError, check_choice, check_counts, roots

CLASSES = {"train": 64, "val": 16, "test": 20}
IMAGES = 600
LICENCE = (
    "CIFAR-100: no licence stated; its author asks for a citation of Krizhevsky, 'Learning multiple layers of features from "
    "tiny images' (2009), https://www.cs.toronto.edu/~kriz/cifar.html. Split: Bertinetto et al. (2019), "
    "https://github.com/bertinetto/r2d2."
)


def load_cifar_fs(folder: str | Path | None = None, *, subset: Literal["train", "val", "test"] = "train") -> ImageSet:
    """64, 16 or 20 classes of 600 RGB images, 32×32, from their usual layout: data/CLASS/*.png and splits/bertinetto/*.txt.

    The decoded images are kept beside it, where that can be written.

    Args:
        folder: the data folder (`data_dir`), which has the set in it or in `cifar_fs`, `cifar-fs`, `cifarfs` or `cifar100`.
        subset: "train", "val" or "test".

    Returns:
        Images [n, 32, 32, 3], classes sorted by name.

    Raises:
        DataError: where the set is absent or not whole.

    Source: Bertinetto, Henriques, Torr and Vedaldi (2019), 'Meta-learning with differentiable closed-form solvers', §4.
    """
    check_choice("subset", subset, CLASSES)
    places = roots(folder, "cifar_fs", "cifar-fs", "cifarfs", "cifar100")
    root = next(
        (root for root in places if (root / "splits" / "bertinetto").is_dir() and (root / "data").is_dir()), None
    )
    if root is None:
        raise DataError(f"CIFAR-FS is not in {places[-1]} nor in {places[0]}. {_remedy(places[0])}")
    listed = root / "splits" / "bertinetto" / f"{subset}.txt"
    try:
        names = sorted({line.strip() for line in listed.read_text().splitlines()} - {""})
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{listed}: cannot be read ({error}); expected one class a line. {_remedy(root)}") from error
    classes = {name: list_images(root / "data" / name) if (root / "data" / name).is_dir() else [] for name in names}
    found = {name: len(paths) for name, paths in classes.items()}
    check_counts(f"CIFAR-FS {subset} in {root}", found, CLASSES[subset], IMAGES, _remedy(root))
    images = read_classes(classes, (32, 32), 3, (root, f"decoded_{subset}"))
    return ImageSet(f"CIFAR-FS {subset}", images, np.array(list(found.values())), tuple(names), licence=LICENCE)


def _remedy(root: Path) -> str:
    return (
        "It has to be fetched by hand: get the archive that https://github.com/bertinetto/r2d2 links to, and unpack it so that "
        f"there are {root}/data/CLASS/*.png and {root}/splits/bertinetto/train.txt, val.txt and test.txt."
    )
