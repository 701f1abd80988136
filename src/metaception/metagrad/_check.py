"""What the estimators' checks share: tracing which meta-parameters a function cannot see, and naming both parties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import PyTree

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient, Unsuitable


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
        if not _depends(jaxpr, jaxpr.invars[-1]):
            unseen.append(name)
    return unseen


def _depends(jaxpr: Any, source: Any) -> bool:
    """Whether any output of `jaxpr` depends on the input `source`; an inner program's outputs on all of its inputs."""
    reached = {source}
    for equation in jaxpr.eqns:
        if any(not isinstance(v, Literal) and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    return any(not isinstance(v, Literal) and v in reached for v in jaxpr.outvars)
