"""What is measured of few-shot images, the same for every implementation: one outer step of MAML on episodes of random images,
drawing them and Adam included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from work import Implementation, Parameters

WAYS = 5
OUTER_RATE = 1e-3
CLASSES, EACH = 200, 40


@dataclass(frozen=True)
class ImageWorkload:
    """The size of one outer step; the images are as many and as large as the data set's, and their pixels are random.

    Attributes:
        images: omniglot: 28 × 28 grey, 4 × 64 filters of stride 2. mini_imagenet: 84 × 84 RGB, 4 × 32 filters and pooling.
        tasks: tasks an outer step.
        shots: support images a class, of 5 classes.
        queries: query images a class.
        inner_steps: gradient steps on the support set.
    """

    images: Literal["omniglot", "mini_imagenet"] = "omniglot"
    tasks: int = 8
    shots: int = 1
    queries: int = 15
    inner_steps: int = 1

    def __str__(self) -> str:
        steps = "1 inner step" if self.inner_steps == 1 else f"{self.inner_steps} inner steps"
        return f"{self.images}, {self.tasks} tasks, {WAYS}-way {self.shots}-shot, {self.queries} queries, {steps}"

    @property
    def tolerance(self) -> float:
        """How far a peer's meta-gradient may be from ours, relative to the norm.

        Sums in another order turn some of the many ReLUs and maxima round; without its second-order term a meta-gradient is
        further away by far (tests/benchmarks).
        """
        return 0.02

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return (28, 28, 1) if self.images == "omniglot" else (84, 84, 3)

    @property
    def filters(self) -> int:
        """Filters of each convolution."""
        return 64 if self.images == "omniglot" else 32

    @property
    def inner_rate(self) -> float:
        """The papers' inner step sizes."""
        return 0.4 if self.images == "omniglot" else 0.01

    @property
    def features(self) -> int:
        """Inputs of the last layer: the mean over places, or all of 5 × 5 of them."""
        return self.filters * (1 if self.images == "omniglot" else 25)

    def pixels(self) -> np.ndarray:
        """The images to draw from: uint8 [classes, each, height, width, channels]."""
        draw = np.random.default_rng(0)
        return draw.integers(0, 256, (CLASSES, EACH, *self.size), np.uint8)

    def parameters(self) -> Parameters:
        """Where every implementation starts: kernel [3, 3, in, out], scale, shift of each block, then weight, bias."""
        draw = np.random.default_rng(0)
        arrays, channels = [], self.size[2]
        for _ in range(4):
            arrays.append(draw.standard_normal((3, 3, channels, self.filters)) * (2 / (9 * channels)) ** 0.5)
            arrays.append(1 + 0.1 * draw.standard_normal(self.filters))
            arrays.append(0.1 * draw.standard_normal(self.filters))
            channels = self.filters
        arrays.append(draw.standard_normal((self.features, WAYS)) * self.features**-0.5)
        arrays.append(0.1 * draw.standard_normal(WAYS))
        return [array.astype(np.float32) for array in arrays]

    def products(self) -> float:
        """Floating-point operations in the convolutions of one outer step of exact MAML, the fewest that give its gradient.

        A convolution of one image counts 2 · places · 9 · in · out. The query images want it three times (forward, to the
        images, to the kernel); the support images of every inner step three times for the gradient and twice that for the
        product with the Hessian, for each of three bilinear maps has two derivatives. The first layer hands nothing to its
        images, which saves it a third of each.
        """
        height, width, channels = self.size
        total = 0.0
        for layer in range(4):
            if self.images == "omniglot":
                height, width = -(-height // 2), -(-width // 2)
            one = 2 * height * width * 9 * channels * self.filters * (2 / 3 if layer == 0 else 1)
            total += one * WAYS * (3 * self.queries + 9 * self.shots * self.inner_steps)
            if self.images == "mini_imagenet":
                height, width = height // 2, width // 2
            channels = self.filters
        return self.tasks * total

    def load(self, name: str) -> Implementation:
        """The implementation of that name, set up: see image_ours.py and image_peers.py.

        Raises:
            ImportError: where a package that it needs is missing.
        """
        if name.startswith("metaception"):
            from image_ours import OurImages

            return OurImages(name, self)
        from image_peers import PEERS

        return PEERS[name](self)
