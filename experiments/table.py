"""Results as rows: one figure a row, in the columns that every file in results/ has."""

from __future__ import annotations

import csv
import fcntl
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent.parent / "results"
MEASURED = (RESULTS.name, "benchmarks/*.csv", "benchmarks/*.md", "docs/mapping.md", "docs/convolution.md")
"""What experiments and benchmarks write, as seen from the checkout."""


def machine() -> str:
    """The processor and the number of cores that this process may use."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def commit() -> str:
    """The short hash of the checkout's commit, with + where anything but results has changes; empty outside a checkout."""

    def git(*arguments: str) -> str:
        run = ["git", *arguments]
        return subprocess.run(run, capture_output=True, text=True, check=True, cwd=RESULTS.parent).stdout.strip()

    try:
        results = (f":(exclude){path}" for path in MEASURED)
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *results)
        return git("rev-parse", "--short=7", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return ""


@dataclass(frozen=True)
class Row:
    """One figure; `ci95` is a half-width, over seeds where there are three or more, else over tasks."""

    experiment: str
    method: str
    setting: str
    metric: str
    mean: float
    ci95: float | None = None
    median: float | None = None
    tasks: int | None = None
    seeds: int | None = None
    paper: float | None = None
    source: str = ""
    wall_s: float | None = None
    machine: str = ""
    command: str = ""
    commit: str = ""


def write_csv(name: str, rows: Sequence[Row], command: str | None = None) -> Path:
    """Write `results/NAME.csv`, with the machine, the command and the commit filled in where a row has none."""
    filled = {"machine": machine(), "command": command or "python " + " ".join(sys.argv), "commit": commit()}
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Row)])
        for row in rows:
            values = []
            for field, value in zip(fields(Row), astuple(row), strict=True):
                said = value or filled.get(field.name, value)
                if said is None or (isinstance(said, float) and np.isnan(said)):
                    values.append("")
                else:
                    values.append(f"{said:.6g}" if isinstance(said, float) else str(said))
            writer.writerow(values)
    return path


def add_csv(
    folder: Path, name: str, rows: Sequence[Row], *, order: Sequence[str], command: str
) -> list[dict[str, str]]:
    """Put rows into `folder/NAME.csv`, in the place of older ones of the same cell; two processes may do so at once.

    Args:
        order: the order of the methods in the file; others' rows go.

    Returns:
        All rows of the file.
    """
    path, lock = folder / f"{name}.csv", folder / f".{name}.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fresh = write_csv(str(folder / f".{name}"), rows, command)
        cells = {(row["method"], row["setting"], row["metric"]): row for row in [*read_csv(path), *read_csv(fresh)]}
        kept = [row for method in order for row in cells.values() if row["method"] == method]
        with fresh.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(kept[0]))
            writer.writeheader()
            writer.writerows(kept)
        fresh.replace(path)
    return kept


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a file of results, or none."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
