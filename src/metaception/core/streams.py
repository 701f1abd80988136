"""Disjoint streams of randomness: training, validation and test tasks never share a key."""

from __future__ import annotations

from typing import Literal

import jax
from jaxtyping import Array, Integer, PRNGKeyArray

Stream = Literal["initialise", "train", "validation", "test"]
_NUMBERS: dict[str, int] = {"initialise": 0, "train": 1, "validation": 2, "test": 3}


def stream_key(seed: int | Integer[Array, ""], stream: Stream) -> PRNGKeyArray:
    """The key that a stream starts from.

    Args:
        seed: an integer; the test tasks of seed 0 are the same whatever was trained.
        stream: what the randomness is for.

    Examples:
        >>> import jax
        >>> bool((stream_key(0, "train") == stream_key(0, "test")).all())
        False
    """
    return jax.random.fold_in(jax.random.key(seed), _NUMBERS[stream])
