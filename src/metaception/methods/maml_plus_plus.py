"""MAML++ (Antoniou, Edwards & Storkey 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax.numpy as jnp

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.rates import LearnedStepRates
from metaception.learners.supervised import Loss
from metaception.metagrad.multi_step import MultiStep
from metaception.metagrad.unroll import Unroll
from metaception.methods.maml import MAML


@dataclass(frozen=True, kw_only=True)
class MAMLPlusPlus(MAML):
    """MAML with what steadies its training: a loss after every inner step, and step sizes learned per layer and step.

    θ, α ← Adam on ∇ Σᵢ Σₜ vₜ Lᵢ(φₜ, queryᵢ),  φₜ₊₁ = φₜ − αₜ ∇Lᵢ(φₜ, supportᵢ) with an αₜ for each array of parameters.

    Attributes:
        inner_rate: what every α starts from.
        multi_step: outer steps over which the earlier inner steps' losses come to count nothing (vₜ); 0 for the last alone
            from the start.
        rates: whether the step sizes are `learned` per layer and inner step, or `fixed`.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> algorithm = mc.MAMLPlusPlus(inner_rate=0.25, inner_steps=2).build(line, mc.Lines())
        >>> key, one = jax.random.key(0), mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> estimate = algorithm.meta_gradient(key, algorithm.learner.init_meta(key), mc.Task(one, one))
        >>> float(estimate.loss)  # from 0 to 2 to 3: the mean of (2 − 4)² and (3 − 4)²
        2.5
        >>> estimate.gradient.rates.tolist()  # the second step's counts in one loss, the first's in both
        [-20.0, -4.0]

    Antoniou et al. 2019, sections 4 and 5. Statistics of each inner step: `per_step_statistics`. Not here: scales and
    shifts for each inner step, and first-order steps at the start of training (`FOMAML` is first-order throughout).
    """

    inner_rate: float = 0.01
    inner_steps: int = 5
    outer_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    multi_step: int = 7_500
    rates: Literal["learned", "fixed"] = "learned"

    name: ClassVar[str] = "maml_plus_plus"
    title: ClassVar[str] = "MAML++"
    citations: ClassVar[tuple[str, ...]] = ("antoniou2019train",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.multi_step < 0:
            raise ValueError(f"{self.name}: multi_step={self.multi_step}; expected a number of outer steps, 0 or more.")

    def learner(self, model: Model, loss: Loss) -> Learner:
        if self.rates == "fixed":
            return super().learner(model, loss)
        return LearnedStepRates(
            model=model, loss_function=loss, rate=jnp.asarray(self.inner_rate), steps=self.inner_steps
        )

    def estimator(self) -> MetaGradient:
        if not self.multi_step:
            return Unroll(mode=self.memory)
        return MultiStep(self.multi_step, self.memory)
