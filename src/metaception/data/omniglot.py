"""Omniglot: 1,623 handwritten characters of 50 alphabets, each by the same 20 people."""

from __future__ import annotations

import random
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from metaception.data.download import Progress, download
from metaception.data.folders import decode_image
from metaception.data.images import ImageSet
from metaception.data.places import DataError, check_choice, check_counts, read_arrays, roots, try_to_write

DRAWERS = 20
PACKED = "omniglot28.npz"
HALVES = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
"""The two archives, with the md5 of each."""
URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
LICENCE = (
    "MIT, © 2015 Brenden Lake, https://github.com/brendenlake/omniglot. Cite Lake, Salakhutdinov and Tenenbaum (2015), "
    "'Human-level concept learning through probabilistic program induction'."
)

_COUNTS = """
Alphabet_of_the_Magi:20 Angelic:20 Anglo-Saxon_Futhorc:29 Arcadian:26 Armenian:41 Asomtavruli_(Georgian):40
Atemayar_Qelisayer:26 Atlantean:26 Aurek-Besh:26 Avesta:26 Balinese:24 Bengali:46
Blackfoot_(Canadian_Aboriginal_Syllabics):14 Braille:26 Burmese_(Myanmar):34 Cyrillic:33 Early_Aramaic:22
Futurama:26 Ge_ez:26 Glagolitic:45 Grantha:43 Greek:24 Gujarati:48 Gurmukhi:45 Hebrew:22
Inuktitut_(Canadian_Aboriginal_Syllabics):16 Japanese_(hiragana):52 Japanese_(katakana):47 Kannada:41
Keble:26 Korean:40 Latin:26 Malay_(Jawi_-_Arabic):40 Malayalam:47 Manipuri:40 Mkhedruli_(Georgian):41
Mongolian:30 N_Ko:33 Ojibwe_(Canadian_Aboriginal_Syllabics):14 Old_Church_Slavonic_(Cyrillic):45 Oriya:46
Sanskrit:42 Sylheti:28 Syriac_(Estrangelo):23 Syriac_(Serto):23 Tagalog:17 Tengwar:25 Tibetan:42 Tifinagh:55
ULOG:26
"""
ALPHABETS = {name: int(count) for name, count in (pair.split(":") for pair in _COUNTS.split())}
"""How many characters each alphabet has."""

# By the lists of Vinyals et al. (2016), which tell whole alphabets apart, but for Gurmukhi: its last four are for testing.
VINYALS_VAL = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
VINYALS_TEST = (
    *("Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian", "Old_Church_Slavonic_(Cyrillic)", "Oriya", "Sylheti"),
    *("Syriac_(Serto)", "Tengwar", "Tibetan", "ULOG"),
    *(f"Gurmukhi/character{number}" for number in range(42, 46)),
)


def load_omniglot(
    folder: str | Path | None = None,
    *,
    split: Literal["maml", "vinyals"] = "maml",
    subset: Literal["train", "val", "test", "all"] = "train",
    download: bool = False,
    progress: Progress | None = None,
) -> ImageSet:
    """Characters at 28×28, ink 255 on paper 0, 20 images each.

    Taken from `omniglot28.npz` (the packed images), or else from the original `images_background` and `images_evaluation`, as
    folders or as zip archives: they are resized from 105×105 (Lanczos, on grey), and packed beside them, where that can be
    written.

    Args:
        folder: the data folder (`data_dir`), which has the set in it or in `omniglot`.
        split: which characters are for what, `omniglot_split`.
        subset: "train", "val" or "test" of it, or "all" 1,623 characters.
        download: whether to fetch the archives (14 MB) where they are absent.
        progress: called while they come with (bytes there, bytes in all or None).

    Returns:
        Images [n, 28, 28, 1] of the classes `Alphabet/characterNN`, sorted by name; each class has its alphabet for a group.
        No rotations: classes rotated by 90°, 180° and 270° are the sampler's.

    Raises:
        DataError: where the set is absent, not whole or altered, or cannot be downloaded.

    Source: Lake, Salakhutdinov and Tenenbaum (2015), 'Human-level concept learning through probabilistic program induction'.
    """
    check_choice("split", split, ("maml", "vinyals"))
    check_choice("subset", subset, ("train", "val", "test", "all"))
    drawings = _load(roots(folder, "omniglot"), download, progress)
    labels = sorted(drawings) if subset == "all" else omniglot_split(split)[subset]
    images = np.concatenate([drawings[label] for label in labels])[..., None]
    name = "Omniglot" if subset == "all" else f"Omniglot {subset} ({split} split)"
    groups = tuple(label.split("/")[0] for label in labels)
    return ImageSet(name, images, np.full(len(labels), DRAWERS), tuple(labels), groups, LICENCE)


