"""Training in several processes: who writes, and what all of them must agree on before the next stretch."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def writes() -> bool:
    """Whether this is the process that writes the run folder and talks to the user."""
    return jax.process_index() == 0


def agree(received: int, size: int) -> tuple[int, int]:
    """Agree on whether to stop and on the length of the next stretch.

    A program over several processes waits for all of them, so all must run the same stretches, and stop after the same one.

    Args:
        received: the signal that this process got, or 0.
        size: the length that this process would choose.

    Returns:
        A signal that any process got, or 0; and process 0's length.
    """
    if jax.process_count() == 1:
        return received, size
    told = np.asarray(multihost_utils.process_allgather(np.asarray([received, size], np.int32)))
    return int(told[:, 0].max()), int(told[0, 1])


def from_writer(arrays: dict[str, Any] | None, shapes: dict[str, Any]) -> dict[str, Any] | None:
    """Give every process the writer's arrays, bit for bit.

    Args:
        arrays: what the writer has, or None; whatever the others pass is not looked at.
        shapes: the shapes and types of the arrays.
    """
    if jax.process_count() == 1:
        return arrays
    if not int(multihost_utils.broadcast_one_to_all(np.int32(arrays is not None))):
        return None
    # As bytes: a broadcast is a sum with zeros, which turns −0.0 into 0.0.
    shared = {}
    for name, shape in sorted(shapes.items()):
        mine = np.zeros(shape.shape, shape.dtype) if arrays is None else np.ascontiguousarray(arrays[name])
        raw = np.asarray(multihost_utils.broadcast_one_to_all(mine.reshape(-1).view(np.uint8)))
        shared[name] = raw.view(mine.dtype).reshape(mine.shape)
    return shared
