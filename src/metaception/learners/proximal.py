"""A learned initialisation that pulls the adapted parameters back to itself."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import Adapted, Initialising, Meta, Stationary
from metaception.core.task import Examples
from metaception.learners.supervised import InnerState, Supervised


class ProximalInitialisation(Supervised, Initialising, Stationary):
    """The inner loss gains ½λ‖φ − θ‖², so that its solution depends on the initialisation θ and not on the way there.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> learner = mc.ProximalInitialisation(line, mc.mean_squared_error, jnp.array(0.125), strength=jnp.array(6.0), steps=1)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> adapted = learner.adapt(jax.random.key(0), jnp.array(0.0), one)
        >>> float(adapted), float(learner.optimality(jnp.array(0.0), adapted, one))  # 2 (φ − 4) + 6 (φ − 0) = 0 at φ = 1
        (1.0, 0.0)

    Rajeswaran et al. 2019, equation 3. `strength` is λ.
    """

    strength: Float[Array, ""] = eqx.field(kw_only=True)

    def init_meta(self, key: PRNGKeyArray) -> Meta:
        return self.model.init(key)

    def init(self, key: PRNGKeyArray, meta: Meta, data: Examples) -> InnerState:
        return self.start(key, meta, data)

    def inner_loss(
        self, key: PRNGKeyArray, meta: Meta, parameters: PyTree, state: InnerState, data: Examples
    ) -> Float[Array, ""]:
        del key
        return self._regularised(meta, parameters, self.batch(state, data))

    def optimality(self, meta: Meta, adapted: Adapted, data: Examples) -> Adapted:
        return jax.grad(lambda parameters: self._regularised(meta, parameters, data))(adapted)

    def _regularised(self, meta: Meta, parameters: PyTree, data: Examples) -> Float[Array, ""]:
        distances = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), parameters, meta)
        return self.fit_loss(parameters, data) + 0.5 * self.strength * jax.tree.reduce(jnp.add, distances)
