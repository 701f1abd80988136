"""Time and memory of sinusoid MAML: ours beside PyTorch and higher, and our own ways beside each other.

    pip install -e '.[peers]'
    python benchmarks/sinusoid.py          # sinusoid.csv and sinusoid.md beside this file, about ten minutes
    python benchmarks/sinusoid.py --quick  # a smoke test that writes nothing

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

from measure import Effort, cores, measure
from report import Result, Table, fill, number, provenance, threads_text, write_csv
from rich.console import Console
from work import Workload

HERE = Path(__file__).parent
COMMAND = "python benchmarks/sinusoid.py"
OURS = "metaception"
PEERS = ("pytorch loop", "pytorch torch.func", "pytorch torch.func compiled", "higher")
# torch.compile takes a minute or more for each size, so it joins at these alone.
COMPILED = "pytorch torch.func compiled"
COMPILED_AT = (Workload(), Workload(inner_steps=5), Workload(tasks=100), Workload(width=512))
GROWTH = {
    "inner steps": [Workload(inner_steps=n) for n in (1, 5, 10)],
    "tasks": [Workload(tasks=n) for n in (5, 25, 100)],
    "width": [Workload(width=n) for n in (40, 128, 512)],
}
MODES = (OURS, *(f"{OURS} {mode}" for mode in ("rematerialise", "mixed", "first_order", "anil", "imaml")))
MODES_AT = (Workload(inner_steps=5), Workload(inner_steps=10, width=128))


def peers(workload: Workload) -> tuple[str, ...]:
    """Ours, and the peers that join at a size."""
    if any(importlib.util.find_spec(package) is None for package in ("torch", "higher")):
        return (OURS,)
    return (OURS, *(name for name in PEERS if name != COMPILED or workload in COMPILED_AT))


def plan() -> list[tuple[Workload, int]]:
    """At which sizes to compare with the peers, and with how many threads."""
    single = [(workload, 1) for workload in dict.fromkeys(workload for group in GROWTH.values() for workload in group)]
    # With all cores the smallest and the largest of each will do.
    ends = dict.fromkeys([Workload(), *(group[-1] for group in GROWTH.values())])
    return single + ([(workload, cores()) for workload in ends] if cores() > 1 else [])


def side_by_side(result: Result) -> Table:
    """One size: every implementation, with how many times longer than ours it takes."""
    first = result.figures[OURS]
    rows = []
    for name, figures in result.figures.items():
        program = "" if figures.program_mib is None else number(figures.program_mib)
        times = (number(1e3 * figures.seconds), f"× {number(figures.ratio(first))}")
        rows.append([name, *times, number(figures.peak_mib), program, number(figures.compile_s)])
    header = ["implementation", "ms a step", "beside ours", "peak MiB", "XLA's buffers MiB", "first step s"]
    return Table(f"{result.workload}, {threads_text(result.threads)}", header, rows)


def growth(results: Sequence[Result], threads: int) -> list[Table]:
    """How time and memory grow: a table for what grows, a column for each of its sizes."""
    tables = []
    for what, workloads in GROWTH.items():
        found = [r for w in workloads for r in results if (r.workload, r.threads) == (w, threads)]

        def cell(name: str, result: Result) -> str:
            if name not in result.figures:
                return "–"
            figures = result.figures[name]
            ratio = number(figures.ratio(result.figures[OURS]))
            return f"{number(1e3 * figures.seconds)} (× {ratio}), {number(figures.peak_mib)}"

        rows = [[name, *(cell(name, result) for result in found)] for name in (OURS, *PEERS)]
        header = [threads_text(threads), *(str(result.workload) for result in found)]
        tables.append(Table(f"Growth with {what}: ms a step (× ours), peak MiB", header, rows))
    return tables


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test that writes nothing")
    quick = parser.parse_args().quick
    console, started = Console(width=None if sys.stdout.isatty() else 140), time.monotonic()
    tiny, effort = Workload(tasks=3, width=8), Effort(rounds=1, seconds=0.01) if quick else Effort()

    def measured(workload: Workload, threads: int, names: Sequence[str]) -> Result:
        result = Result(workload, threads, measure(names, workload, threads, effort))
        side_by_side(result).show(console)
        return result

    beside = [measured(w, t, peers(w)) for w, t in ([(tiny, 1), (tiny, cores())] if quick else plan())]
    modes = [measured(w, 1, MODES) for w in ([replace(tiny, inner_steps=2)] if quick else MODES_AT)]
    if peers(tiny) == (OURS,):
        console.print("The peers were left out: install them with pip install -e '.[peers]'. Nothing was written.")
    elif not quick:
        write_csv(HERE / "sinusoid.csv", [*beside, *modes], COMMAND)
        counts = sorted({result.threads for result in beside})
        tables = [table for threads in counts for table in growth(beside, threads)]
        sections = {
            "One step at the paper's sizes": [side_by_side(r) for r in beside if r.workload == Workload()],
            "Growth": tables,
            "Our own ways beside each other": [side_by_side(result) for result in modes],
        }
        text = [provenance([*beside, *modes], COMMAND, time.monotonic() - started)]
        for title, tables in sections.items():
            text += [f"## {title}", *(table.markdown() for table in tables)]
        fill(HERE / "sinusoid.md", "\n\n".join(text))
        console.print(f"{HERE / 'sinusoid.csv'} and {HERE / 'sinusoid.md'}")


if __name__ == "__main__":
    main()
