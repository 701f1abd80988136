"""A learned initialisation: where the inner learner starts."""

from __future__ import annotations

from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import Initialising, Meta
from metaception.core.task import Examples
from metaception.learners.supervised import InnerState, Supervised


class Initialisation(Supervised, Initialising):
    """The meta-parameters are the model's first parameters; all of them adapt.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> learner = mc.Initialisation(line, mc.mean_squared_error, jnp.array(0.25), steps=1)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> float(learner.adapt(jax.random.key(0), jnp.array(0.0), one))  # 0 − 0.25 · 2 (0 − 4)
        2.0

    Finn et al. 2017, equation 1: φ = θ − α∇L(θ, support), `steps` times.
    """

    def init_meta(self, key: PRNGKeyArray) -> Meta:
        return self.model.init(key)

    def init(self, key: PRNGKeyArray, meta: Meta, data: Examples) -> InnerState:
        return self.start(key, meta, data)

    def inner_loss(
        self, key: PRNGKeyArray, meta: Meta, parameters: PyTree, state: InnerState, data: Examples
    ) -> Float[Array, ""]:
        del key, meta
        return self.fit_loss(parameters, self.batch(state, data))