def omniglot_split(split: Literal["maml", "vinyals"] = "maml") -> dict[str, list[str]]:
    """Which characters are for training, validating and testing.

    Args:
        split: "maml" has 1,100, 100 and 423 characters, drawn at random from all alphabets: sorted names, shuffled by Python's
            `random.Random(1)`. It stands in for the split of Finn et al. (2017), whose shuffle was not recorded.
            "vinyals" has 1,028, 172 and 423, by the lists of Vinyals et al. (2016), which have other alphabets for each.

    Returns:
        The sorted names of the characters for "train", "val" and "test".

    Examples:
        >>> from metaception.data.omniglot import omniglot_split
        >>> {subset: len(labels) for subset, labels in omniglot_split("vinyals").items()}
        {'train': 1028, 'val': 172, 'test': 423}
        >>> omniglot_split("maml")["val"][:2]
        ['Alphabet_of_the_Magi/character16', 'Angelic/character01']
    """
    labels = _labels()
    if split == "maml":
        random.Random(1).shuffle(labels)
        parts = labels[:1100], labels[1100:1200], labels[1200:]
        return {subset: sorted(part) for subset, part in zip(("train", "val", "test"), parts, strict=True)}
    subsets: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label in labels:
        names = {label, label.split("/")[0]}
        subsets["test" if names & set(VINYALS_TEST) else "val" if names & set(VINYALS_VAL) else "train"].append(label)
    return subsets


def _labels() -> list[str]:
    return sorted(
        f"{name}/character{number:02d}" for name, count in ALPHABETS.items() for number in range(1, count + 1)
    )


Drawings = dict[str, UInt8[np.ndarray, "drawers height width"]]


def _load(places: list[Path], fetch: bool, progress: Progress | None) -> Drawings:
    """The drawings of every character, from the first place that has them."""
    root = places[0]
    for place in places:
        if (place / PACKED).is_file():
            return _from_packed(place / PACKED)
        there = [half for half in HALVES if (place / half).is_dir() or (place / f"{half}.zip").is_file()]
        if len(there) == len(HALVES):
            return _from_originals(place)
        if there:
            root = place
            break
    if fetch:
        for half, md5 in HALVES.items():
            if not (root / half).is_dir():
                download(f"{URL}/{half}.zip", root / f"{half}.zip", md5=md5, progress=progress)
        return _from_originals(root)
    missing = [half for half in HALVES if not (root / half).is_dir() and not (root / f"{half}.zip").is_file()]
    raise DataError(
        f"Omniglot is not in {places[-1]} nor in {places[0]}: missing {' and '.join(missing)}. Fetch it: "
        "`metaception data omniglot` (in Python download=True). Or get "
        f"{' and '.join(f'{URL}/{half}.zip' for half in missing)} and put them in {root} by hand."
    )


