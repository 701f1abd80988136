"""Implicit MAML (Rajeswaran, Finn, Kakade & Levine 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.proximal import ProximalInitialisation
from metaception.learners.supervised import Loss
from metaception.metagrad.implicit import Implicit
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class IMAML(Method):
    """Learn an initialisation θ by differentiating the *solution* of argmin L(φ) + ½λ‖φ − θ‖², not the way to it.

    Attributes:
        inner_rate: step size of the inner gradient descent.
        inner_steps: its steps.
        strength: λ, the pull back to the initialisation.
        cg_steps: conjugate-gradient iterations.
        damping: what is added to the diagonal of the matrix that they invert, where it is not positive definite.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> for strength in (2.0, 6.0):  # where 2(φ − 4) + λ(φ − 0) = 0
        ...     adapted = mc.IMAML(strength=strength).build(line, mc.Lines()).adapt(jax.random.key(0), jnp.array(0.0), one)
        ...     print(round(float(adapted), 2))
        2.0
        1.0

    Rajeswaran et al. 2019, algorithms 1 and 2; 16 steps, λ = 2 and 5 iterations are the authors' example settings.
    """

    inner_rate: float = 0.1
    inner_steps: int = 16
    strength: float = 2.0
    cg_steps: int = 5
    damping: float = 0.0

    name: ClassVar[str] = "imaml"
    title: ClassVar[str] = "Implicit MAML"
    citations: ClassVar[tuple[str, ...]] = ("rajeswaran2019imaml",)

    def learner(self, model: Model, loss: Loss) -> Learner:
        if not self.strength > 0:
            raise ValueError(f"imaml: strength={self.strength}; the proximal term needs a positive weight.")
        return ProximalInitialisation(
            model=model,
            loss_function=loss,
            rate=jnp.asarray(self.inner_rate),
            strength=jnp.asarray(self.strength),
            steps=self.inner_steps,
        )

    def estimator(self) -> MetaGradient:
        return Implicit(cg_steps=self.cg_steps, damping=self.damping)
