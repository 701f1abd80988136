"""Train several seeds at once and keep their meta-parameters along the way."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp

import metaception as mc
from metaception.core.streams import stream_key


def train(algorithm: mc.MetaAlgorithm, checkpoints: Sequence[int], seeds: int) -> list[Any]:
    """The meta-parameters after each number of outer steps in `checkpoints` (rising), seeds along a leading axis."""
    stretch = gcd(*checkpoints)

    def advance(state: mc.State, key: Any, start: Any) -> mc.State:
        keys = jax.vmap(lambda step: jax.random.fold_in(key, start + step))(jnp.arange(stretch))
        return jax.lax.scan(lambda state, key: (algorithm.step(key, state)[0], None), state, keys)[0]

    first, keys = (jnp.stack([stream_key(seed, stream) for seed in range(seeds)]) for stream in ("initialise", "train"))
    states = jax.jit(jax.vmap(algorithm.init))(first)
    run = jax.jit(jax.vmap(advance, in_axes=(0, 0, None)))
    kept, done = [], 0
    for checkpoint in checkpoints:
        while done < checkpoint:
            states = run(states, keys, done)
            done += stretch
        kept.append(states.meta)
    return kept
