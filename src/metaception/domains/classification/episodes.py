"""Episodes: few-shot classification tasks, drawn on the device from a set of images."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from metaception.core.task import Examples, Task, TaskDistribution
from metaception.data.images import ImageSet
from metaception.domains.classification.losses import ABSENT

Shots = int | tuple[int, int]
QUARTERS = 4
"""The rotations by 0°, 90°, 180° and 270°."""


class Episodes(TaskDistribution):
    """Draw `ways` classes, and of each of them `shots` images to learn from and `queries` others to be judged by.

    The images stay on the device as uint8 and each episode is cut out of them inside the compiled step; inputs are pixels
    from 0 to 1. Support and query of an episode never share an image.

    Args:
        images: the classes to draw from.
        ways: classes an episode.
        shots: support images a class; or (low, high), both included: each class of each episode then draws its own number.
        queries: query images a class.
        rotations: every class turned by 90°, 180° and 270° is a class of its own, so that there are four times as many.
        exclusive: True: labels are drawn anew for each episode (mutually exclusive tasks: no one function fits all of them).
            False: each class keeps one label in all episodes, by which a network could memorise it (Yin et al. 2020).

    Where classes draw different numbers of shots, the support set has room for the most, `ways · high` rows; rows beyond a
    class's own number repeat its images and carry the label -1, which no loss counts.

    Raises:
        ValueError: for too few classes, or classes with too few images.

    Examples:
        >>> import jax, numpy as np, metaception as mc
        >>> images = mc.ImageSet.from_classes("greys", {str(i): np.full((4, 8, 8), 20 * i, np.uint8) for i in range(10)})
        >>> task = mc.Episodes(images, ways=3, shots=1, queries=2).sample(jax.random.key(0))
        >>> task.support.inputs.shape, task.query.targets.tolist()
        ((3, 8, 8, 1), [0, 0, 1, 1, 2, 2])

    Vinyals et al. 2016, "Matching Networks for One Shot Learning", section 4.1; rotations as classes: Santoro et al. 2016.
    """

    finite: ClassVar[bool] = True

    images: UInt8[Array, "n height width channels"]
    starts: Int[Array, " classes"]
    counts: Int[Array, " classes"]
    order: Int[Array, " all_classes"] | None
    name: str = eqx.field(static=True)
    ways: int = eqx.field(static=True)
    shots: Shots = eqx.field(static=True)
    queries: int = eqx.field(static=True)
    rotations: bool = eqx.field(static=True)
    exclusive: bool = eqx.field(static=True)
    most: int = eqx.field(static=True)

    def __init__(
        self,
        images: ImageSet,
        *,
        ways: int = 5,
        shots: Shots = 1,
        queries: int = 1,
        rotations: bool = False,
        exclusive: bool = True,
    ):
        low, high = shots if isinstance(shots, tuple) else (shots, shots)
        if not 1 <= low <= high or ways < 2 or queries < 1:
            raise ValueError(
                f"Episodes: ways={ways}, shots={shots}, queries={queries}; expected 2 ways or more, and 1 or more of the others"
                " (shots: a number, or the lowest and the highest)."
            )
        total = len(images.classes) * (QUARTERS if rotations else 1)
        if total < ways:
            raise ValueError(
                f"Episodes: {images.name} has {total} classes{', rotations included' if rotations else ''}, and an episode "
                f"wants {ways}; take fewer ways."
            )
        few = [label for label, count in zip(images.classes, images.counts, strict=True) if count < high + queries]
        if few:
            least = int(images.counts.min())
            raise ValueError(
                f"Episodes: {len(few)} of {len(images.classes)} classes of {images.name} have fewer than the {high} + "
                f"{queries} images that an episode takes of a class ({few[0]!r} among them; the smallest has {least}); take "
                "fewer shots or queries, or leave those classes out."
            )
        if rotations:
            check_square("Episodes", images)
        self.images = jnp.asarray(images.images)
        self.starts = jnp.asarray(images.starts, jnp.int32)
        self.counts = jnp.asarray(images.counts, jnp.int32)
        # Which classes share a label where labels are fixed: `ways` equal parts of the shuffled classes.
        order = np.random.default_rng(0).permutation(total)[: total // ways * ways]
        self.order = None if exclusive else jnp.asarray(order, jnp.int32)
        self.name, self.ways, self.shots, self.queries = images.name, ways, shots, queries
        self.rotations, self.exclusive, self.most = rotations, exclusive, int(images.counts.max())

    def sample(self, key: PRNGKeyArray) -> Task:
        key_classes, key_images, key_shots = jax.random.split(key, 3)
        classes = self.draw_classes(key_classes)
        turns, classes = jnp.divmod(classes, self.counts.shape[0])
        low, high = self.shots if isinstance(self.shots, tuple) else (self.shots, self.shots)
        size = high + self.queries

        def rows(key: PRNGKeyArray, label: Int[Array, ""]) -> Int[Array, " size"]:
            # The smallest of as many random numbers as the class has images: which they are is a draw without replacement.
            numbers = jax.random.uniform(key, (self.most,))
            numbers = jnp.where(jnp.arange(self.most) < self.counts[label], numbers, 2.0)
            return self.starts[label] + jax.lax.top_k(-numbers, size)[1]

        drawn = jax.vmap(rows)(jax.random.split(key_images, self.ways), classes)
        own = jax.random.randint(key_shots, (self.ways, 1), low, high + 1)
        place = jnp.arange(high) % own
        support = self._examples(jnp.take_along_axis(drawn, place, axis=1), turns)
        query = self._examples(drawn[:, high:], turns)
        if low != high:
            labels = jnp.where(jnp.arange(high) < own, jnp.arange(self.ways)[:, None], ABSENT)
            support = Examples(support.inputs, labels.reshape(-1))
        return Task(support, query)

    def draw_classes(self, key: PRNGKeyArray) -> Int[Array, " ways"]:
        """The classes of one episode in the order of their labels; turned ones are numbered after all upright ones."""
        if self.order is not None:
            parts = self.order.reshape(self.ways, -1)
            places = jax.random.randint(key, (self.ways,), 0, parts.shape[1])
            return parts[jnp.arange(self.ways), places]
        total = self.counts.shape[0] * (QUARTERS if self.rotations else 1)
        return jax.lax.top_k(jax.random.uniform(key, (total,)), self.ways)[1].astype(jnp.int32)

    def _examples(self, rows: Int[Array, "ways n"], turns: Int[Array, " ways"]) -> Examples:
        pixels = self.images[rows].astype(jnp.float32) / 255.0
        if self.rotations:
            pixels = jax.vmap(turned)(pixels, turns)
        labels = jnp.repeat(jnp.arange(self.ways, dtype=jnp.int32), rows.shape[1])
        return Examples(pixels.reshape(-1, *pixels.shape[2:]), labels)


def check_square(who: str, images: ImageSet) -> None:
    """Refuse images that a quarter turn would give another shape.

    Raises:
        ValueError: says so.
    """
    height, width = images.images.shape[1:3]
    if height != width:
        raise ValueError(f"{who}: images of {height} × {width} cannot be turned by 90°; make them square.")


def turned(images: Array, turns: Int[Array, ""]) -> Array:
    """Images [n, size, size, channels], turned by `turns` quarters."""
    across = jnp.where(turns % 2 == 1, jnp.swapaxes(images, 1, 2), images)
    # A quarter turn is a transposition and a reversal of the rows, half a turn a reversal of both.
    down = jnp.where((turns == 1) | (turns == 2), across[:, ::-1], across)
    return jnp.where((turns == 2) | (turns == 3), down[:, :, ::-1], down)
