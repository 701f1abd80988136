"""Small trainings in processes of their own, for the tests that kill, stop and lock them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from compiling import QUICK

import metaception as mc

CACHE = Path(tempfile.gettempdir()) / f"metaception-tests-{os.getuid()}" / "xla"
"""Where the tests keep what they compile: away from the user's own cache, and shared by all test processes."""

_TRAIN = """
import sys, time
import metaception as mc
from metaception.runs.loop import Loop
advance, pause = Loop.advance, float(sys.argv[5])
def advance_slowly(loop, snapshot, stop):
    time.sleep(0 if stop % int(sys.argv[2]) else pause)
    return advance(loop, snapshot, stop)
Loop.advance = advance_slowly
algorithm = mc.MAML(meta_batch_size=2).build(mc.mlp(1, 1, widths=(4,)), mc.Sinusoids(shots=3, queries=3))
steps, log_every, seconds, folder = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
print("ready", flush=True)
run = mc.train(algorithm, steps=steps, seeds=2, log_every=log_every, validation_tasks=4, folder=folder, resume=True,
               checkpoint_seconds=seconds, progress=False)
print("done", run.step, flush=True)
"""


def environment(**extra: str) -> dict[str, str]:
    """The environment of a test's process."""
    return {**os.environ, "METACEPTION_CACHE": str(CACHE), **extra}


def training(
    folder: Path, *, steps: int, log_every: int, checkpoint_seconds: float = 0.0, quick: bool = True, pause: float = 0.0
) -> subprocess.Popen:
    """Start, or go on with, a small training in a process of its own.

    Not `quick`, it is compiled as a user's is. It waits `pause` seconds before each row of metrics, so
    that a test which kills it on the way finds it on the way, however fast the machine.
    """
    arguments = [str(steps), str(log_every), str(checkpoint_seconds), str(folder), str(pause)]
    return subprocess.Popen(
        [sys.executable, "-c", _TRAIN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in environment().items() if quick or name not in QUICK},
    )


def cli(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "metaception", *arguments],
        capture_output=True,
        text=True,
        env=environment(COLUMNS="100"),
        check=False,
        **options,
    )


def algorithm(**method) -> mc.MetaAlgorithm:
    """A small MAML, quick to compile."""
    settings = {"meta_batch_size": 2, **method}
    return mc.MAML(**settings).build(mc.mlp(1, 1, widths=(4,)), mc.Sinusoids(shots=3, queries=3))


def same_bits(a, b) -> bool:
    """Whether two trees have the same structure, shapes, types and bytes."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    pairs = [(np.asarray(x), np.asarray(y)) for x, y in pairs]
    return all(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs)
