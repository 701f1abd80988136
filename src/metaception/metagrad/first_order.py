"""First-order meta-gradients: the inner gradient is held fixed."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import GradientBased, Learner, Meta, Sampling, Step
from metaception.core.metagradient import Differentiating
from metaception.core.task import Task
from metaception.metagrad._check import refuse, unseen_leaves
from metaception.metagrad._objective import LossAt, objective


def first_order_step(learner: GradientBased) -> Step:
    """The learner's step with the gradient stopped *at the inner gradient*: θ' = θ − α·stop(g).

    What scales the gradient (α, a learned update rule) is still differentiated exactly; what acts only inside the inner
    loss is not seen at all.
    """

    def step(key: PRNGKeyArray, meta: Meta, state: PyTree, data: Any) -> PyTree:
        gradient = jax.lax.stop_gradient(learner.inner_gradient(key, meta, state, data))
        return learner.inner_update(meta, state, gradient)

    return step


class FirstOrder(Differentiating):
    """Differentiate through the inner updates with every inner gradient held fixed: no second derivatives.

    Args:
        loss_at: the outer loss after the `last` inner step, or its mean over `every` inner step.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> for steps in (1, 0):  # without an inner step the two agree
        ...     learner = mc.Initialisation(line, mc.mean_squared_error, jnp.array(0.25), steps=steps)
        ...     for estimator in (mc.FirstOrder(), mc.Unroll()):
        ...         estimate, _ = estimator.estimate(jax.random.key(0), learner, jnp.array(0.0), (), mc.Task(one, one))
        ...         print(steps, estimate.gradient)
        1 -4.0
        1 -2.0
        0 -8.0
        0 -8.0

    Finn et al. 2017, section 5.2; Nichol et al. 2018, "On First-Order Meta-Learning Algorithms", section 2.2.
    """

    loss_at: LossAt = eqx.field(static=True, default="last")

    def surrogate(
        self, key: PRNGKeyArray, learner: Learner, meta: Meta, task: Task
    ) -> tuple[Float[Array, ""], tuple[Float[Array, ""], dict[str, Any]]]:
        assert isinstance(learner, GradientBased)
        return objective(learner, key, meta, task, step=first_order_step(learner), loss_at=self.loss_at)

    def check(self, learner: Learner, meta: Meta, task: Task) -> None:
        if not isinstance(learner, GradientBased):
            raise refuse(
                self,
                learner,
                "it has no inner gradient to hold fixed (metaception.GradientBased).",
                "Use Unroll or EvolutionStrategies.",
            )
        if isinstance(learner, Sampling):
            raise refuse(
                self,
                learner,
                "it draws its own data, and a first-order estimate leaves out how the draw depends on the meta-parameters.",
                "Use Unroll, which adds the score term.",
            )

        def surrogate(meta: Meta, task: Task) -> Float[Array, ""]:
            step = first_order_step(learner)
            return objective(learner, jax.random.key(0), meta, task, step=step, loss_at=self.loss_at)[0]

        unseen = unseen_leaves(surrogate, meta, task)
        if unseen:
            raise refuse(
                self,
                learner,
                f"with the inner gradient held fixed the meta-gradient of {', '.join(unseen)} is exactly zero, because it "
                "acts only inside the inner loss.",
                "Use Unroll or EvolutionStrategies.",
            )
