"""Body only update in the inner loop (Oh, Yoo, Kim & Yun 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.head import Head, all_but_the_last_layer
from metaception.learners.supervised import Loss
from metaception.metagrad.unroll import Unroll
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class BOIL(Method):
    """MAML whose inner loop adapts everything but the last layer, in training and at meta-test: the opposite of ANIL.

    bᵢ = b − α ∇_b Lᵢ(b, h; supportᵢ), with the outer loss Lᵢ(bᵢ, h; queryᵢ) for the body b and the head h.

    Attributes:
        inner_rate: α, the inner step size.
        inner_steps: gradient steps on the support set.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> layers = [[jnp.array(1.0)], [jnp.array(1.0)]]
        >>> model = mc.Model(lambda key: layers, lambda p, x: jax.tree.reduce(jnp.multiply, p, x))  # two weights in a row
        >>> algorithm = mc.BOIL(inner_rate=0.25).build(model, mc.Lines())
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> jax.tree.map(float, algorithm.adapt(jax.random.key(0), layers, one))  # the last layer alone stays
        [[2.5], [1.0]]

    Oh et al. 2021, section 3, equation 1; the defaults are their released code's for four convolutional layers.
    """

    meta_batch_size: int = 4
    inner_rate: float = 0.5
    inner_steps: int = 1

    name: ClassVar[str] = "boil"
    title: ClassVar[str] = "Body Only update in Inner Loop"
    citations: ClassVar[tuple[str, ...]] = ("oh2021boil",)

    def learner(self, model: Model, loss: Loss) -> Learner:
        return Head(
            model=model,
            loss_function=loss,
            rate=jnp.asarray(self.inner_rate),
            steps=self.inner_steps,
            part=all_but_the_last_layer,
        )

    def estimator(self) -> MetaGradient:
        return Unroll()
