"""The networks of the few-shot papers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaception.core.model import Model
from metaception.domains.classification.convolution import convolve

Normalisation = Literal["batch", "group", "layer", "none"]
Downsampling = Literal["stride", "max_pool"]
Readout = Literal["mean", "flatten"]
Parameters = list[dict[str, Any]]
EPSILON = 1e-3
"""What is added to a variance before its root, as in the released code of MAML."""


def conv_net(
    image: Sequence[int],
    ways: int,
    *,
    filters: int = 64,
    blocks: int = 4,
    downsampling: Downsampling = "stride",
    normalisation: Normalisation = "batch",
    readout: Readout = "mean",
) -> Model:
    """Blocks of a 3×3 convolution, normalisation and ReLU, each halving the image; then one linear layer.

    The defaults are the Omniglot network of Finn et al. 2017 (section 5.2; mean over the places before the last layer, whose
    weights start from N(0, 1), as in their released code). Their mini-ImageNet network is
    `conv_net((84, 84, 3), 5, filters=32, downsampling="max_pool", readout="flatten")`.

    Args:
        image: (height, width, channels).
        ways: outputs.
        filters: of each convolution.
        blocks: how many.
        downsampling: by a `stride` of 2 in the convolution, or by 2×2 `max_pool`ing after it.
        normalisation: `batch`: by the statistics of whatever batch the network is applied to, which makes it transductive
            where that is a query set. `group` (8 groups of channels), `layer` (one group): of each image alone. `none`.
        readout: what the linear layer sees of the last block: the `mean` over its places, or all of it (`flatten`).

    Returns:
        A model whose parameters are a list of layers: {"kernel" [3, 3, in, filters], "scale", "shift" [filters]} a block
        ("bias" without normalisation), then {"weight" [features, ways], "bias" [ways]}.

    Raises:
        ValueError: for sizes below one, unknown names, or images that the blocks would shrink to nothing.

    Examples:
        >>> import metaception as mc
        >>> mc.count_parameters(mc.conv_net((28, 28, 1), 5))
        112261
    """
    for name, value, known in (
        ("downsampling", downsampling, get_args(Downsampling)),
        ("normalisation", normalisation, get_args(Normalisation)),
        ("readout", readout, get_args(Readout)),
    ):
        if value not in known:
            raise ValueError(f"conv_net: {name}={value!r}; expected one of {', '.join(known)}.")
    if len(image) != 3 or min(*image, ways, filters, blocks) < 1:
        raise ValueError(
            f"conv_net: image={tuple(image)}, ways={ways}, filters={filters}, blocks={blocks}; expected (height, width, "
            "channels) and numbers of 1 or more."
        )
    if normalisation == "group" and filters % GROUPS:
        raise ValueError(f"conv_net: {filters} filters do not split into {GROUPS} groups; take a multiple of {GROUPS}.")
    if downsampling == "max_pool" and min(image[:2]) < 2**blocks:
        raise ValueError(
            f"conv_net: {blocks} halvings leave nothing of an image of {image[0]}×{image[1]}; take fewer blocks or larger images."
        )
    return _conv_net(tuple(image), ways, filters, blocks, downsampling, normalisation, readout)


GROUPS = 8
"""Groups of channels in group normalisation."""


@cache
def _conv_net(
    image: tuple[int, ...],
    ways: int,
    filters: int,
    blocks: int,
    downsampling: Downsampling,
    normalisation: Normalisation,
    readout: Readout,
) -> Model:
    def halved(size: int) -> int:
        for _ in range(blocks):
            size = -(-size // 2) if downsampling == "stride" else size // 2
        return size

    features = filters * (1 if readout == "mean" else halved(image[0]) * halved(image[1]))

    def block_init(key: PRNGKeyArray, channels: int) -> dict[str, Array]:
        # Glorot's uniform initialisation, as in the released code.
        kernel = jax.nn.initializers.glorot_uniform()(key, (3, 3, channels, filters))
        if normalisation == "none":
            return {"bias": jnp.zeros(filters), "kernel": kernel}
        return {"kernel": kernel, "scale": jnp.ones(filters), "shift": jnp.zeros(filters)}

    def init(key: PRNGKeyArray) -> Parameters:
        *keys, key_last = jax.random.split(key, blocks + 1)
        layers = [block_init(k, filters if index else image[2]) for index, k in enumerate(keys)]
        spread = 1.0 if readout == "mean" else features**-0.5
        return [*layers, {"bias": jnp.zeros(ways), "weight": spread * jax.random.normal(key_last, (features, ways))}]

    def apply(parameters: Parameters, images: Float[Array, "n height width channels"]) -> Float[Array, "n ways"]:
        for layer in parameters[:-1]:
            x = convolve(images, layer["kernel"], stride=2 if downsampling == "stride" else 1)
            x = (
                x + layer["bias"]
                if normalisation == "none"
                else normalise(x, normalisation) * layer["scale"] + layer["shift"]
            )
            images = jax.nn.relu(x if downsampling == "stride" else max_pool(x))
        seen = jnp.mean(images, axis=(1, 2)) if readout == "mean" else images.reshape(images.shape[0], -1)
        return seen @ parameters[-1]["weight"] + parameters[-1]["bias"]

    return Model(init, apply)


def normalise(x: Float[Array, "n ... channels"], by: Normalisation) -> Float[Array, "n ... channels"]:
    """Zero mean and unit variance of each channel over the `batch`, or of each image's `group`s of channels (`layer`: one)."""
    if by == "batch":
        axes = tuple(range(x.ndim - 1))
        return _standard(x, axes)
    groups = GROUPS if by == "group" else 1
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    return _standard(grouped, (*range(1, x.ndim - 1), x.ndim)).reshape(x.shape)


def _standard(x: Array, axes: tuple[int, ...]) -> Array:
    mean = jnp.mean(x, axes, keepdims=True)
    centred = x - mean
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axes, keepdims=True) + EPSILON)


def max_pool(x: Float[Array, "n height width channels"]) -> Float[Array, "n half_height half_width channels"]:
    """The largest of every 2×2 places; an odd last row or column is left out."""
    _, height, width, _ = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    # As an elementwise maximum and not a window reduction, whose gradient XLA scatters.
    corners = [even[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return jnp.maximum(jnp.maximum(corners[0], corners[1]), jnp.maximum(corners[2], corners[3]))
