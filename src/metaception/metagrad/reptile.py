"""Reptile: move the initialisation towards where adaptation went."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray, PyTree

from metaception.core.learner import Initialising, Learner, Meta, Sampling
from metaception.core.metagradient import Estimate, MetaGradient
from metaception.core.task import Task
from metaception.metagrad._check import refuse


class Reptile(MetaGradient):
    """The displacement itself: meta − adapted(meta, support).

    With plain gradient descent on it as the outer update, of step ε, meta ← meta + ε (adapted − meta). Defined for the
    initialisation alone. The query set is only read for the reported loss.

    Nichol et al. 2018, "On First-Order Meta-Learning Algorithms", algorithms 1 and 2.
    """

    def init(self, key: PRNGKeyArray, learner: Learner, meta: Meta, task: Task) -> PyTree:
        del key, learner, meta, task
        return ()

    def estimate(
        self, key: PRNGKeyArray, learner: Learner, meta: Meta, state: PyTree, task: Task
    ) -> tuple[Estimate, PyTree]:
        key_adapt, key_loss = jax.random.split(key)
        adapted = learner.adapt(key_adapt, meta, task.support)
        displacement = jax.tree.map(lambda start, end: start - end, meta, adapted)
        loss, aux = learner.loss(key_loss, meta, adapted, task)
        return Estimate(displacement, loss, aux), state

    def check(self, learner: Learner, meta: Meta, task: Task) -> None:
        if not isinstance(learner, Initialising):
            raise refuse(
                self,
                learner,
                "Reptile is defined for the initialisation alone, and the learner's meta-parameters are not the parameters "
                "that adaptation starts from (metaception.Initialising).",
                "Use Unroll or FirstOrder.",
            )
        if isinstance(learner, Sampling):
            raise refuse(self, learner, "the learner draws its own data.", "Use Unroll, which adds the score term.")
        if learner.steps < 1:
            raise refuse(self, learner, "without an inner step nothing is displaced.", "Set inner_steps to at least 1.")
        adapted = jax.eval_shape(lambda meta, task: learner.adapt(jax.random.key(0), meta, task.support), meta, task)
        if not eqx.tree_equal(*jax.tree.map(lambda a: (a.shape, a.dtype), (adapted, meta))):
            raise refuse(
                self,
                learner,
                "what it adapts does not have the structure of its meta-parameters, so the one cannot move towards the other.",
                "Let `output` return the parameters, of `meta`'s structure.",
            )
