"""The second-order term of the meta-gradient: how large it is, where it points, and what it is made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from metaception.core.task import Examples

Apply = Callable[[PyTree, Any], Any]
Activation = Callable[[Array], Array]


class Difference(NamedTuple):
    """An approximate gradient beside the exact one; both scalars.

    Attributes:
        relative_size: ‖exact − approximate‖ / ‖exact‖.
        cosine: between the two.
    """

    relative_size: Float[Array, ""]
    cosine: Float[Array, ""]


def difference(exact: PyTree, approximate: PyTree) -> Difference:
    """How far an approximate gradient is from the exact one; between MAML and FOMAML that is the second-order term.

    Args:
        exact, approximate: gradients, pytrees of the same structure.

    Examples:
        >>> import jax.numpy as jnp
        >>> from metaception.analysis.second_order import difference
        >>> float(difference(jnp.array([4.0, 3.0]), jnp.array([4.0, 0.0])).relative_size)
        0.6...
    """
    size = optax.tree.norm(exact)
    cosine = optax.tree.vdot(exact, approximate) / (size * optax.tree.norm(approximate))
    return Difference(optax.tree.norm(optax.tree.sub(exact, approximate)) / size, cosine)


class HessianParts(NamedTuple):
    """The product H v of the Hessian of loss(f(θ)) with a vector, as the sum of three parts of v's structure.

    Attributes:
        gauss_newton: Jᵀ (∂²loss/∂f²) J v: the curvature of the loss in the outputs. It is there for a linear model too.
        layers: that of f with every activation replaced by its tangent: weights of different layers multiply.
        activations: what the second derivatives φ″ of the activations add; zero almost everywhere for ReLU.
    """

    gauss_newton: PyTree
    layers: PyTree
    activations: PyTree


def straightened(activation: Activation) -> Activation:
    """The activation with the same value and slope everywhere, and without its second derivative.

    φ̃(z) = stop(φ(z) − φ′(z) z) + stop(φ′(z)) z. A network of such activations has all the second derivatives of the
    original one but those that come from φ″.

    Args:
        activation: an elementwise function.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from metaception.analysis.second_order import straightened
        >>> phi = straightened(jnp.square)
        >>> [float(f(jnp.array(3.0))) for f in (phi, jax.grad(phi), jax.grad(jax.grad(phi)))]
        [9.0, 6.0, 0.0]
    """

    def tangent(z: Array) -> Array:
        value, slope = jax.lax.stop_gradient(jax.jvp(activation, (z,), (jnp.ones_like(z),)))
        return value + slope * (z - jax.lax.stop_gradient(z))

    return tangent


def split_hessian_product(
    apply: Apply,
    straight: Apply,
    loss: Callable[[Any, Any], Float[Array, ""]],
    parameters: PyTree,
    examples: Examples,
    *,
    vector: PyTree,
) -> HessianParts:
    """The product of the Hessian of the loss on `examples` with `vector`, split by where the curvature comes from.

    H = Jᵀ ∇²loss J + Σ (∂loss/∂f) ∇²f, and ∇²f = the part of the layers' products + the part of the activations.

    Args:
        apply: the network, `(parameters, inputs) -> outputs`.
        straight: the same network with `straightened` activations.
        loss: `(outputs, targets) -> scalar`.
        parameters: where the Hessian is taken.
        examples: what the loss is taken on.
        vector: of the structure of `parameters`.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> from metaception.analysis.second_order import split_hessian_product, straightened
        >>> def network(phi):
        ...     return lambda w, x: w[1] * phi(w[0] * x)
        >>> examples = mc.Examples(jnp.array([1.0]), jnp.array([0.0]))
        >>> parts = split_hessian_product(
        ...     network(jnp.square), network(straightened(jnp.square)), mc.mean_squared_error,
        ...     jnp.array([1.0, 1.0]), examples, vector=jnp.array([1.0, 0.0]))
        >>> [part.tolist() for part in parts]  # of (w₁ w₀²)², whose second derivatives at (1, 1) are 12 and 8
        [[8.0, 4.0], [0.0, 4.0], [4.0, 0.0]]
    """

    def product(network: Apply) -> PyTree:
        def gradient(parameters: PyTree) -> PyTree:
            return jax.grad(lambda p: loss(network(p, examples.inputs), examples.targets))(parameters)

        return jax.jvp(gradient, (parameters,), (vector,))[1]

    def network(parameters: PyTree) -> Any:
        return apply(parameters, examples.inputs)

    outputs, moved = jax.jvp(network, (parameters,), (vector,))
    curved = jax.jvp(jax.grad(lambda f: loss(f, examples.targets)), (outputs,), (moved,))[1]
    gauss_newton = jax.vjp(network, parameters)[1](curved)[0]
    whole, without = product(apply), product(straight)
    return HessianParts(gauss_newton, optax.tree.sub(without, gauss_newton), optax.tree.sub(whole, without))
