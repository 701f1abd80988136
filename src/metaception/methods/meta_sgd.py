"""Meta-SGD (Li, Zhou, Chen & Li 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.rates import LearnedRates
from metaception.learners.supervised import Loss
from metaception.metagrad.unroll import Unroll
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class MetaSGD(Method):
    """MAML that also learns an inner step size for every parameter: φ = θ − α ∘ ∇L(θ, support), α learned.

    Attributes:
        inner_rate: what every α starts from.
        inner_steps: gradient steps on the support set; the paper takes one.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> algorithm = mc.MetaSGD(inner_rate=0.25).build(line, mc.Lines())
        >>> key, one = jax.random.key(0), mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> gradient = algorithm.meta_gradient(key, algorithm.learner.init_meta(key), mc.Task(one, one)).gradient
        >>> float(gradient.initialisation), float(gradient.rates)  # the step sizes are learned beside the initialisation
        (-2.0, -32.0)

    Li et al. 2017, algorithm 1. The paper draws the first α uniformly from [0.005, 0.1]; here all start equal.
    """

    inner_rate: float = 0.01
    inner_steps: int = 1

    name: ClassVar[str] = "meta_sgd"
    title: ClassVar[str] = "Meta-SGD"
    citations: ClassVar[tuple[str, ...]] = ("li2017metasgd",)

    def learner(self, model: Model, loss: Loss) -> Learner:
        return LearnedRates(model=model, loss_function=loss, rate=jnp.asarray(self.inner_rate), steps=self.inner_steps)

    def estimator(self) -> MetaGradient:
        return Unroll()
