"""A trained network under a last layer that starts anew for each task."""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import Meta
from metaception.core.task import Examples
from metaception.learners.metric import NEVER
from metaception.learners.supervised import InnerState, Supervised

Adapts = Literal["head", "all"]


class FreshHead(Supervised):
    """The last layer's weights start at zero, whatever the meta-parameters say of it; then it adapts, or all layers do.

    The model's parameters are a list of layers, the last of them {"weight" [features, outputs], "bias" [outputs]}. Outputs of
    classes without a support example are never predicted and never learned, so that there may be more of them than classes.

    Args:
        adapts: the `head` alone, or `all` layers.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> learner = mc.FreshHead(mc.pixels((1, 1, 1), 3), mc.cross_entropy, jnp.array(2.0), steps=1)
        >>> key, support = jax.random.key(0), mc.Examples(jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1), jnp.array([0, 1]))
        >>> adapted = learner.adapt(key, learner.init_meta(key), support)
        >>> adapted[1]["weight"].tolist()  # ±½ (3 − 1) of two classes; the third has no example
        [[-1.0, 1.0, 0.0]]
    """

    adapts: Adapts = eqx.field(static=True, default="head")

    def init_meta(self, key: PRNGKeyArray) -> Meta:
        return self.model.init(key)

    def init(self, key: PRNGKeyArray, meta: Meta, data: Examples) -> InnerState:
        *body, head = meta
        seen = jnp.any(jax.nn.one_hot(data.targets, head["bias"].size, dtype=bool), axis=0)
        # So low a bias gets no probability, and hence no gradient either.
        fresh = {
            "bias": jnp.where(seen, 0.0, NEVER).astype(head["bias"].dtype),
            # Zeros that the compiler knows of become a broadcast number, and jaxlib 0.10.2 computes the softmax of a product
            # with one wrongly on a CPU, where it fuses both. Behind a barrier it does not know them.
            "weight": jax.lax.optimization_barrier(jnp.zeros_like(head["weight"])),
        }
        return self.start(key, [*body, fresh] if self.adapts == "all" else [fresh], data)

    def inner_loss(
        self, key: PRNGKeyArray, meta: Meta, parameters: PyTree, state: InnerState, data: Examples
    ) -> Float[Array, ""]:
        del key
        return self.fit_loss(self.whole(meta, parameters), self.batch(state, data))

    def whole(self, meta: Meta, parameters: PyTree) -> PyTree:
        return [*meta[: -len(parameters)], *parameters]
