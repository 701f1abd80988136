"""Convolution: as `convolve` splits it on a CPU and as XLA has it; backs what `convolve` chooses.

    python benchmarks/convolution.py          # convolution.csv beside this file and the table in docs/convolution.md
    python benchmarks/convolution.py --quick  # a smoke test that writes nothing

On a machine that does nothing else; on an accelerator it measures that.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from report import COLUMNS, ROOT, Table, fill, number, place
from rich.console import Console

import metaception as mc

HERE = Path(__file__).parent
COMMAND = "python benchmarks/convolution.py"
ROUNDS = 5


TASKS = 4


class Size(NamedTuple):
    """One convolution of a paper's network: n images of size × size × channels in each of `TASKS` tasks, and as many filters
    as channels. Each task has a kernel of its own; tasks are mapped one after the other, or vectorised."""

    name: str
    n: int
    size: int
    channels: int
    stride: int
    vectorised: bool = False


SIZES = [
    Size("Omniglot, second layer, 5 images", 5, 14, 64, 2),
    Size("Omniglot, second layer, 75 images", 75, 14, 64, 2),
    Size("the same, vectorised", 75, 14, 64, 2, vectorised=True),
    Size("mini-ImageNet, second layer, 5 images", 5, 42, 32, 1),
    Size("mini-ImageNet, second layer, 75 images", 75, 42, 32, 1),
]
WAYS: dict[str, dict[str, Any]] = {
    "split": {"algorithm": "split"},
    "xla": {"algorithm": "xla"},
    "split, bfloat16": {"algorithm": "split", "precision": "bfloat16"},
}


def functions(size: Size, way: str) -> dict[str, Callable[[Any, Any], Any]]:
    """The forward pass, the gradient of a loss of it, and the product of that gradient's derivative with a direction."""

    def convolve(images: Any, kernel: Any) -> Any:
        return mc.convolve(images, kernel, stride=size.stride, **WAYS[way])

    def loss(images: Any, kernel: Any) -> Any:
        return jnp.sum(jax.nn.relu(convolve(images, kernel)) ** 2)

    gradient = jax.grad(loss, (0, 1))

    def second(images: Any, kernel: Any) -> Any:
        return jax.grad(lambda images, kernel: sum(jnp.sum(g**2) for g in gradient(images, kernel)), (0, 1))(
            images, kernel
        )

    every = {"forward": convolve, "gradient": gradient, "second order": second}

    def mapped(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        # Inside a compiled loop, as training has it: there XLA chooses otherwise than for a convolution alone.
        if size.vectorised:
            return jax.jit(jax.vmap(function))
        return jax.jit(lambda images, kernels: jax.lax.map(lambda task: function(*task), (images, kernels)))

    return {name: mapped(function) for name, function in every.items()}


def measure(size: Size, seconds: float) -> dict[str, dict[str, float]]:
    """Seconds a task of each function of each way: medians over rounds in which all take turns."""
    key_images, key_kernel = jax.random.split(jax.random.key(0))
    images = jax.random.normal(key_images, (TASKS, size.n, size.size, size.size, size.channels))
    kernel = 0.05 * jax.random.normal(key_kernel, (TASKS, 3, 3, size.channels, size.channels))
    found: dict[str, dict[str, float]] = {}
    for name in functions(size, "split"):
        compiled = {way: functions(size, way)[name] for way in WAYS}
        counts = {}
        for way, function in compiled.items():
            jax.block_until_ready(function(images, kernel))
            start = time.perf_counter()
            jax.block_until_ready(function(images, kernel))
            counts[way] = max(1, round(seconds / (time.perf_counter() - start)))
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way, function in compiled.items():
                start = time.perf_counter()
                for _ in range(counts[way]):
                    out = function(images, kernel)
                jax.block_until_ready(out)
                times[way].append((time.perf_counter() - start) / counts[way] / TASKS)
        found[name] = {way: statistics.median(t) for way, t in times.items()}
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test that writes nothing")
    quick = parser.parse_args().quick
    rows, lines = [], []
    machine, commit = place()
    for size in [Size("tiny", 2, 6, 4, 2), Size("tiny, vectorised", 2, 6, 4, 2, vectorised=True)] if quick else SIZES:
        for name, times in measure(size, 0.001 if quick else 0.2).items():
            base = times["split"]
            cells = [f"{number(1e3 * t)} (× {number(t / base)})" for t in times.values()]
            lines.append([f"{size.name}: {name}", *cells])
            # Memory is not measured here.
            rows += [
                (f"{size.name}: {name}", way, "", f"{t:.6g}", "", machine, COMMAND, commit) for way, t in times.items()
            ]
            print(lines[-1], flush=True)
    device = jax.devices()[0].device_kind
    table = Table(f"Milliseconds a task (beside split), on {device}", ["", *WAYS], lines)
    table.show(Console(width=140))
    if not quick:
        with (HERE / "convolution.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        said = f"`{COMMAND}` on {machine}; commit {commit or 'unknown'}; jax {jax.__version__}."
        fill(ROOT / "docs" / "convolution.md", f"{table.markdown()}\n\n{said}")


if __name__ == "__main__":
    main()
