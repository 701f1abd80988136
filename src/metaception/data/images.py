"""A set of images sorted into classes: what every loader returns and every sampler of episodes takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size, class after class.

    Attributes:
        name: what it is, for messages and pages.
        images: [n, height, width, channels], the images of the first class, then those of the second, …
        counts: [classes], how many images each class has.
        classes: the classes' names, each once.
        groups: what each class belongs to (an alphabet, a script); as long as `classes`, or empty.
        licence: under which terms the images may be used.

    Examples:
        >>> import numpy as np, metaception as mc
        >>> dark, light = np.zeros((3, 8, 8, 1), np.uint8), np.full((2, 8, 8, 1), 255, np.uint8)
        >>> images = mc.ImageSet.from_classes("greys", {"dark": dark, "light": light})
        >>> images.counts.tolist(), images.of("light").shape
        ([3, 2], (2, 8, 8, 1))
    """

    name: str
    images: UInt8[np.ndarray, "n height width channels"]
    counts: Int[np.ndarray, " classes"]
    classes: tuple[str, ...]
    groups: tuple[str, ...] = ()
    licence: str = ""

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.counts) or len(set(self.classes)) != len(self.classes):
            raise ValueError(
                f"{self.name}: {len(self.classes)} names for {len(self.counts)} classes; expected one each."
            )
        if self.groups and len(self.groups) != len(self.classes):
            raise ValueError(
                f"{self.name}: {len(self.groups)} groups for {len(self.classes)} classes; expected one each."
            )
        if not len(self.classes) or self.counts.min() < 1:
            raise ValueError(f"{self.name}: a set needs at least one class, and a class at least one image.")
        if self.counts.sum() != len(self.images):
            raise ValueError(
                f"{self.name}: the classes count {self.counts.sum():,} images and there are {len(self.images):,}."
            )

    def __repr__(self) -> str:
        size = "×".join(map(str, self.images.shape[1:]))
        return f"ImageSet({self.name}: {len(self.classes):,} classes, {len(self.images):,} images of {size})"

    @classmethod
    def from_classes(
        cls, name: str, images: Mapping[str, Any], *, groups: Mapping[str, str] | None = None, licence: str = ""
    ) -> ImageSet:
        """From one array [n, height, width, channels] or [n, height, width] of uint8 a class.

        Raises:
            ValueError: for other types, or classes whose images differ in size.
        """
        arrays: list[np.ndarray] = []
        for label, given in images.items():
            array = np.asarray(given)
            array = array[..., None] if array.ndim == 3 else array
            if array.dtype != np.uint8 or array.ndim != 4:
                raise ValueError(
                    f"{name}: class {label!r} has {array.dtype} {array.shape}; expected uint8 [n, height, width, channels], "
                    "0 for black and 255 for white."
                )
            if arrays and array.shape[1:] != arrays[0].shape[1:]:
                raise ValueError(
                    f"{name}: class {label!r} has images of {array.shape[1:]}, the classes before it of "
                    f"{arrays[0].shape[1:]}; resize them to one size."
                )
            arrays.append(array)
        if not arrays:
            raise ValueError(f"{name}: no class given.")
        counts = np.array([len(array) for array in arrays])
        named = tuple(groups[label] for label in images) if groups else ()
        return cls(name, np.concatenate(arrays), counts, tuple(images), named, licence)

    @property
    def starts(self) -> Int[np.ndarray, " classes"]:
        """[classes], where each class begins in `images`."""
        return np.cumsum(self.counts) - self.counts

    def of(self, label: str) -> UInt8[np.ndarray, "n height width channels"]:
        """The images of one class."""
        index = self.classes.index(label)
        return self.images[self.starts[index] : self.starts[index] + self.counts[index]]

    def select(self, classes: Iterable[str], name: str | None = None) -> ImageSet:
        """The set of these classes alone, in the order given.

        Raises:
            ValueError: for classes that there are not.
        """
        index = {label: i for i, label in enumerate(self.classes)}
        chosen = list(classes)
        missing = [label for label in chosen if label not in index]
        if missing:
            shown = ", ".join(missing[:3])
            raise ValueError(f"{self.name}: {len(missing)} of {len(chosen)} classes are not in it: {shown} …")
        places = [index[label] for label in chosen]
        starts = self.starts
        rows = np.concatenate([np.arange(starts[i], starts[i] + self.counts[i]) for i in places] or [np.arange(0)])
        groups = tuple(self.groups[i] for i in places) if self.groups else ()
        return ImageSet(name or self.name, self.images[rows], self.counts[places], tuple(chosen), groups, self.licence)

    def split(self, *counts: int, seed: int = 0) -> tuple[ImageSet, ...]:
        """Disjoint sets of so many classes each, shuffled by `seed`.

        Raises:
            ValueError: where the counts are not positive or are more than the classes.

        Examples:
            >>> import numpy as np, metaception as mc
            >>> images = mc.ImageSet.from_classes("ten", {str(i): np.zeros((2, 4, 4), np.uint8) for i in range(10)})
            >>> train, test = images.split(7, 3)
            >>> len(train.classes), set(train.classes) & set(test.classes)
            (7, set())
        """
        if not counts or min(counts) < 1 or sum(counts) > len(self.classes):
            raise ValueError(
                f"{self.name}: split{counts}; expected positive numbers whose sum is at most the {len(self.classes)} classes "
                "there are."
            )
        order = [self.classes[i] for i in np.random.default_rng(seed).permutation(len(self.classes))]
        ends = np.cumsum(counts).tolist()
        return tuple(self.select(order[end - count : end], self.name) for count, end in zip(counts, ends, strict=True))
