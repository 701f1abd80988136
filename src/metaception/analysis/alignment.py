"""Gradient alignment: do the gradients of two minibatches of the same task point the same way?"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from metaception.core.task import Examples

Loss = Callable[[PyTree, Examples], Float[Array, ""]]


class Alignment(NamedTuple):
    """How the gradients g₁ and g₂ of two minibatches lie to each other; all scalars.

    Attributes:
        inner: g₁ · g₂.
        squared_norm: (‖g₁‖² + ‖g₂‖²) / 2, the scale that `inner` is to be read against.
        cosine: g₁ · g₂ / (‖g₁‖ ‖g₂‖).
    """

    inner: Float[Array, ""]
    squared_norm: Float[Array, ""]
    cosine: Float[Array, ""]


def gradient_alignment(loss: Loss, parameters: PyTree, first: Examples, second: Examples) -> Alignment:
    """The alignment of the loss's gradients on two minibatches.

    Args:
        loss: `(parameters, examples) -> scalar`; a supervised learner's `fit_loss`.
        parameters: where the gradients are taken.
        first, second: the minibatches; of the same task for the alignment within tasks.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> from metaception.analysis.alignment import gradient_alignment
        >>> def loss(parameters, examples):
        ...     return jnp.mean(parameters @ examples.inputs.T)
        >>> first, second = (mc.Examples(jnp.array([x]), None) for x in ([1.0, 0.0], [1.0, 1.0]))
        >>> alignment = gradient_alignment(loss, jnp.zeros(2), first, second)
        >>> round(float(alignment.cosine), 4)
        0.7071

    Nichol et al. 2018, "On First-Order Meta-Learning Algorithms", section 5.1: the second term of the meta-gradients
    of MAML and Reptile raises E[g₁ · g₂] over minibatches of the same task.
    """
    a, b = (jax.grad(loss)(parameters, examples) for examples in (first, second))
    dot = optax.tree.vdot
    inner, squares = dot(a, b), (dot(a, a), dot(b, b))
    return Alignment(inner, (squares[0] + squares[1]) / 2, inner / jnp.sqrt(squares[0] * squares[1]))