def _from_originals(root: Path) -> Drawings:
    files: dict[str, dict[str, Path | bytes]] = {}
    remedy = f"Delete it and get {' and '.join(f'{URL}/{half}.zip' for half in HALVES)}, or load with download=True."
    for half in HALVES:
        if (root / half).is_dir():
            _collect(files, {path.as_posix(): path for path in (root / half).rglob("*.png")})
            continue
        archive = root / f"{half}.zip"
        try:
            with zipfile.ZipFile(archive) as zipped:
                # 8 MB in memory; and damage is found before anything is decoded.
                _collect(files, {name: zipped.read(name) for name in zipped.namelist() if name.endswith(".png")})
        except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise DataError(f"{archive}: damaged ({error}). {remedy}") from error
    drawings: Drawings = {}
    _check(str(root), {label: len(found) for label, found in files.items()}, remedy)
    for label in sorted(files):
        names = sorted(files[label])
        drawings[label] = np.stack([_shrink(files[label][name], f"{root}: {label}/{name}") for name in names])
    _check_ink(str(root), drawings, remedy)
    try_to_write(root / PACKED, partial(_pack, drawings))
    return drawings


def _collect(files: dict[str, dict[str, Path | bytes]], found: Mapping[str, Path | bytes]) -> None:
    """Sort files into characters by their paths, …/Alphabet/characterNN/NNNN_DD.png."""
    for path, content in found.items():
        *above, alphabet, character, name = path.split("/")
        if "__MACOSX" not in above and not name.startswith("."):
            files.setdefault(f"{alphabet}/{character}", {})[name] = content


def _shrink(content: Path | bytes, name: str) -> UInt8[np.ndarray, "28 28"]:
    image = decode_image(content, name, channels=1)
    if image.shape != (105, 105, 1):
        raise DataError(f"{name}: {image.shape[0]}×{image.shape[1]}; expected an original of 105×105.")
    # In the originals ink is 0. Turned over after resizing: rounding is not the same both ways.
    return 255 - np.asarray(Image.fromarray(image[..., 0]).resize((28, 28), Image.Resampling.LANCZOS))


def _pack(drawings: Drawings, file: BinaryIO) -> None:
    alphabets = sorted(ALPHABETS)
    names, characters = zip(*(label.split("/character") for label in drawings), strict=True)
    np.savez_compressed(
        file,
        images=np.stack(list(drawings.values())),
        alphabet=np.array([alphabets.index(name) for name in names], np.uint8),
        alphabet_names=np.array(alphabets),
        character=np.array([int(number) for number in characters], np.uint8),
    )


def _from_packed(path: Path) -> Drawings:
    remedy = "Delete it: it is made anew from the originals, which download=True gets."
    arrays = read_arrays(path, ("images", "alphabet", "alphabet_names", "character"), remedy)
    images, alphabets = arrays["images"], dict(enumerate(arrays["alphabet_names"].tolist()))
    pairs = zip(arrays["alphabet"].tolist(), arrays["character"].tolist(), strict=False)
    labels = [f"{alphabets.get(index, index)}/character{number:02d}" for index, number in pairs]
    if images.dtype != np.uint8 or images.shape != (len(labels), DRAWERS, 28, 28):
        raise DataError(
            f"{path}: images are {images.dtype} {images.shape}; expected uint8 [1623, 20, 28, 28]. {remedy}"
        )
    drawings = dict(zip(labels, images, strict=True))
    _check(str(path), {label: len(found) for label, found in drawings.items()}, remedy)
    _check_ink(str(path), drawings, remedy)
    return drawings


def _check(where: str, found: dict[str, int], remedy: str) -> None:
    strange = sorted(set(found) - set(_labels()))
    if strange:
        raise DataError(
            f"Omniglot in {where}: {len(strange):,} of the characters found are none of Omniglot's: {', '.join(strange[:3])}. "
            f"{remedy}"
        )
    check_counts(
        f"Omniglot in {where}", {label: found.get(label, 0) for label in _labels()}, len(_labels()), DRAWERS, remedy
    )


def _check_ink(where: str, drawings: Drawings, remedy: str) -> None:
    if np.mean([images.mean() for images in drawings.values()]) > 127:
        raise DataError(
            f"Omniglot in {where}: more ink than paper, so black and white are the other way round. {remedy}"
        )
