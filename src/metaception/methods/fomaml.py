"""First-order MAML (Finn et al. 2017, section 5.2; Nichol et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.initialisation import Initialisation
from metaception.learners.supervised import Loss
from metaception.metagrad.first_order import FirstOrder
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class FOMAML(Method):
    """MAML without second derivatives: the meta-gradient is the query gradient at the adapted parameters.

    Attributes:
        inner_rate: α, the inner step size.
        inner_steps: gradient steps on the support set.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> for method in (mc.MAML(inner_rate=0.25), mc.FOMAML(inner_rate=0.25)):  # with and without the factor 1 − 2α
        ...     algorithm = method.build(line, mc.Lines())
        ...     estimate = algorithm.meta_gradient(jax.random.key(0), jnp.array(0.0), mc.Task(one, one))
        ...     print(method.name, estimate.gradient)
        maml -2.0
        fomaml -4.0
    """

    inner_rate: float = 0.01
    inner_steps: int = 1

    name: ClassVar[str] = "fomaml"
    title: ClassVar[str] = "First-order MAML"
    citations: ClassVar[tuple[str, ...]] = ("finn2017maml", "nichol2018reptile")

    def learner(self, model: Model, loss: Loss) -> Learner:
        return Initialisation(
            model=model, loss_function=loss, rate=jnp.asarray(self.inner_rate), steps=self.inner_steps
        )

    def estimator(self) -> MetaGradient:
        return FirstOrder()
