"""Tables of a network's layers: similarities, and figures with layers frozen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from metaception.analysis.freezing import change
from metaception.analysis.names import LABELS, frozen_names
from metaception.analysis.representation import Similarity
from metaception.evaluation.curves import Evaluation


def similarity_table(similarity: Similarity, title: str) -> Group:
    """A row a layer, a column a measure: the mean and its interval, the floor below. It fits 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("layer")
    table.add_column("neurons\n[dim]rows[/dim]", justify="right")
    for label in LABELS.values():
        table.add_column(f"{label}\n[dim]floor[/dim]", justify="right")
    parts = {name: [getattr(similarity, what)(name) for what in ("mean", "interval", "floor")] for name in LABELS}
    for layer, (name, neurons, rows) in enumerate(
        zip(similarity.names, similarity.neurons, similarity.rows, strict=True)
    ):
        cells = [_cell(*(part[layer] for part in parts[measure])) for measure in LABELS]
        table.add_row(name, f"{neurons:,}\n[dim]{rows:,}[/dim]", *cells)
    # Above it and not as its title, which would be broken to the table's width.
    return Group(Text(title, style="italic"), table)


def _cell(mean: float, interval: float, floor: float) -> str:
    if not np.isfinite(mean):
        return "–"
    spread = f" ± {interval:.3f}" if np.isfinite(interval) else ""
    return f"{mean:.3f}{spread}\n[dim]{floor:.3f}[/dim]"


def refusals(similarity: Similarity, tasks: int) -> Iterator[str]:
    """Where a measure could not be taken in all tasks, and why; the same reason once for all of a layer's measures."""
    for layer, name in enumerate(similarity.names):
        reasons: dict[tuple[int, str], list[str]] = {}
        for measure, label in LABELS.items():
            if (measure, layer) in similarity.refusals:
                # Each message starts with the name of the function that refused.
                reason = similarity.refusals[measure, layer].partition(": ")[2]
                reasons.setdefault((int(similarity.measured(measure)[layer]), reason), []).append(label)
        for (measured, reason), labels in reasons.items():
            yield f"layer {name}, {', '.join(labels)}: measured in {measured} of {tasks} tasks; {reason}"


def freezing_table(frozen: Evaluation, title: str, *, percent: bool) -> Group:
    """A row for each number of frozen layers: the figure, and what it is changed by."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("frozen layers")
    table.add_column("accuracy" if percent else "mse", justify="right")
    table.add_column("change from none", justify="right")
    changed = change(frozen)
    scale, digits = (100, 2) if percent else (1, 3)
    for row, name in enumerate(frozen_names(len(frozen.mean) - 1)):
        value = f"{scale * frozen.mean[row]:.{digits}f} ± {scale * frozen.interval[row]:.{digits}f}"
        difference = f"{scale * changed.mean[row]:+.{digits}f} ± {scale * changed.interval[row]:.{digits}f}"
        table.add_row(name, value, difference if row else "")
    return Group(Text(title, style="italic"), table)
