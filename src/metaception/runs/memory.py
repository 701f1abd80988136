"""Does a run fit into memory at all? Asked before any work."""

from __future__ import annotations

import os

import jax

from metaception.core.algorithm import MetaAlgorithm
from metaception.runs.errors import UsageError


def check_fits(algorithm: MetaAlgorithm, seeds: int) -> None:
    """Refuse what could not even be initialised: the states of all seeds are larger than the memory of the device.

    Raises:
        UsageError: naming both sizes and the remedy.
    """
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    needed = seeds * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    there = device_memory()
    if there is not None and needed > there:
        numbers = sum(leaf.size for leaf in jax.tree.leaves(state.meta))
        several = f" {seeds} times (now --seeds {seeds})" if seeds > 1 else ""
        raise UsageError(
            f"{numbers:,} meta-parameters with the state of the outer optimiser{several} take {_gib(needed)}, and this device "
            f"has {_gib(there)}; take a smaller model{' or fewer seeds' if seeds > 1 else ''}."
        )


def device_memory() -> int | None:
    """Bytes of memory of the device that JAX computes on; None where it does not say."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (device.memory_stats() or {}).get("bytes_limit")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
