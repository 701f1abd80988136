"""Reptile (Nichol, Achiam & Schulman 2018)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax.numpy as jnp
import optax

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.initialisation import Initialisation
from metaception.learners.supervised import Loss
from metaception.metagrad.reptile import Reptile as Displacement
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class Reptile(Method):
    """Move the initialisation towards where a few steps of ordinary training end: θ ← θ + ε mean(φᵢ − θ).

    Attributes:
        outer_rate: ε at the start; it falls to zero along a line.
        inner_rate: step size of the inner optimiser.
        inner_steps: inner steps a task, each on a fresh minibatch.
        inner_batch_size: examples a minibatch; 0, or as many as there are, for the whole support set.
        test_batch_size: examples a minibatch when new tasks are learned; 0 for as many as in training.
        inner_optimizer: sgd, or adam with β₁ = 0 as in the authors' code for images.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> algorithm = mc.Reptile(inner_rate=0.25, inner_steps=2, inner_batch_size=0).build(line, mc.Lines())
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> estimate = algorithm.meta_gradient(jax.random.key(0), jnp.array(0.0), mc.Task(one, one))
        >>> float(estimate.gradient)  # θ − φ: two inner steps lead from 0 to 2 and on to 3
        -3.0

    Nichol et al. 2018, algorithm 2. The paper prints no settings for its sinusoid; these were chosen on validation tasks.
    """

    meta_batch_size: int = 5
    outer_rate: float = 1.0
    outer_schedule: Literal["constant", "linear", "cosine"] = "linear"
    inner_rate: float = 0.01
    inner_steps: int = 10
    inner_batch_size: int = 10
    test_batch_size: int = 0
    inner_optimizer: Literal["sgd", "adam"] = "sgd"

    name: ClassVar[str] = "reptile"
    title: ClassVar[str] = "Reptile"
    citations: ClassVar[tuple[str, ...]] = ("nichol2018reptile",)

    def learner(self, model: Model, loss: Loss) -> Learner:
        if self.inner_batch_size < 0:
            raise ValueError(
                f"reptile: inner_batch_size={self.inner_batch_size}; expected 1 or more, or 0 for all examples."
            )
        if self.test_batch_size < 0:
            raise ValueError(
                f"reptile: test_batch_size={self.test_batch_size}; expected 1 or more, or 0 as in training."
            )
        optimizer = optax.sgd(1.0) if self.inner_optimizer == "sgd" else optax.adam(1.0, b1=0.0)
        return Initialisation(
            model=model,
            loss_function=loss,
            rate=jnp.asarray(self.inner_rate),
            steps=self.inner_steps,
            optimizer=optimizer,
            batch_size=self.inner_batch_size or None,
        )

    def test_learner(self, learner: Learner) -> Learner:
        assert isinstance(learner, Initialisation)
        return dataclasses.replace(learner, batch_size=self.test_batch_size) if self.test_batch_size else learner

    def estimator(self) -> MetaGradient:
        return Displacement()

    def outer(self, steps: int) -> optax.GradientTransformation:
        return optax.sgd(self.schedule(steps))
