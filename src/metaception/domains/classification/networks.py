"""The networks of the few-shot papers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaception.core.model import Given, Model, Noted, Reference, sequential
from metaception.domains.classification.convolution import Precision, convolve

Normalisation = Literal["batch", "group", "layer", "none"]
Downsampling = Literal["stride", "max_pool"]
Readout = Literal["mean", "flatten"]
Parameters = list[dict[str, Any]]
EPSILON = 1e-3
"""What is added to a variance before its root, as in the released code of MAML."""


GROUPS = 8
"""Groups of channels in group normalisation."""


def conv_net(
    image: Sequence[int],
    ways: int,
    *,
    filters: int = 64,
    blocks: int = 4,
    downsampling: Downsampling = "stride",
    normalisation: Normalisation = "batch",
    readout: Readout = "mean",
    precision: Precision = "float32",
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
        precision: of the factors in the convolutions' products, as in `convolve`; all else is in single precision.

    Returns:
        A model whose parameters are a list of layers: {"kernel" [3, 3, in, filters], "scale", "shift" [filters]} a block
        ("bias" without normalisation), then {"weight" [features, ways], "bias" [ways]}.

    Raises:
        ValueError: for sizes below one, unknown names, or images that the blocks would shrink to nothing.

    Examples:
        >>> import metaception as mc
        >>> mc.count_parameters(mc.conv_net((28, 28, 1), 5))
        112005
    """
    for name, value, known in (
        ("downsampling", downsampling, Downsampling),
        ("readout", readout, Readout),
        ("precision", precision, Precision),
    ):
        if value not in get_args(known):
            raise ValueError(f"conv_net: {name}={value!r}; expected one of {', '.join(get_args(known))}.")
    halvings = blocks if downsampling == "max_pool" else 0
    check_image("conv_net", image, ways, halvings=halvings, filters=(filters,), normalisation=normalisation)
    if blocks < 1:
        raise ValueError(f"conv_net: blocks={blocks}; expected 1 or more.")
    return _conv_net(
        tuple(image),
        ways,
        filters,
        blocks,
        downsampling=downsampling,
        by=normalisation,
        readout=readout,
        precision=precision,
    )


def check_image(
    network: str, image: Sequence[int], ways: int, *, halvings: int, filters: Sequence[int], normalisation: str
) -> None:
    """Refuse what no network can be made for.

    Raises:
        ValueError: for sizes below one, an unknown normalisation, filters that do not split into its groups, or images that so
            many halvings would shrink to nothing.
    """
    if len(image) != 3 or min(*image, ways, *filters) < 1:
        raise ValueError(
            f"{network}: image={tuple(image)}, ways={ways}, filters={tuple(filters)}; expected (height, width, channels) and "
            "numbers of 1 or more."
        )
    if normalisation not in get_args(Normalisation):
        raise ValueError(
            f"{network}: normalisation={normalisation!r}; expected one of {', '.join(get_args(Normalisation))}."
        )
    odd = [number for number in filters if number % GROUPS]
    if normalisation == "group" and odd:
        raise ValueError(f"{network}: {odd[0]} filters do not split into {GROUPS} groups; take a multiple of {GROUPS}.")
    if min(image[:2]) < 2**halvings:
        raise ValueError(
            f"{network}: {halvings} halvings leave nothing of an image of {image[0]}×{image[1]}; take fewer blocks or larger "
            "images."
        )


