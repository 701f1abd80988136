"""What adaptation loses where the first layers are frozen at meta-test: rapid learning, or feature reuse?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metaception.analysis.representation import check_adapts
from metaception.core.algorithm import MetaAlgorithm, itself
from metaception.core.learner import Adapted, Aux, Iterative, Meta
from metaception.core.task import Task, TaskDistribution
from metaception.evaluation.curves import Evaluation, evaluate
from metaception.learners.supervised import InnerState, Supervised


class Frozen(Iterative):
    """A learner whose first layers do not adapt: each step leaves their parameters as they were.

    Args:
        learner: the learner, of a model that tells its layers.
        layers: how many of them; an array, so that what is compiled for one number serves all.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> from metaception.analysis.freezing import Frozen
        >>> scale, shift = lambda w, x, reference: w * x, lambda b, x, reference: x + b
        >>> model = mc.sequential(lambda key: [jnp.array(1.0), jnp.array(0.0)], [scale, shift])
        >>> learner = mc.Initialisation(model, mc.mean_squared_error, jnp.array(0.25), steps=1)
        >>> key, one = jax.random.key(0), mc.Examples(jnp.array([[1.0]]), jnp.array([[5.0]]))
        >>> [jax.tree.map(float, Frozen(learner, jnp.array(n)).adapt(key, learner.init_meta(key), one)) for n in (0, 1, 2)]
        [[3.0, 2.0], [1.0, 2.0], [1.0, 0.0]]
    """

    learner: Supervised
    layers: Int[Array, ""]
    steps: int = eqx.field(static=True)

    def __init__(self, learner: Supervised, layers: Int[Array, ""]):
        self.learner, self.layers, self.steps = learner, layers, learner.steps

    def init_meta(self, key: PRNGKeyArray) -> Meta:
        return self.learner.init_meta(key)

    def init(self, key: PRNGKeyArray, meta: Meta, data: Any) -> InnerState:
        return self.learner.init(key, meta, data)

    def step(self, key: PRNGKeyArray, meta: Meta, state: InnerState, data: Any) -> InnerState:
        after = self.learner.step(key, meta, state, data)
        # A frozen layer's parameters and not its gradient: an optimiser may move what has no gradient (weight decay).
        kept = [
            jax.tree.map(lambda old, new, index=index: jnp.where(index < self.layers, old, new), old, new)
            for index, (old, new) in enumerate(zip(state.parameters, after.parameters, strict=True))
        ]
        return after._replace(parameters=kept)

    def output(self, meta: Meta, state: InnerState) -> Adapted:
        return self.learner.output(meta, state)

    def loss(self, key: PRNGKeyArray, meta: Meta, adapted: Adapted, task: Task) -> tuple[Float[Array, ""], Aux]:
        return self.learner.loss(key, meta, adapted, task)

    def predict(self, adapted: Adapted, inputs: Any) -> Any:
        return self.learner.predict(adapted, inputs)


def evaluate_frozen(
    algorithm: MetaAlgorithm,
    metas: Meta,
    tasks: TaskDistribution | Callable[[Any], Task] | None = None,
    *,
    steps: int = 10,
    count: int = 600,
    seed: int = 0,
) -> Evaluation:
    """Adapt to the tasks of `evaluate` with the first 0, 1, …, all layers frozen; the arguments are those of `evaluate`.

    Returns:
        The losses after `steps` inner steps, whose last axis is the number of frozen layers: 0 is plain evaluation, all is no
        adaptation. Every number meets the same tasks, so the change from 0 is known better than each (`change`).

    Raises:
        TypeError: for a learner that does not fit a model to examples.
        ValueError: for impossible numbers, or a model that does not tell its layers.

    Examples:
        >>> import jax, metaception as mc
        >>> from metaception.analysis.freezing import evaluate_frozen
        >>> algorithm = mc.MAML().build(mc.mlp(1, 1, widths=(8, 8), initialiser="he"), mc.Sinusoids(shots=5))
        >>> metas = jax.vmap(algorithm.learner.init_meta)(jax.random.split(jax.random.key(0), 1))
        >>> evaluate_frozen(algorithm, metas, steps=1, count=5).losses.shape  # seeds, tasks, 0 to 3 layers
        (1, 5, 4)

    Raghu et al. 2020, "Rapid Learning or Feature Reuse?", table 1.
    """
    learner = check_adapts(algorithm.test_learner)
    found = []
    for layers in range(len(learner.model.layers or ()) + 1):
        frozen = dataclasses.replace(algorithm, learner=Frozen(learner, jnp.asarray(layers)), at_test=itself)
        found.append(evaluate(frozen, metas, tasks, steps=steps, count=count, seed=seed))

    def last(curves: list[Float[np.ndarray, "seeds tasks points"]]) -> Float[np.ndarray, "seeds tasks layers"]:
        return np.stack([curve[..., -1] for curve in curves], axis=-1)

    measures = {name: last([result.measures[name] for result in found]) for name in found[0].measures}
    return Evaluation(last([result.losses for result in found]), measures=measures)


def change(frozen: Evaluation) -> Evaluation:
    """What freezing changes, task by task: the losses less those with no layer frozen, and so their mean and interval.

    Examples:
        >>> import numpy as np, metaception as mc
        >>> from metaception.analysis.freezing import change
        >>> frozen = mc.Evaluation(np.array([[[1.0, 1.5], [3.0, 3.5]]]))  # two tasks; no layer and one layer frozen
        >>> change(frozen).mean.tolist(), change(frozen).interval.tolist()
        ([0.0, 0.5], [0.0, 0.0])
    """
    with np.errstate(invalid="ignore"):  # a task that diverges however many are frozen
        return Evaluation(frozen.losses - frozen.losses[..., :1])
