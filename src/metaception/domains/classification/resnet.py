"""The residual network of the later few-shot papers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaception.core.model import Model, Reference, sequential
from metaception.domains.classification.convolution import convolve
from metaception.domains.classification.networks import Normalisation, check_image, linear, max_pool, normalise

CONVOLUTIONS = 3
"""3×3 convolutions of a block, so that four blocks have twelve."""
LEAK = 0.1
"""The slope of the leaky ReLU below zero."""


def resnet12(
    image: Sequence[int],
    ways: int,
    *,
    widths: Sequence[int] = (64, 128, 256, 512),
    normalisation: Normalisation = "batch",
) -> Model:
    """ResNet-12: blocks of three 3×3 convolutions beside a 1×1 one, each normalised, then 2×2 max-pooling.

    Leaky ReLUs of slope 0.1; the last layer sees the mean over all places. Without the dropout of the papers that train it
    as a classifier.

    Args:
        image: (height, width, channels).
        ways: outputs.
        widths: filters of each block; the default is Oreshkin et al.'s, (64, 160, 320, 640) that of Lee et al. 2019.
        normalisation: as in `conv_net`.

    Returns:
        A model whose parameters are a list of blocks: {"convolutions": three of {"kernel", "scale", "shift"}, "shortcut": one},
        then {"weight", "bias"}.

    Raises:
        ValueError: for sizes below one, unknown names, or images that the blocks would shrink to nothing.

    Examples:
        >>> import metaception as mc
        >>> mc.count_parameters(mc.resnet12((84, 84, 3), 5))
        7999365

    Oreshkin et al. 2018, "TADAM: Task dependent adaptive metric for improved few-shot learning", section 3.
    """
    check_image("resnet12", image, ways, halvings=len(widths), filters=widths, normalisation=normalisation)
    return _resnet(tuple(image), ways, tuple(widths), normalisation)


@cache
def _resnet(image: tuple[int, ...], ways: int, widths: tuple[int, ...], by: Normalisation) -> Model:
    def unit_init(key: PRNGKeyArray, size: int, channels: int, filters: int) -> dict[str, Array]:
        # He's initialisation for leaky ReLUs.
        kernel = jax.nn.initializers.he_normal()(key, (size, size, channels, filters))
        shared = {"kernel": kernel, "shift": jnp.zeros(filters)}
        return shared if by == "none" else {**shared, "scale": jnp.ones(filters)}

    def unit(layer: dict[str, Array], x: Float[Array, "n ..."], reference: Reference) -> Float[Array, "n ..."]:
        x = convolve(x, layer["kernel"])
        return (x if by == "none" else normalise(x, by, reference) * layer["scale"]) + layer["shift"]

    def block(layer: dict[str, Any], x: Float[Array, "n ..."], reference: Reference) -> Float[Array, "n ..."]:
        beside = unit(layer["shortcut"], x, reference)
        *early, last = layer["convolutions"]
        for own in early:
            x = jax.nn.leaky_relu(unit(own, x, reference), LEAK)
        return max_pool(jax.nn.leaky_relu(unit(last, x, reference) + beside, LEAK))

    def init(key: PRNGKeyArray) -> list[dict[str, Any]]:
        layers, channels = list[dict[str, Any]](), image[2]
        for filters in widths:
            key, key_shortcut, *keys = jax.random.split(key, CONVOLUTIONS + 2)
            inputs = [channels, *[filters] * (CONVOLUTIONS - 1)]
            units = [unit_init(k, 3, count, filters) for k, count in zip(keys, inputs, strict=True)]
            layers.append({"convolutions": units, "shortcut": unit_init(key_shortcut, 1, channels, filters)})
            channels = filters
        weight = channels**-0.5 * jax.random.normal(key, (channels, ways))
        return [*layers, {"bias": jnp.zeros(ways), "weight": weight}]

    return sequential(init, [block] * len(widths) + [linear], readout=lambda x: jnp.mean(x, axis=(1, 2)))