@cache
def _conv_net(
    image: tuple[int, ...],
    ways: int,
    filters: int,
    blocks: int,
    *,
    downsampling: Downsampling,
    by: Normalisation,
    readout: Readout,
    precision: Precision,
) -> Model:
    def halved(size: int) -> int:
        for _ in range(blocks):
            size = -(-size // 2) if downsampling == "stride" else size // 2
        return size

    features = filters * (1 if readout == "mean" else halved(image[0]) * halved(image[1]))

    def block_init(key: PRNGKeyArray, channels: int) -> dict[str, Array]:
        # Glorot's uniform initialisation, as in the released code.
        kernel = jax.nn.initializers.glorot_uniform()(key, (3, 3, channels, filters))
        if by == "none":
            return {"bias": jnp.zeros(filters), "kernel": kernel}
        return {"kernel": kernel, "scale": jnp.ones(filters), "shift": jnp.zeros(filters)}

    def init(key: PRNGKeyArray) -> Parameters:
        *keys, key_last = jax.random.split(key, blocks + 1)
        layers = [block_init(k, filters if index else image[2]) for index, k in enumerate(keys)]
        spread = 1.0 if readout == "mean" else features**-0.5
        return [*layers, {"bias": jnp.zeros(ways), "weight": spread * jax.random.normal(key_last, (features, ways))}]

    def block(layer: dict[str, Array], x: Float[Array, "n ..."], reference: Reference) -> Float[Array, "n ..."]:
        x = convolve(x, layer["kernel"], stride=2 if downsampling == "stride" else 1, precision=precision)
        if downsampling == "max_pool" and by == "batch":
            return jax.nn.relu(_pooled_and_normalised(x, layer["scale"], reference) + layer["shift"])
        x = x + layer["bias"] if by == "none" else normalise(x, by, reference) * layer["scale"] + layer["shift"]
        return jax.nn.relu(x if downsampling == "stride" else max_pool(x))

    def read(x: Float[Array, "n height width channels"]) -> Float[Array, "n features"]:
        return jnp.mean(x, axis=(1, 2)) if readout == "mean" else x.reshape(x.shape[0], -1)

    return sequential(init, [block] * blocks + [linear], readout=read)


def dense_net(
    image: Sequence[int],
    ways: int,
    *,
    widths: Sequence[int] = (256, 128, 64, 64),
    normalisation: Literal["batch", "none"] = "batch",
) -> Model:
    """A perceptron on pixels: linear layers, each with batch normalisation and ReLU; then one linear layer.

    The defaults are the network "without convolutions" of Finn et al. 2017, section 5.2, which is that of Santoro et al. 2016.

    Args:
        image: (height, width, channels).
        ways: outputs.
        widths: units of each hidden layer.
        normalisation: of the hidden layers, as in `conv_net`.

    Returns:
        A model whose parameters are a list of layers: {"weight" [in, out], "scale", "shift" [out]} a hidden layer (without
        normalisation "bias" for the last two), then {"weight", "bias"}.

    Raises:
        ValueError: for sizes below one or an unknown normalisation.

    Examples:
        >>> import metaception as mc
        >>> mc.count_parameters(mc.dense_net((28, 28, 1), 5))
        247109
    """
    check_image("dense_net", image, ways, halvings=0, filters=widths, normalisation=normalisation)
    if normalisation not in ("batch", "none"):
        raise ValueError(f"dense_net: normalisation={normalisation!r}; expected batch or none.")
    return _dense_net(tuple(image), ways, tuple(widths), normalisation)


@cache
def _dense_net(image: tuple[int, ...], ways: int, widths: tuple[int, ...], by: Literal["batch", "none"]) -> Model:
    sizes = [image[0] * image[1] * image[2], *widths]

    def layer_init(key: PRNGKeyArray, rows: int, columns: int) -> dict[str, Array]:
        weight = jax.nn.initializers.he_normal()(key, (rows, columns))
        if by == "none":
            return {"bias": jnp.zeros(columns), "weight": weight}
        return {"scale": jnp.ones(columns), "shift": jnp.zeros(columns), "weight": weight}

    def init(key: PRNGKeyArray) -> Parameters:
        *keys, key_last = jax.random.split(key, len(sizes))
        layers = [layer_init(k, *pair) for k, pair in zip(keys, pairwise(sizes), strict=True)]
        weight = sizes[-1] ** -0.5 * jax.random.normal(key_last, (sizes[-1], ways))
        return [*layers, {"bias": jnp.zeros(ways), "weight": weight}]

    def hidden(layer: dict[str, Array], x: Float[Array, "n ..."], reference: Reference) -> Float[Array, "n out"]:
        x = x.reshape(x.shape[0], -1) @ layer["weight"]
        x = x + layer["bias"] if by == "none" else normalise(x, by, reference) * layer["scale"] + layer["shift"]
        return jax.nn.relu(x)

    return sequential(init, [hidden] * len(widths) + [linear])


def pixels(image: Sequence[int], ways: int) -> Model:
    """No network: the features are the pixels, all times one number; then one linear layer.

    For methods that compare features it is the baseline without an embedding; for those that fit, softmax regression.

    Args:
        image: (height, width, channels).
        ways: outputs.

    Returns:
        A model whose parameters are a list of layers: {"scale" []}, 1 at first, then {"weight" [pixels, ways], "bias" [ways]},
        zero at first.

    Raises:
        ValueError: for sizes below one.

    Examples:
        >>> import metaception as mc
        >>> mc.count_parameters(mc.pixels((28, 28, 1), 5))  # 1 + 784 · 5 + 5
        3926
    """
    check_image("pixels", image, ways, halvings=0, filters=(), normalisation="none")
    return _pixels(tuple(image), ways)


@cache
def _pixels(image: tuple[int, ...], ways: int) -> Model:
    height, width, channels = image

    def init(key: PRNGKeyArray) -> Parameters:
        del key
        return [
            {"scale": jnp.ones(())},
            {"bias": jnp.zeros(ways), "weight": jnp.zeros((height * width * channels, ways))},
        ]

    def scaled(layer: dict[str, Array], x: Float[Array, "n height width channels"], reference: Reference) -> Array:
        del reference
        return layer["scale"] * x

    return sequential(init, [scaled, linear], readout=lambda x: x.reshape(x.shape[0], -1))


def linear(layer: dict[str, Array], x: Float[Array, "n features"], reference: Reference) -> Float[Array, "n outputs"]:
    """x · weight + bias."""
    del reference
    return x @ layer["weight"] + layer["bias"]


def normalise(
    x: Float[Array, "n ... channels"], by: Normalisation, reference: Reference = None
) -> Float[Array, "n ... channels"]:
    """Zero mean and unit variance of each channel over the `batch`, or of each image's `group`s of channels (`layer`: one).

    Args:
        x: [n, ..., channels].
        by: over what.
        reference: the batch's statistics are those of its first `reference` rows; of all for None.
    """
    if by == "batch":
        return _standard(x, *_of_batch(x, reference))
    groups = GROUPS if by == "group" else 1
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    return _standard(grouped, *_moments(grouped, (*range(1, x.ndim - 1), x.ndim))).reshape(x.shape)


def _pooled_and_normalised(
    x: Float[Array, "n height width channels"], scale: Float[Array, " channels"], reference: Reference
) -> Float[Array, "n half_height half_width channels"]:
    """max_pool(normalise(x, "batch", reference) · scale), pooled first.

    The largest place stays the largest when a channel is shifted and scaled (a negative scale makes it the smallest), so that
    only a quarter of the places needs to be normalised, forward and backward.
    """
    sign = jnp.where(scale < 0, -1.0, 1.0)
    return _standard(sign * max_pool(sign * x), *_of_batch(x, reference)) * scale


def _of_batch(x: Array, reference: Reference) -> tuple[Array, Array]:
    if isinstance(reference, Given):
        return reference.next()
    mean, variance = _moments(x[:reference] if isinstance(reference, int) else x, tuple(range(x.ndim - 1)))
    if isinstance(reference, Noted):
        reference.moments.append((mean.ravel(), variance.ravel()))
    return mean, variance


def _moments(seen: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    mean = jnp.mean(seen, axes, keepdims=True)
    return mean, jnp.mean((seen - mean) ** 2, axes, keepdims=True)


def _standard(x: Array, mean: Array, variance: Array) -> Array:
    return (x - mean) * jax.lax.rsqrt(variance + EPSILON)


def max_pool(x: Float[Array, "n height width channels"]) -> Float[Array, "n half_height half_width channels"]:
    """The largest of every 2×2 places; an odd last row or column is left out."""
    _, height, width, _ = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    # As an elementwise maximum and not a window reduction, whose gradient XLA scatters.
    corners = [even[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return jnp.maximum(jnp.maximum(corners[0], corners[1]), jnp.maximum(corners[2], corners[3]))
