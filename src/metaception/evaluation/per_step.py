"""Statistics of each inner step for batch normalisation, measured on training tasks after training."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from metaception.core.algorithm import MetaAlgorithm, itself
from metaception.core.learner import Meta, advance
from metaception.core.mapping import for_evaluation
from metaception.core.model import Moments
from metaception.core.streams import stream_key
from metaception.core.task import TaskDistribution
from metaception.learners.per_step import MetaAndMoments, PerStep
from metaception.learners.supervised import InnerState, Supervised


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
    learner = check_per_step(algorithm)
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


def check_per_step(algorithm: MetaAlgorithm) -> Supervised:
    """The algorithm's learner, if there can be statistics of each of its inner steps.

    Raises:
        ValueError: as `per_step_statistics` says.
    """
    learner = algorithm.test_learner
    if not isinstance(learner, Supervised):
        raise ValueError(f"per_step_statistics: {type(learner).__name__} does not adapt a model by steps.")
    if learner.statistics != "batch":
        raise ValueError(
            f"per_step_statistics: the learner has the policy {learner.statistics!r}; give one that was trained with 'batch'."
        )
    return learner
