"""What the estimators' checks share: tracing which meta-parameters a function cannot see, and naming both parties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, PyTree

from metaception.core.learner import GradientBased, Learner, Meta
from metaception.core.metagradient import MetaGradient, Unsuitable
from metaception.core.task import Task
from metaception.core.tracing import depends, primitives
from metaception.metagrad._objective import draw as collected


def refuse(estimator: MetaGradient, learner: Learner, reason: str, remedy: str) -> Unsuitable:
    """The error of a refusal: both parties, the reason, the remedy."""
    return Unsuitable(
        f"{type(estimator).__name__} cannot estimate the meta-gradient of {type(learner).__name__}: {reason} {remedy}"
    )


def unseen_leaves(function: Callable[..., Any], meta: PyTree, *arguments: Any) -> list[str]:
    """The names of `meta`'s leaves on which the derivative of `function` does not depend, whatever their values.

    A leaf behind a `stop_gradient`, or never read, has a derivative that is zero by structure. It is found by tracing
    the forward-mode derivative, one leaf at a time, and asking whether the result depends on the tangent at all; nothing
    is computed.

    Args:
        function: a differentiable function of `meta`, and of whatever else, to a pytree of arrays.
        meta: arrays or `jax.ShapeDtypeStruct`s.
        arguments: what else the function takes; likewise.
    """
    leaves, structure = jax.tree.flatten(meta)
    names = [jax.tree_util.keystr(path) or "meta" for path, _ in jax.tree_util.tree_flatten_with_path(meta)[0]]

    def derivative(index: int) -> Callable[[list[Any], tuple[Any, ...], Any], Any]:
        def along(values: list[Any], arguments: tuple[Any, ...], tangent: Any) -> Any:
            def of_leaf(leaf: Any) -> Any:
                return function(
                    jax.tree.unflatten(structure, [*values[:index], leaf, *values[index + 1 :]]), *arguments
                )

            return jax.jvp(of_leaf, (values[index],), (tangent,))[1]

        return along

    unseen = []
    for index, (name, leaf) in enumerate(zip(names, leaves, strict=True)):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        jaxpr = jax.make_jaxpr(derivative(index))(leaves, arguments, leaf).jaxpr
        if not depends(jaxpr, jaxpr.invars[-1]):
            unseen.append(name)
    return unseen


def fill(draw: np.random.Generator, tree: PyTree) -> PyTree:
    """Random arrays of `tree`'s shapes: normal where it has floats, zeros elsewhere.

    Drawn on the host: compiling a JAX draw for every leaf takes seconds.
    """

    def one(leaf: Any) -> Any:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(draw.standard_normal(leaf.shape) if floating else np.zeros(leaf.shape), leaf.dtype)

    return jax.tree.map(one, tree)


_NEVER_STEEP = {"add", "sub", "mul", "neg", "select_n", "convert_element_type", "broadcast_in_dim", "jit", "pjit"}
"""Operations whose derivatives are finite everywhere: what updates of SGD, momentum and learned rates are made of."""


def refuse_kinks_at_zero(estimator: MetaGradient, learner: Learner, meta: Meta, task: Task) -> None:
    """Refuse an inner update whose derivative is finite, but not where an entry of the inner gradient is zero.

    So is Adam's with eps_root=0: the square root of a squared gradient. A single dead unit then makes the meta-gradient not
    a number. The derivative is taken at random values, once with every second entry of the gradient set to zero; but nothing
    is computed where the traced update is made of sums and products alone, as with SGD and momentum.

    Raises:
        Unsuitable: naming both parties, the reason and the remedy.
    """
    if not isinstance(learner, GradientBased):
        return

    key = jax.random.key(0)

    def signal(meta: Meta, task: Task) -> PyTree:
        support = collected(learner, key, meta, task).support
        return learner.inner_gradient(key, meta, learner.init(key, meta, support), support)

    def updated(meta: Meta, task: Task, gradient: PyTree) -> PyTree:
        state = learner.init(key, meta, collected(learner, key, meta, task).support)
        return learner.inner_update(meta, state, gradient)

    def probe(meta: Meta, task: Task, gradient: PyTree) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        flat, rebuild = ravel_pytree(gradient)

        def update(flat: Array) -> list[Array]:
            leaves = jax.tree.leaves(updated(meta, task, rebuild(flat)))
            return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]

        def finite(flat: Array) -> Bool[Array, ""]:
            slopes = jax.jvp(update, (flat,), (jnp.ones_like(flat),))[1]
            return jnp.all(jnp.array([jnp.all(jnp.isfinite(slope)) for slope in slopes]))

        return finite(flat), finite(flat.at[::2].set(0))

    shapes = (meta, task, jax.eval_shape(signal, meta, task))
    if _NEVER_STEEP.issuperset(primitives(jax.make_jaxpr(updated)(*shapes).jaxpr)):
        return
    draw = np.random.default_rng(0)
    elsewhere, at_zero = jax.jit(probe)(*(fill(draw, tree) for tree in shapes))
    if elsewhere and not at_zero:
        raise refuse(
            estimator,
            learner,
            "the derivative of its inner update is not finite where an entry of the inner gradient is zero, so that one dead "
            "unit would make the whole meta-gradient not a number.",
            "Give the inner optimiser a positive eps_root (optax.adam(1.0, eps_root=1e-8)), or use FirstOrder.",
        )
