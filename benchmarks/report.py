"""What the benchmarks write: a CSV file of figures, and the measured part of a page."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import Figures
from rich.console import Console
from rich.table import Table as RichTable
from work import Workload

ROOT = Path(__file__).parent.parent
COLUMNS = ("workload", "implementation", "threads", "seconds_per_step", "peak_mib", "machine", "command", "commit")
START, END = "<!-- measured -->", "<!-- end of what was measured -->"


@dataclass(frozen=True)
class Result:
    """What was measured side by side: one size of the work, with so many threads."""

    workload: Workload
    threads: int
    figures: dict[str, Figures]


@dataclass(frozen=True)
class Table:
    """A table for the terminal and for a page."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def show(self, console: Console) -> None:
        """Print it."""
        table = RichTable(title=self.title, title_justify="left")
        for name in self.header:
            table.add_column(name, justify="left" if name == self.header[0] else "right")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        """The same as Markdown."""
        rule = ["---", *("---:" for _ in self.header[1:])]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.header, rule, *self.rows)]
        return f"**{self.title}**\n\n" + "\n".join(lines)


def threads_text(threads: int) -> str:
    """How a number of threads is written in a table."""
    return "1 core" if threads == 1 else f"{threads} cores"


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if math.isnan(value):
        return "–"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if value else "0"


def place() -> tuple[str, str]:
    """The machine and the commit, as the files in results/ have them."""
    sys.path.append(str(ROOT / "experiments"))
    import table

    return table.machine(), table.commit()


def write_csv(path: Path, results: Iterable[Result], command: str) -> None:
    """One row for each implementation, size and number of threads."""
    machine, commit = place()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for result in results:
            for name, figures in result.figures.items():
                peak = "" if math.isnan(figures.peak_mib) else f"{figures.peak_mib:.6g}"
                row = (result.workload, name, result.threads, f"{figures.seconds:.6g}", peak, machine, command, commit)
                writer.writerow(row)


def fill(page: Path, text: str) -> None:
    """Replace the measured part of a page, which stands between two marks, and leave what was written by hand."""
    before, rest = page.read_text(encoding="utf-8").split(START)
    page.write_text(f"{before}{START}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def provenance(results: Sequence[Result], command: str, seconds: float) -> str:
    """One paragraph: what was run, where, with which versions."""
    machine, commit = place()
    versions = {k: v for result in results for f in result.figures.values() for k, v in f.versions.items()}
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"`{command}` on {machine}; commit {commit or 'unknown'}; {seconds / 60:.0f} minutes; Python {python}, {said}."
    )
