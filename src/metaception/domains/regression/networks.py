"""Networks for regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaception.core.model import Model, sequential

Activation = Literal["relu", "tanh", "softplus"]
Initialiser = Literal["truncated_normal", "he"]
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
}


def mlp(
    inputs: int,
    outputs: int,
    *,
    widths: Sequence[int] = (40, 40),
    activation: Activation = "relu",
    initialiser: Initialiser = "truncated_normal",
) -> Model:
    """A multi-layer perceptron; the defaults are the sinusoid network of Finn et al. 2017.

    Args:
        inputs, outputs: numbers of input and output features.
        widths: units of each hidden layer.
        activation: of the hidden layers.
        initialiser: `truncated_normal`: weights of standard deviation 0.01 before truncation at two, biases zero (the
            authors' code). `he`: weights N(0, 2/fan-in), N(0, 1/fan-in) in the last layer and in one-input first layers,
            biases U(±1/√fan-in).

    Returns:
        A model whose parameters are a list of {"weight" [in, out], "bias" [out]}, one a layer.

    Raises:
        ValueError: for sizes below one or unknown names.

    Examples:
        >>> import metaception as mc
        >>> mc.count_parameters(mc.mlp(1, 1))
        1761
    """
    if isinstance(widths, int):
        raise ValueError(
            f"mlp: widths={widths}; expected a number for each hidden layer, for example ({widths}, {widths})."
        )
    sizes = [inputs, *widths, outputs]
    if min(sizes) < 1:
        raise ValueError(f"mlp: layer sizes {sizes}; every layer needs at least one unit.")
    if activation not in _ACTIVATIONS or initialiser not in get_args(Initialiser):
        raise ValueError(
            f"mlp: activation={activation!r}, initialiser={initialiser!r}; expected one of {sorted(_ACTIVATIONS)} and one of "
            f"{list(get_args(Initialiser))}."
        )
    return _mlp(tuple(sizes), activation, initialiser)


@cache
def _mlp(sizes: tuple[int, ...], activation: Activation, initialiser: Initialiser) -> Model:
    # One model for equal arguments: what JAX has compiled for it serves everyone who asks for it again.
    nonlinear = _ACTIVATIONS[activation]

    def layer(key: PRNGKeyArray, rows: int, columns: int, last: bool) -> dict[str, Float[Array, "..."]]:
        key_weight, key_bias = jax.random.split(key)
        if initialiser == "truncated_normal":
            weight = 0.01 * jax.random.truncated_normal(key_weight, -2.0, 2.0, (rows, columns))
            return {"weight": weight, "bias": jnp.zeros(columns)}
        gain = 1.0 if last or rows == 1 else 2.0
        weight = jnp.sqrt(gain / rows) * jax.random.normal(key_weight, (rows, columns))
        bound = rows**-0.5
        return {"weight": weight, "bias": jax.random.uniform(key_bias, (columns,), minval=-bound, maxval=bound)}

    def init(key: PRNGKeyArray) -> list[dict[str, Any]]:
        keys = jax.random.split(key, len(sizes) - 1)
        return [
            layer(k, rows, columns, last=index == len(keys) - 1)
            for index, (k, rows, columns) in enumerate(zip(keys, sizes[:-1], sizes[1:], strict=True))
        ]

    def linear(weights: dict[str, Any], x: Float[Array, "n in"], reference: int | None) -> Float[Array, "n out"]:
        del reference
        return x @ weights["weight"] + weights["bias"]

    def hidden(weights: dict[str, Any], x: Float[Array, "n in"], reference: int | None) -> Float[Array, "n out"]:
        return nonlinear(linear(weights, x, reference))

    return sequential(init, [hidden] * (len(sizes) - 2) + [linear])
