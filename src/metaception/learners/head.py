"""A learned initialisation of which one part alone adapts."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import Meta
from metaception.core.task import Examples
from metaception.learners.supervised import InnerState, Supervised


def last_layer(parameters: PyTree) -> PyTree:
    """A mask of `parameters`' structure that is true for the last layer: the last leaf and those of the same parent.

    The order is that of the pytree, which for dictionaries is alphabetical.

    Raises:
        ValueError: where several leaves stand side by side without layers, so that all would count as the last.
    """
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(parameters)[0]]
    parent = paths[-1][:-1]
    if not parent and len(paths) > 1:
        raise ValueError(
            f"last_layer: the {len(paths)} parameters are not grouped into layers, so there is no last one; group them, for "
            "example as [[weight, bias], [weight, bias]], or name the part that adapts: metaception.Head(…, part=…)."
        )
    return jax.tree.unflatten(jax.tree.structure(parameters), [path[:-1] == parent for path in paths])


def all_but_the_last_layer(parameters: PyTree) -> PyTree:
    """The opposite of `last_layer`: true for the body."""
    return jax.tree.map(lambda adapts: not adapts, last_layer(parameters))


class Head(Supervised):
    """The whole initialisation is meta-learned, the `part` of it that a mask names adapts, the rest is shared by all tasks.

    Args:
        part: parameters -> a mask of their structure, true where they adapt.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: [jnp.array(1.0), jnp.array(0.0)], lambda p, x: p[0] * x + p[1])
        >>> rate, part = jnp.array(0.25), lambda parameters: [False, True]  # the intercept alone adapts
        >>> learner = mc.Head(line, mc.mean_squared_error, rate, steps=1, part=part)
        >>> key, one = jax.random.key(0), mc.Examples(jnp.array([[1.0]]), jnp.array([[5.0]]))
        >>> jax.tree.map(float, learner.adapt(key, learner.init_meta(key), one))
        [1.0, 2.0]

    Raghu et al. 2020, "Rapid Learning or Feature Reuse?", section 4.
    """

    part: Callable[[PyTree], PyTree] = eqx.field(static=True, default=last_layer)

    def init_meta(self, key: PRNGKeyArray) -> Meta:
        return self.model.init(key)

    def init(self, key: PRNGKeyArray, meta: Meta, data: Examples) -> InnerState:
        return self.start(key, eqx.filter(meta, self.part(meta)), data)

    def inner_loss(
        self, key: PRNGKeyArray, meta: Meta, parameters: PyTree, state: InnerState, data: Examples
    ) -> Float[Array, ""]:
        del key
        return self.fit_loss(self.whole(meta, parameters), self.batch(state, data))

    def whole(self, meta: Meta, parameters: PyTree) -> PyTree:
        return eqx.combine(parameters, eqx.filter(meta, self.part(meta), inverse=True))
