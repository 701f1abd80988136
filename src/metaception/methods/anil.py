"""Almost no inner loop (Raghu, Raghu, Bengio & Vinyals 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.head import Head
from metaception.learners.supervised import Loss
from metaception.metagrad.unroll import Unroll
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class ANIL(Method):
    """MAML whose inner loop adapts the last layer alone, in training and at meta-test.

    Attributes:
        inner_rate: α, the inner step size.
        inner_steps: gradient steps on the support set.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> layers = [[jnp.array(1.0)], [jnp.array(1.0)]]
        >>> model = mc.Model(lambda key: layers, lambda p, x: jax.tree.reduce(jnp.multiply, p, x))  # two weights in a row
        >>> algorithm = mc.ANIL(inner_rate=0.25).build(model, mc.Lines())
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> jax.tree.map(float, algorithm.adapt(jax.random.key(0), layers, one))  # the last layer alone adapts
        [[1.0], [2.5]]

    Raghu et al. 2020, section 4.
    """

    inner_rate: float = 0.01
    inner_steps: int = 1

    name: ClassVar[str] = "anil"
    title: ClassVar[str] = "Almost No Inner Loop"
    citations: ClassVar[tuple[str, ...]] = ("raghu2020anil",)

    def learner(self, model: Model, loss: Loss) -> Learner:
        return Head(model=model, loss_function=loss, rate=jnp.asarray(self.inner_rate), steps=self.inner_steps)

    def estimator(self) -> MetaGradient:
        return Unroll()
