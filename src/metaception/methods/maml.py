"""Model-agnostic meta-learning (Finn, Abbeel & Levine 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax.numpy as jnp

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.initialisation import Initialisation
from metaception.learners.supervised import Loss
from metaception.metagrad.unroll import Unroll
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class MAML(Method):
    """Learn an initialisation from which a few gradient steps do well, differentiating through those steps.

    θ ← θ − β ∇θ Σᵢ Lᵢ(θ − α ∇Lᵢ(θ, supportᵢ), queryᵢ), with Adam outside.

    Attributes:
        inner_rate: α, the inner step size.
        inner_steps: gradient steps on the support set.
        memory: how the inner loop is differentiated: reverse, rematerialise or mixed (less memory, same gradient).

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> algorithm = mc.MAML(inner_rate=0.25).build(line, mc.Lines())
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> estimate = algorithm.meta_gradient(jax.random.key(0), jnp.array(0.0), mc.Task(one, one))
        >>> float(estimate.gradient)  # the inner step, from 0 to 2, has the derivative 1 − 2α; the loss there 2 (2 − 4)
        -2.0

    Finn et al. 2017, algorithm 2; the defaults are section 5.1's.
    """

    inner_rate: float = 0.01
    inner_steps: int = 1
    memory: Literal["reverse", "rematerialise", "mixed"] = "reverse"

    name: ClassVar[str] = "maml"
    title: ClassVar[str] = "Model-Agnostic Meta-Learning"
    citations: ClassVar[tuple[str, ...]] = ("finn2017maml",)

    def learner(self, model: Model, loss: Loss) -> Learner:
        return Initialisation(
            model=model, loss_function=loss, rate=jnp.asarray(self.inner_rate), steps=self.inner_steps
        )

    def estimator(self) -> MetaGradient:
        return Unroll(mode=self.memory)
