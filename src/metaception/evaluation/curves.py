"""Meta-testing: how well new tasks are learned, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped
from scipy.special import stdtrit  # scipy.stats has it too, and takes a second to import

from metaception.core.algorithm import MetaAlgorithm
from metaception.core.learner import Iterative, Learner, Meta, advance
from metaception.core.mapping import Mapping, Sequential, for_evaluation
from metaception.core.streams import Stream, stream_key
from metaception.core.task import Task, TaskDistribution, as_tasks

DIVERGED = 1e6
"""A loss above this, or one that is not finite, counts as diverged."""


class Evaluation(NamedTuple):
    """Losses on held-out tasks over inner steps, and what is reported of them.

    Attributes:
        losses: [seeds, tasks, steps + 1], the outer loss of each task after 0, 1, … inner steps.
        rate: the inner step size that validation tasks chose, where the method leaves it to them; else None.
        measures: what the loss measures beside itself, as `accuracy`: by name, of `losses`' shape.

    Examples:
        >>> import numpy as np, metaception as mc
        >>> losses = np.array([[[4.0, 1.0], [2.0, 2.0], [3.0, np.nan]]])  # one seed, three tasks, before and after one step
        >>> evaluation = mc.Evaluation(losses)
        >>> evaluation.mean.tolist(), evaluation.median.tolist(), evaluation.diverged.tolist()
        ([3.0, inf], [3.0, 2.0], [0, 1])
    """

    losses: Float[np.ndarray, "seeds tasks points"]
    rate: float | None = None
    measures: dict[str, Float[np.ndarray, "seeds tasks points"]] = {}  # noqa: RUF012 (never written to)

    def of(self, measure: str) -> Evaluation:
        """The same statistics of one of the `measures`, in place of the losses.

        Raises:
            ValueError: where it was not measured.

        Examples:
            >>> import numpy as np, metaception as mc
            >>> losses, right = np.array([[[4.0], [2.0]]]), np.array([[[0.5], [1.0]]])
            >>> mc.Evaluation(losses, measures={"accuracy": right}).of("accuracy").mean.tolist()
            [0.75]
        """
        if measure not in self.measures:
            known = ", ".join(self.measures) or "nothing"
            raise ValueError(f"Evaluation: {measure!r} was not measured; the loss measures {known} beside itself.")
        return Evaluation(self.measures[measure], self.rate)

    @property
    def mean(self) -> Float[np.ndarray, " points"]:
        """The mean over all seeds and tasks; infinite if a single task diverged."""
        return self._counted().mean(axis=(0, 1))

    @property
    def median(self) -> Float[np.ndarray, " points"]:
        """The median over all seeds and tasks."""
        return np.median(self._counted(), axis=(0, 1))

    @property
    def interval(self) -> Float[np.ndarray, " points"]:
        """The half-width of the 95 % interval of the mean: over seeds where there are three or more, else over tasks.

        Student's t over the seeds' means, or 1.96 standard errors over all tasks. Not a number where a task diverged.
        """
        losses = self._counted()
        seeds = losses.shape[0]
        with np.errstate(invalid="ignore"):
            if seeds >= 3:
                spread = losses.mean(axis=1).std(axis=0, ddof=1)
                return stdtrit(seeds - 1, 0.975) * spread / np.sqrt(seeds)
            flat = losses.reshape(-1, losses.shape[-1])
            if flat.shape[0] < 2:
                return np.full(losses.shape[-1], np.nan)
            return 1.96 * flat.std(axis=0, ddof=1) / np.sqrt(flat.shape[0])

    @property
    def diverged(self) -> np.ndarray:
        """How many of all tasks diverged, after each number of steps: [steps + 1]."""
        return np.isinf(self._counted()).sum(axis=(0, 1))

    def _counted(self) -> np.ndarray:
        bad = ~np.isfinite(self.losses) | (self.losses > DIVERGED)
        return np.where(bad, np.inf, self.losses)


def adaptation_curve(
    learner: Learner, key: PRNGKeyArray, meta: Meta, task: Task, steps: int
) -> dict[str, Float[Array, " points"]]:
    """The outer loss of one task after 0, 1, …, `steps` inner steps; `steps` may exceed training's.

    A learner that adapts without steps gives a single point. Nothing outside the inner loop is differentiated.

    Returns:
        [steps + 1], or [1]: the `loss`, and by its name what it measures beside itself.
    """
    key_adapt, key_loss = jax.random.split(key)
    if not isinstance(learner, Iterative):
        loss, aux = learner.loss(key_loss, meta, learner.adapt(key_adapt, meta, task.support), task)
        return jax.tree.map(lambda value: value[None], {"loss": loss, **aux})
    key_init, key_steps = jax.random.split(key_adapt)
    state = learner.init(key_init, meta, task.support)

    def judge(state: object) -> dict[str, Float[Array, ""]]:
        loss, aux = learner.loss(key_loss, meta, learner.output(meta, state), task)
        return {"loss": loss, **aux}

    _, after = advance(learner, key_steps, meta, state, task.support, length=steps, read=judge)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), judge(state), after)


@eqx.filter_jit
def _curves(
    learner: Learner,
    mapping: Mapping,
    metas: Meta,
    tasks: TaskDistribution,
    *,
    keys: Shaped[Array, "tasks ..."],
    steps: int,
) -> dict[str, Float[Array, "seeds tasks points"]]:
    """`adaptation_curve` for every seed's meta-parameters (leading axis of `metas`) on the same tasks, one a key.

    Of the learner alone: what is compiled for one algorithm serves all that adapt in the same way.
    """

    def one(shared: tuple[Learner, Meta], key: PRNGKeyArray) -> dict[str, Float[Array, " points"]]:
        learner, meta = shared
        key_task, key_adapt = jax.random.split(key)
        return adaptation_curve(learner, key_adapt, meta, tasks.sample(key_task), steps)

    # What is too large to run side by side for several tasks is so for several seeds.
    each = jax.lax.map if isinstance(mapping, Sequential) else lambda function, metas: jax.vmap(function)(metas)
    return each(lambda meta: mapping(one, (learner, meta), keys), metas)


def evaluate(
    algorithm: MetaAlgorithm,
    metas: Meta,
    tasks: TaskDistribution | Callable[[Any], Task] | None = None,
    *,
    steps: int = 10,
    count: int = 600,
    seed: int = 0,
    stream: Stream = "test",
) -> Evaluation:
    """Adapt to `count` tasks that are fixed by `seed` and disjoint from training's and validation's.

    Args:
        algorithm: what was trained.
        metas: its meta-parameters, with the seeds along a leading axis.
        tasks: the distribution to draw from; training's unless given.
        steps: inner steps.
        count: tasks.
        seed: which tasks; the same for every method and seed compared.
        stream: `test`, or `validation` to choose something by.

    Raises:
        ValueError: for impossible numbers.
        TypeError: where `tasks` is nothing that can be drawn from.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> x, y = jnp.array([[[1.0]]]), jnp.array([[[4.0]]])  # a single task of one example
        >>> algorithm = mc.MAML(inner_rate=0.25).build(line, mc.ArrayTasks(x, y, x, y))
        >>> mc.evaluate(algorithm, jnp.array([0.0]), steps=3).mean.tolist()  # w = 0, 2, 3 and 3.5: the losses are (w − 4)²
        [16.0, 4.0, 1.0, 0.25]
    """
    if steps < 0 or count < 1:
        raise ValueError(f"evaluate: steps={steps}, count={count}; expected steps >= 0 and at least one task.")
    keys = jax.random.split(stream_key(seed, stream), count)
    tasks = algorithm.tasks if tasks is None else as_tasks(tasks)
    mapping = for_evaluation(algorithm.mapping, count, algorithm.meta_batch_size)
    curves = _curves(algorithm.test_learner, mapping, metas, tasks, keys=keys, steps=steps)
    losses, measures = np.asarray(curves.pop("loss"), np.float64), jax.tree.map(np.asarray, curves)
    return Evaluation(losses, measures=measures)


FINE_TUNING_RATES = tuple(float(f"{1e-4 * 3000 ** (place / 14):.2g}") for place in range(21))
"""The step sizes that `tune_rate` tries: 21 from 0.0001 to 9.3, evenly on a logarithmic scale."""


def tune_rate(
    algorithm: MetaAlgorithm,
    metas: Meta,
    tasks: TaskDistribution | None = None,
    *,
    rates: tuple[float, ...] = FINE_TUNING_RATES,
    steps: int = 10,
    count: int = 600,
    seed: int = 0,
) -> tuple[MetaAlgorithm, float]:
    """Choose the inner step size with the lowest mean loss after `steps` steps on validation tasks.

    Args:
        algorithm, metas, tasks, count, seed: as in `evaluate`.
        rates: the step sizes to try.
        steps: the inner steps after which they are compared.

    Returns:
        The algorithm with that step size, and the step size.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> x, y = jnp.array([[[1.0]]]), jnp.array([[[4.0]]])  # a single task of one example
        >>> algorithm = mc.MAML(inner_rate=0.25).build(line, mc.ArrayTasks(x, y, x, y))
        >>> tuned, rate = mc.tune_rate(algorithm, jnp.array([0.0]), rates=(0.25, 0.5, 0.75), steps=1)
        >>> rate  # w − 0.5 · 2 (w − 4) = 4: one step ends at the solution
        0.5
    """

    def with_rate(rate: float) -> MetaAlgorithm:
        old = algorithm.learner.rate  # type: ignore[attr-defined]
        return eqx.tree_at(lambda a: a.learner.rate, algorithm, jnp.asarray(rate, old.dtype))

    def score(rate: float) -> float:
        result = evaluate(with_rate(rate), metas, tasks, steps=steps, count=count, seed=seed, stream="validation")
        return float(result.mean[-1])

    best = min(rates, key=score)
    return with_rate(best), best
