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


class Batches(TaskDistribution):
    """Draw `size` images at random from all classes, each labelled with its class, always the same one.

    Episodes draw their labels anew and so cannot say what one network for all classes should answer. A batch is both halves of
    its task: nothing is learned from the one to be judged by the other.

    Args:
        images: the classes.
        size: images a batch.

    Raises:
        ValueError: for a size below one.

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

    def __init__(self, images: ImageSet, *, size: int = 16):
        if size < 1:
            raise ValueError(f"Batches: size={size}; expected 1 or more.")
        self.images = jnp.asarray(images.images)
        self.ways, self.size = len(images.classes), size
        self.labels = jnp.asarray(np.repeat(np.arange(self.ways), images.counts), jnp.int32)

    def sample(self, key: PRNGKeyArray) -> Task:
        rows = jax.random.randint(key, (self.size,), 0, self.labels.shape[0])
        batch = Examples(self.images[rows].astype(jnp.float32) / 255.0, self.labels[rows])
        return Task(batch, batch)
