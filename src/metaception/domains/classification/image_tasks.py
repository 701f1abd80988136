"""Few-shot image classification as settings: which set, which split, how many ways and shots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from metaception.core.family import Family
from metaception.core.task import TaskDistribution
from metaception.data.images import ImageSet
from metaception.data.sets import SETS, Subset, load_images, load_part
from metaception.domains.classification.batches import Batches
from metaception.domains.classification.episodes import QUARTERS, Episodes, Shots
from metaception.domains.classification.losses import cross_entropy

OF_IMAGES = (Episodes, Batches)
"""The distributions whose inputs are images, with pixels from 0 to 1."""


@dataclass(frozen=True)
class ImageTasks(Family):
    """Episodes from a set of images, whose training, validation and test classes are disjoint.

    Attributes:
        images: the set: glyphs (comes with the package), omniglot, mini_imagenet or cifar_fs; or a folder of your own, with a
            folder of images for each class in it, or such folders in train, val and test.
        size: (height, width, channels) that images of your own are brought to, 1 channel for grey and 3 for RGB; the sets
            with a name have theirs.
        split: which of a named set's splits, the first unless given: script (glyphs), maml or vinyals (omniglot), ravi
            (mini_imagenet), bertinetto (cifar_fs).
        ways: classes an episode.
        train_ways: the same in training, where it is to differ; the model then has as many outputs as the larger of the two.
        shots: support images a class, in training; or two numbers, the fewest and the most: then each class of each episode
            draws its own.
        queries: query images a class, in training.
        validation_queries: the same in validation, so that the choice of the best meta-parameters rests on more of them.
        rotations: every class turned by 90°, 180° and 270° is a class of its own, in training and in tests. Not so
            (--no-rotations), images are as they come.
        exclusive: labels are drawn anew for each episode. Not so (--no-exclusive), each training class keeps
            one label for ever.
        batches: images of all training classes that an outer step of pretraining sees, each class with its own label; 0 for
            episodes in training. Validation and tests have episodes.

    Raises:
        ValueError: for a set or a split that there is not, and a size that is missing or not to be chosen.

    Examples:
        >>> import jax, metaception as mc
        >>> task = mc.ImageTasks("glyphs", ways=5, shots=1).test_tasks(shots=1, queries=3).sample(jax.random.key(0))
        >>> task.query.inputs.shape
        (15, 28, 28, 1)
    """

    images: str = "glyphs"
    size: tuple[int, int, int] | None = None
    split: str | None = None
    ways: int = 5
    train_ways: int | None = None
    shots: Shots = 1
    queries: int = 1
    validation_queries: int = 5
    rotations: bool = False
    exclusive: bool = True
    batches: int = 0

    measure: ClassVar[str] = "accuracy"

    def __post_init__(self) -> None:
        if self.images not in SETS:
            self._check_folder()
            return
        if self.size is not None:
            raise ValueError(f"ImageTasks: size={self.size} goes with a folder of your own; {self.images} has its own.")
        splits = SETS[self.images].splits
        if self.split is not None and self.split not in splits:
            raise ValueError(
                f"ImageTasks: {self.images} has no split {self.split!r}; expected one of {', '.join(splits)}."
            )

    def _check_folder(self) -> None:
        if self.size is None:
            raise ValueError(
                f"ImageTasks: images={self.images!r} is none of {', '.join(SETS)}; for a folder of your own give the size "
                "of its images too, (height, width, channels): --images FOLDER --size 84 84 3."
            )
        if min(self.size) < 1 or self.size[2] not in (1, 3):
            raise ValueError(f"ImageTasks: size={self.size}; expected (height, width, channels), with 1 or 3 channels.")
        if self.split is not None:
            raise ValueError(
                f"ImageTasks: split={self.split!r} goes with the sets that have a name, not with a folder."
            )
        # A run may be tested from another working folder.
        object.__setattr__(self, "images", str(Path(self.images).expanduser().resolve()))

    def train_tasks(self) -> TaskDistribution:
        if self.batches:
            return Batches(self._load("train"), size=self.batches, rotations=self.rotations)
        return self._episodes("train", self.shots, self.queries, ways=self.train_ways, exclusive=self.exclusive)

    def validation_tasks(self) -> Episodes:
        return self._episodes("val", self.shots, self.validation_queries)

    def test_tasks(self, shots: int, queries: int) -> Episodes:
        return self._episodes("test", shots, queries)

    def tuning_tasks(self, shots: int, queries: int) -> Episodes:
        return self._episodes("val", shots, queries)

    def shapes(self) -> TaskDistribution:
        height, width, channels = self.size or SETS[self.images].shape
        if self.batches:
            classes = self._all_classes()
            names = tuple(str(index) for index in range(classes))
            blank = np.zeros((classes, height, width, channels), np.uint8)
            return Batches(ImageSet("blank", blank, np.ones(classes, int), names), size=self.batches)
        most = self.shots if isinstance(self.shots, int) else max(self.shots)
        each, ways = most + self.queries, self.train_ways or self.ways
        blank = np.zeros((ways * each, height, width, channels), np.uint8)
        names = tuple(str(index) for index in range(ways))
        return self._of(ImageSet("blank", blank, np.full(ways, each), names), self.shots, self.queries, ways=ways)

    def citations(self) -> tuple[str, ...]:
        return SETS[self.images].citations if self.images in SETS else ()

    @property
    def loss(self) -> Any:
        return cross_entropy

    @property
    def outputs(self) -> int:
        """The most classes that training or an episode may have."""
        return max(self.ways, self.train_ways or 0, self._all_classes() if self.batches else 0)

    def _all_classes(self) -> int:
        known = SETS.get(self.images)
        if known is None:
            upright = len(self._load("train").classes)
        else:
            upright = known.training_classes[known.splits.index(self.split or known.splits[0])]
        return upright * (QUARTERS if self.rotations else 1)

    def _load(self, subset: Subset) -> ImageSet:
        if self.size is not None:
            return load_part(self.images, subset, self.size)
        return load_images(self.images, subset, split=self.split)

    def _episodes(
        self, subset: Subset, shots: Shots, queries: int, *, ways: int | None = None, exclusive: bool = True
    ) -> Episodes:
        return self._of(self._load(subset), shots, queries, ways=ways, exclusive=exclusive)

    def _of(
        self, images: ImageSet, shots: Shots, queries: int, *, ways: int | None = None, exclusive: bool = True
    ) -> Episodes:
        return Episodes(
            images,
            ways=ways or self.ways,
            shots=shots,
            queries=queries,
            rotations=self.rotations,
            exclusive=exclusive,
        )
