"""What can go wrong with a run, as the user is told it: what was given, what was expected, the remedy."""

from __future__ import annotations

import signal
from typing import Any

import jax

from metaception.core.algorithm import MetaAlgorithm
from metaception.core.mapping import Chunked, Sequential, on_one_device
from metaception.metagrad.unroll import Unroll


class UsageError(ValueError):
    """What was asked for cannot be done; nothing was started."""


class RunError(RuntimeError):
    """A run that could not go on."""


class Diverged(RunError):
    """Too many outer steps in a row had a meta-gradient that was not finite."""


class OutOfMemory(RunError):
    """The program did not fit into memory."""


class Stopped(KeyboardInterrupt):
    """A run was asked to stop by a signal; it has saved what it had.

    Attributes:
        signal: the signal's number.
        step: outer steps taken.
    """

    def __init__(self, number: int, step: int, message: str):
        super().__init__(message)
        self.signal = number
        self.step = step


def stopped(number: int, step: int, steps: int, resume: str) -> Stopped:
    """The exception of a run that a signal stopped and that `resume` continues."""
    name = signal.Signals(number).name
    return Stopped(
        number, step, f"{name}: stopped after {step:,} of {steps:,} outer steps, and saved. To go on:\n  {resume}"
    )


def diverged(algorithm: MetaAlgorithm, step: int, in_a_row: int, seeds: list[int]) -> Diverged:
    """The exception of a run whose meta-gradients are no longer finite."""
    rate = getattr(algorithm.learner, "rate", None)
    now = f" (now {float(rate):g})" if rate is not None and getattr(rate, "ndim", 1) == 0 else ""
    steps = getattr(algorithm.learner, "steps", None)
    fewer = f", fewer inner steps (now {steps})" if steps is not None and steps > 1 else ""
    which = ", ".join(str(seed) for seed in seeds)
    return Diverged(
        f"stopped at outer step {step:,}: the meta-gradient of seed {which} was not finite for {in_a_row} steps in a row, "
        f"and none of them was taken. Likely remedies: a lower inner rate{now}, a lower outer rate{fewer}; in Python, an "
        "outer optimiser that clips (optax.clip_by_global_norm); or data without infinities."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    return isinstance(error, jax.errors.JaxRuntimeError) and ("RESOURCE_EXHAUSTED" in text or "Out of memory" in text)


def out_of_memory(algorithm: MetaAlgorithm, seeds: int, error: BaseException) -> OutOfMemory:
    """The exception of a program that did not fit, naming what saves memory in this one."""
    knobs = []
    mapping = on_one_device(algorithm.mapping)
    if isinstance(mapping, Chunked):
        knobs.append(
            f"smaller chunks of tasks (now --mapping chunked:{mapping.size}), or one at a time: --mapping sequential"
        )
    elif not isinstance(mapping, Sequential):
        half = max(1, algorithm.meta_batch_size // 2)
        knobs.append(f"fewer tasks at once: --mapping sequential, or --mapping chunked:{half}")
    estimator: Any = algorithm.estimator
    if isinstance(estimator, Unroll):
        if estimator.mode == "reverse":
            knobs.append(
                "a cheaper inner loop, where the method has the flag: --memory rematerialise or --memory mixed"
            )
        knobs.append("a first-order method (fomaml, reptile)")
    if algorithm.meta_batch_size > 1:
        knobs.append(f"a smaller meta-batch (now --meta-batch-size {algorithm.meta_batch_size})")
    if seeds > 1:
        knobs.append(f"fewer seeds in one run (now --seeds {seeds})")
    listed = "".join(f"\n  - {knob}" for knob in knobs) or "\n  - a smaller model or fewer examples a task"
    reason = (str(error).splitlines() or ["no details"])[0]
    return OutOfMemory(f"out of memory. What saves memory here:{listed}\n({reason})")


def out_of_memory_at_test(error: BaseException) -> OutOfMemory:
    """The exception of a test that did not fit."""
    reason = (str(error).splitlines() or ["no details"])[0]
    return OutOfMemory(
        "out of memory in the test; the trained run is saved. What saves memory: --mapping sequential in training, and "
        f"`metaception evaluate` with fewer --test-queries.\n({reason})"
    )
