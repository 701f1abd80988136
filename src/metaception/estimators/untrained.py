"""What an estimator without a run starts from: a small perceptron that has learned nothing before."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from metaception.domains.classification.losses import cross_entropy
from metaception.domains.regression.losses import mean_squared_error
from metaception.domains.regression.networks import mlp
from metaception.learners.initialisation import Initialisation

STEPS = 200
"""Inner steps: many, because there is no meta-training that would make a few do."""
RATE = 0.01
WIDTHS = (40, 40)


@cache
def perceptron(features: int, outputs: int, classification: bool) -> Initialisation:
    """The learner: all parameters adapt by Adam, from random ones. It has no batch statistics."""
    model = mlp(features, outputs, widths=WIDTHS)
    loss = cross_entropy if classification else mean_squared_error
    return Initialisation(
        model=model, loss_function=loss, rate=jnp.asarray(RATE), steps=STEPS, optimizer=optax.adam(1.0)
    )


def random_parameters(features: int, outputs: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Its parameters: weights N(0, 2/fan-in), N(0, 1/fan-in) in the last layer, biases zero (He et al. 2015).

    From numpy: JAX would compile a program for each number of features.
    """
    rng = np.random.default_rng(seed)
    gains = (*(2 for _ in WIDTHS), 1)
    return [
        {
            "weight": rng.normal(scale=(gain / rows) ** 0.5, size=(rows, columns)).astype(np.float32),
            "bias": np.zeros(columns, np.float32),
        }
        for gain, (rows, columns) in zip(gains, itertools.pairwise((features, *WIDTHS, outputs)), strict=True)
    ]


def standardised(array: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each column with mean 0 and standard deviation 1 (a constant one: 0); the means; the deviations (1 for a constant)."""
    exact = np.asarray(array, np.float64)
    mean, deviation = exact.mean(0), exact.std(0)
    # What is constant but for rounding is constant.
    deviation = np.where(deviation > 1e-6 * np.abs(mean), deviation, 1.0)
    return ((exact - mean) / deviation).astype(np.float32), mean, deviation


def for_raw(adapted: list[dict[str, Any]], inputs: Any = None, targets: Any = None) -> list[dict[str, Any]]:
    """A perceptron fitted to standardised data as one for raw data: the (mean, deviation) move into the outer layers."""
    layers = [{name: np.asarray(array, np.float64) for name, array in layer.items()} for layer in adapted]
    if inputs is not None:
        mean, deviation = inputs
        first = layers[0]
        first["weight"] = first["weight"] / deviation[:, None]
        first["bias"] = first["bias"] - mean @ first["weight"]
    if targets is not None:
        mean, deviation = targets
        layers[-1] = {"weight": layers[-1]["weight"] * deviation, "bias": layers[-1]["bias"] * deviation + mean}
    return [{name: array.astype(np.float32) for name, array in layer.items()} for layer in layers]
