"""Batch normalisation by statistics that training tasks had after each inner step: predictions that depend on no batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaception.core.learner import Adapted, Aux, Iterative, Meta
from metaception.core.model import Moments
from metaception.core.task import Task
from metaception.learners.supervised import InnerState, Supervised, judge


class MetaAndMoments(NamedTuple):
    """Meta-parameters of `PerStep`.

    Attributes:
        meta: the learner's own.
        moments: of every normalisation in turn, (mean, variance), each [steps + 1, channels].
    """

    meta: Meta
    moments: Moments


class PerStep(Iterative):
    """A trained learner that predicts by the statistics that training tasks had after as many inner steps.

    Inner steps are those of the learner, whose support batches have their own statistics. After more steps than there are
    statistics of, the last ones are taken. `metaception.per_step_statistics` makes it.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> network = mc.dense_net((1, 2, 1), 2, widths=(2,))
        >>> learner = mc.Initialisation(network, mc.cross_entropy, jnp.array(0.1), steps=1)
        >>> tested = mc.PerStep(learner=learner, steps=1)
        >>> key, image = jax.random.key(0), jnp.ones((1, 1, 2, 1))
        >>> moments = [(jnp.zeros(2), jnp.ones(2))]  # the mean and the variance of the one normalisation
        >>> tested.predict((network.init(key), moments), image).shape  # of an image alone
        (1, 2)
    """

    learner: Supervised
    steps: int = eqx.field(static=True)

    def init_meta(self, key: PRNGKeyArray) -> Meta:
        raise TypeError("PerStep is made of a trained learner; see metaception.per_step_statistics.")

    def init(self, key: PRNGKeyArray, meta: MetaAndMoments, data: Any) -> InnerState:
        return self.learner.init(key, meta.meta, data)

    def step(self, key: PRNGKeyArray, meta: MetaAndMoments, state: InnerState, data: Any) -> InnerState:
        return self.learner.step(key, meta.meta, state, data)

    def output(self, meta: MetaAndMoments, state: InnerState) -> Adapted:
        own = jax.tree.map(lambda all_: all_[jnp.minimum(state.taken, all_.shape[0] - 1)], meta.moments)
        return self.learner.output(meta.meta, state), own

    def loss(
        self, key: PRNGKeyArray, meta: MetaAndMoments, adapted: Adapted, task: Task
    ) -> tuple[Float[Array, ""], Aux]:
        del key, meta
        return judge(self.learner.loss_function, self.predict(adapted, task.query.inputs), task.query.targets)

    def predict(self, adapted: Adapted, inputs: Any) -> Any:
        parameters, moments = adapted
        return self.learner.model.apply_with(parameters, inputs, moments)
