"""Where the commands write, and the tables that they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, ConsoleOptions
from rich.table import Table

from metaception.runs.testing import Results, published

INNER_STEPS = (0, 1, 5, 10)
"""The numbers of inner steps that tables show, as far as a run was tested."""


def console() -> Console:
    """Standard output; lines are not broken where it is not a terminal."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=200)
    return out


class ResultsTable:
    """One row a run and number of shots, one column a number of inner steps, the paper's figures below ours.

    Where the terminal is too narrow for it, the intervals stand below the means and only the columns themselves are spaced.
    """

    def __init__(self, all_results: list[Results], title: str):
        self._results, self._title = all_results, title

    def __rich_console__(self, out: Console, options: ConsoleOptions) -> Iterator[Table]:
        wide = _table(self._results, self._title, narrow=False)
        fits = out.measure(wide, options=options.update(width=1_000, max_width=1_000)).maximum <= options.max_width
        yield wide if fits else _table(self._results, self._title, narrow=True)


def _table(all_results: list[Results], title: str, *, narrow: bool) -> Table:
    curves = [curve for results in all_results for curve in results.curves]
    ends = {len(curve["mean"]) - 1 for curve in curves}
    steps = sorted(ends | {step for step in INNER_STEPS if step <= max(ends)})
    tuned = any(curve["rate"] is not None for curve in curves)
    between = "\n" if narrow else " "
    shape = {"box": box.SIMPLE_HEAD, "padding": 0, "collapse_padding": True, "show_edge": False} if narrow else {}
    table = Table(title=title, title_justify="left", caption_justify="left", **shape)  # type: ignore[arg-type]
    table.add_column("run", overflow="fold")
    table.add_column("para-\nmeters" if narrow else "parameters", justify="right")
    table.add_column("shots", justify="right")
    for step in steps:
        table.add_column(f"{step} step{'s' * (step != 1)}", justify="right")
    if tuned:
        table.add_column("rate", justify="right")
    table.add_column("diverged", justify="right")
    for results in all_results:
        for curve in results.curves:
            paper = {step: published(results, curve["shots"], step) for step in steps}
            rate = ["" if curve["rate"] is None else f"{curve['rate']:g}"] if tuned else []
            diverged = f"{max(curve['diverged'])}{between}of {curve['tasks'] * len(results.seeds)}"
            cells = [_cell(results, curve, step, between) for step in steps]
            part = f" (step {results.step:,} of {results.planned:,})" if results.step < results.planned else ""
            table.add_row(results.name + part, f"{results.parameters:,}", str(curve["shots"]), *cells, *rate, diverged)
            if any(paper.values()):
                scale = 100 if results.measure == "accuracy" else 1
                printed = [f"{scale * figure.value:.2f}" if figure else "" for figure in paper.values()]
                table.add_row("  [dim]the paper[/dim]", "", "", *[f"[dim]{cell}[/dim]" for cell in printed])
        table.add_section()
    return table


def _cell(results: Results, curve: dict[str, Any], step: int, between: str) -> str:
    if step >= len(curve["mean"]):
        return ""
    mean, interval = curve["mean"][step], curve["interval"][step]
    if results.measure == "accuracy":
        return f"{100 * mean:.2f}{between}± {100 * interval:.2f}"
    return (
        f"{mean:.3f}{between}± {interval:.3f}"
        if np.isfinite(mean)
        else f"inf{between}(median {curve['median'][step]:.3f})"
    )


def caption(results: Results) -> str:
    """What the figures of a table are."""
    over = "seeds" if len(results.seeds) >= 3 else "tasks"
    seeds = f"{len(results.seeds)} seed{'s' * (len(results.seeds) > 1)}"
    tasks = f"{results.curves[0]['tasks']} held-out tasks"
    which = "the meta-parameters best on validation" if results.which == "best" else "the last meta-parameters"
    what = "accuracy in percent" if results.measure == "accuracy" else "mean squared error"
    what += results.policy
    return f"{what}, {tasks} × {seeds}, ± half a 95 % interval over {over}; {which}, {results.step:,} outer steps"
