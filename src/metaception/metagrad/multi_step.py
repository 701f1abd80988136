"""The multi-step loss of MAML++: the outer loss after every inner step, of which in the end only the last counts."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metaception.core.learner import Iterative, Learner, Meta
from metaception.core.metagradient import Estimate, MetaGradient
from metaception.core.task import Task
from metaception.metagrad._check import refuse
from metaception.metagrad._objective import LossAt
from metaception.metagrad.unroll import Mode, Unroll

FLOOR = 0.03
"""The least that an earlier step counts, in parts of an equal share (the released code; the paper names none)."""


class MultiStep(MetaGradient):
    """Differentiate a weighted mean of the outer losses after each inner step, exactly.

    All weigh the same at first. Over `annealed_over` outer steps the earlier ones' weights fall along a line, in favour of the
    last; from then on the last alone counts, and costs what it does in `Unroll`. Its state is the number of outer steps.

    Args:
        annealed_over: outer steps.
        mode: how the inner steps are differentiated, as in `Unroll`.

    Examples:
        >>> import metaception as mc
        >>> estimator = mc.MultiStep(annealed_over=100)
        >>> [[round(float(w), 3) for w in estimator.weights(step, 4)] for step in (0, 50, 99)]
        [[0.25, 0.25, 0.25, 0.25], [0.125, 0.125, 0.125, 0.625], [0.007, 0.007, 0.007, 0.978]]

    Antoniou, Edwards & Storkey 2019, "How to train your MAML", equation 3.
    """

    annealed_over: int = eqx.field(static=True, default=7_500)
    mode: Mode = eqx.field(static=True, default="reverse")

    def weights(self, taken: Int[Array, ""] | int, steps: int) -> Float[Array, " steps"]:
        """What the loss after each inner step counts once so many outer steps are taken."""
        earlier = jnp.maximum(1 - jnp.asarray(taken, float) / self.annealed_over, FLOOR) / steps
        return jnp.full(steps, earlier).at[-1].set(1 - (steps - 1) * earlier)

    def init(self, key: PRNGKeyArray, learner: Learner, meta: Meta, task: Task) -> Int[Array, ""]:
        del key, learner, meta, task
        return jnp.zeros((), jnp.int32)

    def estimate(
        self, key: PRNGKeyArray, learner: Learner, meta: Meta, state: Int[Array, ""], task: Task
    ) -> tuple[Estimate, Int[Array, ""]]:
        assert isinstance(learner, Iterative)

        def by(loss_at: LossAt, weights: Float[Array, " steps"] | None) -> Estimate:
            def surrogate(meta: Meta) -> tuple[Float[Array, ""], tuple[Float[Array, ""], dict[str, Any]]]:
                return Unroll(self.mode, loss_at).surrogate(key, learner, meta, task, weights)

            gradient, (loss, aux) = jax.grad(surrogate, has_aux=True)(meta)
            return Estimate(gradient, loss, aux)

        estimate = jax.lax.cond(
            state < self.annealed_over,
            lambda: by("every", self.weights(state, learner.steps)),
            lambda: by("last", None),
        )
        return estimate, state + 1

    def check(self, learner: Learner, meta: Meta, task: Task) -> None:
        if not isinstance(learner, Iterative) or learner.steps < 1:
            raise refuse(
                self, learner, "it judges the learner after each inner step, and there is none.", "Use Unroll()."
            )
        Unroll(self.mode, "every").check(learner, meta, task)
