"""mini-ImageNet: a hundred classes of ImageNet at 84×84, by the lists of Ravi and Larochelle."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from metaception.data.folders import decode_image, in_parallel, list_classes, read_classes
from metaception.data.images import ImageSet
from metaception.data.places import DataError, check_choice, check_counts, read_arrays, roots

CLASSES = {"train": 64, "val": 16, "test": 20}
IMAGES = 600
SIZE = (84, 84)
LICENCE = (
    "ImageNet's terms of access: research and teaching that is not commercial, https://image-net.org/download. Images: "
    "Russakovsky et al. (2015), 'ImageNet large scale visual recognition challenge'; set: Vinyals et al. (2016); split: Ravi "
    "and Larochelle (2017)."
)


def load_mini_imagenet(
    folder: str | Path | None = None, *, subset: Literal["train", "val", "test"] = "train"
) -> ImageSet:
    """64, 16 or 20 classes of 600 RGB images, 84×84.

    ImageNet's terms leave it to everybody to fetch it. Each of these layouts will do, the first that is there is taken:

    - `mini84_q88_SUBSET.npz`: the JPEGs in one buffer; image i is `header` + `data[offset[i]:offset[i + 1]]`;
    - `images/*.jpg` and the lists `train.csv`, `val.csv`, `test.csv` (or `ravi_train.csv`, …) with columns filename and label;
    - `train/CLASS/*.jpg`, `val/CLASS/*.jpg`, `test/CLASS/*.jpg`.

    Images of another size are resized (Lanczos). Images that lie in single files are decoded once and kept beside them, where
    that can be written (0.8 GB for train); the packed file decodes in seconds and is not.

    Args:
        folder: the data folder (`data_dir`), which has the set in it or in `mini_imagenet`, `mini-imagenet` or `miniImageNet`.
        subset: "train", "val" or "test".

    Returns:
        Images [n, 84, 84, 3], classes (WordNet numbers) sorted by name.

    Raises:
        DataError: where the set is absent or not whole.

    Source: Vinyals et al. (2016), 'Matching networks for one shot learning', §4.1.2; Ravi and Larochelle (2017),
    'Optimization as a model for few-shot learning', §5.1.
    """
    check_choice("subset", subset, CLASSES)
    places = roots(folder, "mini_imagenet", "mini-imagenet", "miniImageNet")
    for root in places:
        packed = root / f"mini84_q88_{subset}.npz"
        if packed.is_file():
            return _from_packed(packed, subset)
        lists = [path for path in (root / f"{subset}.csv", root / f"ravi_{subset}.csv") if path.is_file()]
        if lists and (root / "images").is_dir():
            return _from_files(root, _listed(root, lists[0]), subset)
        if (root / subset).is_dir():
            return _from_files(root, list_classes(root / subset), subset)
    raise DataError(f"mini-ImageNet {subset} is not in {places[-1]} nor in {places[0]}. {_remedy(places[0], subset)}")


def _remedy(root: Path, subset: str) -> str:
    return (
        "It has to be fetched by hand, for ImageNet's terms have to be accepted: get the training images of ILSVRC2012 from "
        "https://image-net.org/download, and take those in the lists of Ravi and Larochelle "
        "(https://github.com/twitter-research/meta-learning-lstm), resized to 84×84; "
        "https://github.com/yaoyao-liu/mini-imagenet-tools does both. "
        f"Put them at {root}/images/*.jpg with the list at {root}/{subset}.csv, or at {root}/{subset}/CLASS/*.jpg."
    )


def _image_set(subset: str, images: UInt8[np.ndarray, "n height width channels"], found: dict[str, int]) -> ImageSet:
    return ImageSet(f"mini-ImageNet {subset}", images, np.array(list(found.values())), tuple(found), licence=LICENCE)


def _from_files(root: Path, classes: dict[str, list[Path]], subset: str) -> ImageSet:
    classes = dict(sorted(classes.items()))
    found = {label: len(paths) for label, paths in classes.items()}
    check_counts(f"mini-ImageNet {subset} in {root}", found, CLASSES[subset], IMAGES, _remedy(root, subset))
    return _image_set(subset, read_classes(classes, SIZE, 3, (root, f"decoded84_{subset}")), found)


def _listed(root: Path, path: Path) -> dict[str, list[Path]]:
    """The files of every class by a list of filename,label."""
    classes: dict[str, list[Path]] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [(row["filename"], row["label"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a list with columns filename and label ({error!r}); get it again.") from error
    for name, label in dict.fromkeys(rows):
        classes.setdefault(label, []).append(root / "images" / name)
    return classes


def _from_packed(path: Path, subset: str) -> ImageSet:
    arrays = _open_packed(path)
    data, offset, label = arrays["data"], arrays["offset"].tolist(), arrays["label"].astype(int)
    header, names = arrays["header"].tobytes(), [name.decode() for name in arrays["wnid"].tolist()]
    counts = np.bincount(label, minlength=len(names))
    found = dict(zip(names, counts.tolist(), strict=True))
    check_counts(str(path), found, CLASSES[subset], IMAGES, "Get the file again.")
    order = np.argsort(label, kind="stable").tolist()
    images = np.empty((len(order), *SIZE, 3), np.uint8)

    def fill(row: int) -> None:
        i = order[row]
        jpeg = header + data[offset[i] : offset[i + 1]].tobytes()
        images[row] = decode_image(jpeg, f"{path}, image {i}", SIZE, 3)

    in_parallel(fill, range(len(order)))
    return _image_set(subset, images, found)


def _open_packed(path: Path) -> dict[str, Any]:
    """The arrays of a packed file, if they belong together."""
    names = ("header", "data", "offset", "label", "wnid")
    arrays = read_arrays(path, names, "Get it again.")
    data, offset, label, wnid = (arrays[name] for name in names[1:])
    fits = (
        all(array.ndim == 1 for array in arrays.values())
        and len(offset) == len(label) + 1
        and bool((np.diff(offset) > 0).all())
        and (offset[0], offset[-1]) == (0, len(data))
        and label.max(initial=0) < len(wnid)
        and sorted(wnid.tolist()) == wnid.tolist()
    )
    if not fits:
        raise DataError(f"{path}: its arrays {', '.join(names)} do not belong together; get it again.")
    return arrays
