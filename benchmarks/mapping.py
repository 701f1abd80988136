"""Mapping over tasks: sequential, vectorised and in chunks, for small and large networks; backs what `auto` chooses.

    python benchmarks/mapping.py          # mapping.csv beside this file and the table in docs/mapping.md, some minutes
    python benchmarks/mapping.py --quick  # a smoke test that writes nothing

On a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from measure import Effort, Figures, cores, measure
from report import ROOT, Result, Table, fill, number, provenance, threads_text, write_csv
from rich.console import Console
from work import Workload

from metaception import as_mapping

COMMAND = "python benchmarks/mapping.py"
MAPPINGS = ("vectorised", "sequential", "chunked:5")
SIZES = [
    *(Workload(width=width) for width in (40, 96, 128, 160, 256, 512)),
    *(Workload(width=width, tasks=tasks) for width in (40, 512) for tasks in (5, 100)),
]


def plan() -> list[tuple[Workload, int]]:
    """What to measure: sizes and threads."""
    return [(size, 1) for size in SIZES] + [(size, cores()) for size in SIZES if size.tasks == 25 and cores() > 1]


def row(result: Result) -> list[str]:
    """A row of the table: the time of each mapping beside the vectorised one's, and its memory."""
    figures = {name.removeprefix("metaception "): f for name, f in result.figures.items()}
    first = figures["vectorised"]
    count = sum(rows * columns + columns for rows, columns in result.workload.sizes)
    chosen = type(as_mapping("auto", parameters=count)).__name__.lower()

    def cell(name: str, f: Figures) -> str:
        text = f"{number(1e3 * f.seconds)} (× {number(f.ratio(first))}), {number(f.program_mib or 0)}"
        return f"{text} ←" if name == chosen else text

    size = [str(result.workload.width), f"{count:,}", str(result.workload.tasks), threads_text(result.threads)]
    return size + [cell(name, f) for name, f in figures.items()]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test that writes nothing")
    quick = parser.parse_args().quick
    started, effort = time.monotonic(), Effort(rounds=1, seconds=0.01) if quick else Effort()
    names = [f"metaception {mapping}" for mapping in MAPPINGS]
    results = []
    for workload, threads in [(Workload(width=8), 1)] if quick else plan():
        results.append(Result(workload, threads, measure(names, workload, threads, effort)))
        print(", ".join(row(results[-1])), flush=True)
    header = ["width", "parameters", "tasks", "threads", *MAPPINGS]
    title = "Milliseconds an outer step (beside vectorised), and XLA's temporary buffers in MiB; ← is what auto chooses"
    table = Table(title, header, [row(result) for result in results])
    table.show(Console())
    if not quick:
        write_csv(Path(__file__).parent / "mapping.csv", results, COMMAND)
        said = provenance(results, COMMAND, time.monotonic() - started)
        fill(ROOT / "docs" / "mapping.md", f"{table.markdown()}\n\n{said}")


if __name__ == "__main__":
    main()
