"""Time and memory of MAML on few-shot images: ours beside PyTorch, and our own ways beside each other.

    pip install -e '.[peers]'
    python benchmarks/images.py          # images.csv and images.md beside this file, about half an hour
    python benchmarks/images.py --quick  # a smoke test that writes nothing

On a machine that does nothing else. Without the peers' packages only our side is measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from image_work import ImageWorkload
from measure import Effort, cores, measure
from report import Result, Table, fill, number, provenance, threads_text, write_csv
from rich.console import Console

HERE = Path(__file__).parent
COMMAND = " ".join(["python benchmarks/images.py", *sys.argv[1:]])
OURS = "metaception"
PEERS = ("pytorch loop", "pytorch loop, channels last", "pytorch torch.func")
DESIGN = ImageWorkload()
PAPER = ImageWorkload(tasks=32, queries=1)
MINI = ImageWorkload("mini_imagenet", tasks=4, queries=15, inner_steps=5)
WAYS = (OURS, *(f"{OURS} {way}" for way in ("rematerialise", "mixed", "bfloat16", "first_order", "anil", "imaml")))
SHARES = (OURS, *(f"{OURS} {less}" for less in ("drawing", "forward", "first_order", "unnormalised")))
"""The whole outer step, and what has a part of its work."""
LEARNING = tuple(f"{OURS} {method}learning" for method in ("", "anil "))
PARTS = ("beside", "ways", "shares", "learning")
INEXACT = ("drawing", "forward", "first_order", "anil", "imaml", "learning")
PRODUCT = 1024
"""Rows and columns of the matrix product that the machine's rate is measured by."""


def peers() -> tuple[str, ...]:
    """Ours, and the peers where they are installed."""
    there = all(importlib.util.find_spec(package) is not None for package in ("torch", "higher"))
    return (OURS, *PEERS) if there else (OURS,)


def plan(parts: Sequence[str]) -> list[tuple[Sequence[str], ImageWorkload, int]]:
    """What to measure together: the names, the size, the threads."""
    both = [1, cores()] if cores() > 1 else [1]
    # On mini-ImageNet torch.func takes many times as long as the loop, and gigabytes.
    few = [name for name in peers() if "func" not in name]
    beside = [(peers(), size, threads) for size in (DESIGN, PAPER) for threads in both]
    beside += [(few, MINI, threads) for threads in both]
    growth = [replace(DESIGN, inner_steps=steps) for steps in (1, 5, 10)]
    groups = {
        "beside": beside,
        "ways": [(WAYS, size, 1) for size in growth],
        "shares": [(SHARES, size, 1) for size in (DESIGN, MINI)],
        "learning": [(LEARNING, size, 1) for size in (*growth, replace(MINI, inner_steps=10))],
    }
    return [one for part in parts for one in groups[part]]


def side_by_side(result: Result) -> Table:
    """One size: every implementation, how many times longer than the first it takes, and its rate of arithmetic."""
    first = next(iter(result.figures.values()))
    work: ImageWorkload = result.workload
    rows = []
    for name, figures in result.figures.items():
        program = "" if figures.program_mib is None else number(figures.program_mib)
        exact = not any(word in name for word in INEXACT)
        rate = number(work.products() / figures.seconds / 1e9) if exact else ""
        times = (number(1e3 * figures.seconds), f"× {number(figures.ratio(first))}", rate)
        rows.append([name, *times, number(figures.peak_mib), program, number(figures.compile_s)])
    header = [
        "implementation",
        "ms a step",
        "beside the first",
        "GFLOP/s",
        "peak MiB",
        "XLA's buffers MiB",
        "first step s",
    ]
    return Table(f"{work}, {threads_text(result.threads)}", header, rows)


def product_rate() -> float:
    """GFLOP/s of a large matrix product on one core, in JAX: the most that anything here can reach."""
    import jax
    import jax.numpy as jnp

    square = jnp.asarray(np.random.default_rng(0).standard_normal((PRODUCT, PRODUCT)), jnp.float32)
    multiply = jax.jit(lambda a: a @ a)
    multiply(square).block_until_ready()
    times = []
    for _ in range(9):
        start = time.perf_counter()
        multiply(square).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * PRODUCT**3 / sorted(times)[len(times) // 2] / 1e9


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test that writes nothing")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=PARTS,
        help="beside: PyTorch's; ways: our own beside each other; shares: where the time of a step goes; learning: new "
        "tasks, without an outer step. The page then has these alone",
    )
    arguments = parser.parse_args()
    quick = arguments.quick
    console, started = Console(width=None if sys.stdout.isatty() else 150), time.monotonic()
    effort = Effort(rounds=1, seconds=0.01) if quick else Effort(seconds=1.0)
    tiny = ImageWorkload(tasks=1, queries=1)
    results = []
    few = [((*SHARES, *LEARNING), tiny, 1)]
    for names, workload, threads in few if quick else plan(arguments.parts):
        results.append(Result(workload, threads, measure(names, workload, threads, effort)))
        side_by_side(results[-1]).show(console)
    if peers() == (OURS,):
        console.print(
            "The peers were left out: install them with pip install -e '.[peers]'. Nothing was written.", markup=False
        )
    elif not quick:
        write_csv(HERE / "images.csv", results, COMMAND)
        rate = f"A product of two {PRODUCT} × {PRODUCT} matrices in JAX: {product_rate():.0f} GFLOP/s with all cores."
        text = [provenance(results, COMMAND, time.monotonic() - started), rate]
        text += [side_by_side(result).markdown() for result in results]
        fill(HERE / "images.md", "\n\n".join(text))
        console.print(f"{HERE / 'images.csv'} and {HERE / 'images.md'}")


if __name__ == "__main__":
    main()
