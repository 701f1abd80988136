"""A learned initialisation together with a learned step size for every parameter."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import Meta
from metaception.core.task import Examples
from metaception.learners.supervised import InnerState, Supervised


class InitialisationAndRates(NamedTuple):
    """Meta-parameters of `LearnedRates`: both of the model's parameters' structure."""

    initialisation: PyTree
    rates: PyTree


class LearnedRates(Supervised):
    """Every parameter has its own learned inner step size, which may become negative: φ = θ − α ∘ ∇L(θ, support).

    `rate` is what all of them start from.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> learner = mc.LearnedRates(line, mc.mean_squared_error, jnp.array(0.25), steps=1)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> meta = learner.init_meta(jax.random.key(0))
        >>> for rate in (meta.rates, 0.5, 0.0, -0.25):  # 0.25 to start with
        ...     print(learner.adapt(jax.random.key(0), meta._replace(rates=jnp.array(rate)), one))
        2.0
        4.0
        0.0
        -2.0

    Li et al. 2017, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", equation 1.
    """

    def init_meta(self, key: PRNGKeyArray) -> Meta:
        parameters = self.model.init(key)
        return InitialisationAndRates(
            parameters, jax.tree.map(lambda p: jnp.full(p.shape, self.rate, p.dtype), parameters)
        )

    def init(self, key: PRNGKeyArray, meta: InitialisationAndRates, data: Examples) -> InnerState:
        return self.start(key, meta.initialisation, data)

    def inner_loss(
        self, key: PRNGKeyArray, meta: Meta, parameters: PyTree, state: InnerState, data: Examples
    ) -> Float[Array, ""]:
        del key, meta
        return self.fit_loss(parameters, self.batch(state, data))

    def rates(self, meta: InitialisationAndRates, state: InnerState, updates: PyTree) -> PyTree:
        del state, updates
        return meta.rates


class LearnedStepRates(LearnedRates):
    """Every array of parameters has its own learned step size in each inner step: φₜ₊₁ = φₜ − αₜ ∇L(φₜ, support).

    The meta-parameters hold `steps` of them for each array; inner steps beyond these, as a test may take, use the last.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> learner = mc.LearnedStepRates(line, mc.mean_squared_error, jnp.array(0.25), steps=2)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> meta = learner.init_meta(jax.random.key(0))
        >>> meta.rates.tolist()
        [0.25, 0.25]
        >>> float(learner.adapt(jax.random.key(0), meta._replace(rates=jnp.array([0.25, 0.5])), one))  # 0, 2, 4
        4.0

    Antoniou, Edwards & Storkey 2019, "How to train your MAML", section 4, "Learning per-layer per-step learning rates"; as in
    their released code, a kernel and a bias count as two layers.
    """

    def init_meta(self, key: PRNGKeyArray) -> Meta:
        parameters = self.model.init(key)
        # With no step at all there is still one, for tests that take some.
        rates = jax.tree.map(lambda p: jnp.full(max(1, self.steps), self.rate, p.dtype), parameters)
        return InitialisationAndRates(parameters, rates)

    def rates(self, meta: InitialisationAndRates, state: InnerState, updates: PyTree) -> PyTree:
        del updates
        return jax.tree.map(lambda rates: rates[jnp.minimum(state.taken, rates.size - 1)], meta.rates)
