"""Batch normalisation by statistics that training tasks had after each inner step: predictions that depend on no batch."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.algorithm import MetaAlgorithm, itself
from metaception.core.learner import Adapted, Aux, Iterative, Meta, advance
from metaception.core.mapping import for_evaluation
from metaception.core.model import Moments
from metaception.core.streams import stream_key
from metaception.core.task import Task, TaskDistribution
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
    statistics of, the last ones are taken. `per_step_statistics` makes it.

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


def per_step_statistics(
    algorithm: MetaAlgorithm,
    metas: Meta,
    *,
    steps: int,
    tasks: TaskDistribution | None = None,
    count: int = 100,
    seed: int = 0,
) -> tuple[MetaAlgorithm, PyTree]:
    """The algorithm with statistics of each inner step for its batch normalisation, and the meta-parameters with them.

    What batch normalisation takes of the query sets of training tasks, after 0, 1, …, `steps` inner steps, is averaged over
    tasks: what running averages over training come to, without their lag.

    Args:
        algorithm: what was trained; its learner's policy of batch statistics is `batch`.
        metas: its meta-parameters, with the seeds along a leading axis.
        steps: inner steps that there are to be statistics of.
        tasks: what training drew from; the algorithm's unless given (a run that was loaded has no images).
        count: tasks of it.
        seed: which ones.

    Returns:
        What `metaception.evaluate` takes as algorithm and meta-parameters.

    Raises:
        ValueError: for a learner that does not adapt a model by steps, or another policy.

    Examples:
        >>> import jax, metaception as mc
        >>> tasks = mc.ImageTasks("glyphs", ways=2)
        >>> network = mc.conv_net((28, 28, 1), 2, filters=2, blocks=1)
        >>> algorithm = mc.MAML(inner_rate=0.4, meta_batch_size=2).build(network, tasks.train_tasks(), loss=mc.cross_entropy)
        >>> metas = jax.vmap(algorithm.learner.init_meta)(jax.random.split(jax.random.key(0), 1))
        >>> algorithm, metas = mc.per_step_statistics(algorithm, metas, steps=1, count=4)
        >>> metas.moments[0][0].shape  # seeds, after 0 and 1 inner steps, channels
        (1, 2, 2)
        >>> result = mc.evaluate(algorithm, metas, tasks.test_tasks(shots=1, queries=5), steps=1, count=3)

    Antoniou, Edwards & Storkey 2019, "How to train your MAML", section 4, "Per-Step Batch Normalization Running Statistics".
    """
    learner = algorithm.test_learner
    if not isinstance(learner, Supervised):
        raise ValueError(f"per_step_statistics: {type(learner).__name__} does not adapt a model by steps.")
    if learner.statistics != "batch":
        raise ValueError(
            f"per_step_statistics: the learner has the policy {learner.statistics!r}; give one that was trained with 'batch'."
        )
    mapping = for_evaluation(algorithm.mapping, count, algorithm.meta_batch_size)

    def one(shared: Any, key: PRNGKeyArray) -> Moments:
        learner, tasks, meta = shared
        key_task, key_init, key_steps = jax.random.split(key, 3)
        task = tasks.sample(key_task)

        def read(state: InnerState) -> Moments:
            return learner.model.moments(learner.output(meta, state), task.query.inputs)

        state = learner.init(key_init, meta, task.support)
        _, after = advance(learner, key_steps, meta, state, task.support, length=steps, read=read)
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), read(state), after)

    @eqx.filter_jit
    def measured(learner: Supervised, tasks: Any, metas: Meta) -> Moments:
        keys = jax.random.split(stream_key(seed, "train"), count)

        def of_seed(meta: Meta) -> Moments:
            return jax.tree.map(lambda a: jnp.mean(a, axis=0), mapping(one, (learner, tasks, meta), keys))

        return jax.lax.map(of_seed, metas)

    moments = measured(learner, algorithm.tasks if tasks is None else tasks, metas)
    tested = PerStep(learner=learner, steps=learner.steps)
    return dataclasses.replace(algorithm, learner=tested, at_test=itself), MetaAndMoments(metas, moments)
