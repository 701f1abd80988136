"""Batches over all classes of a set of images: ordinary classification, as pretraining has it."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from metaception.core.task import Examples, Task, TaskDistribution
from metaception.data.images import ImageSet
from metaception.domains.classification.episodes import QUARTERS, check_square, turned


class Batches(TaskDistribution):
    """Draw `size` images at random from all classes, each labelled with its class, always the same one.

    Episodes draw their labels anew and so cannot say what one network for all classes should answer. A batch is both halves of
    its task: nothing is learned from the one to be judged by the other.

    Args:
        images: the classes.
        size: images a batch.
        rotations: every class turned by 90°, 180° and 270° is a class of its own.

    Raises:
        ValueError: for a size below one, or turned images that are not square.

    Examples:
        >>> import jax, jax.numpy as jnp, numpy as np, metaception as mc
        >>> images = mc.ImageSet.from_classes("greys", {str(i): np.full((4, 8, 8), 20 * i, np.uint8) for i in range(10)})
        >>> batches = mc.Batches(images, size=6)
        >>> query = batches.sample(jax.random.key(0)).query
        >>> batches.ways, query.inputs.shape, bool((jnp.round(query.inputs[:, 0, 0, 0] * 255 / 20) == query.targets).all())
        (10, (6, 8, 8, 1), True)
    """

    finite: ClassVar[bool] = True

    images: UInt8[Array, "n height width channels"]
    labels: Int[Array, " n"]
    ways: int = eqx.field(static=True)
    size: int = eqx.field(static=True)
    rotations: bool = eqx.field(static=True)

    def __init__(self, images: ImageSet, *, size: int = 16, rotations: bool = False):
        if size < 1:
            raise ValueError(f"Batches: size={size}; expected 1 or more.")
        if rotations:
            check_square("Batches", images)
        self.images = jnp.asarray(images.images)
        self.ways, self.size, self.rotations = len(images.classes) * (QUARTERS if rotations else 1), size, rotations
        self.labels = jnp.asarray(np.repeat(np.arange(len(images.classes)), images.counts), jnp.int32)

    def sample(self, key: PRNGKeyArray) -> Task:
        key_rows, key_turns = jax.random.split(key)
        rows = jax.random.randint(key_rows, (self.size,), 0, self.labels.shape[0])
        images, labels = self.images[rows], self.labels[rows]
        if self.rotations:
            turns = jax.random.randint(key_turns, (self.size,), 0, QUARTERS)
            images = jax.vmap(lambda image, turns: turned(image[None], turns)[0])(images, turns)
            labels += turns * (self.ways // QUARTERS)
        batch = Examples(images.astype(jnp.float32) / 255.0, labels)
        return Task(batch, batch)
