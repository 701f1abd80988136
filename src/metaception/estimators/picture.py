"""The picture of an adaptation to images: the support set, and the queries as predicted."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SHOTS, QUERIES = 5, 8
"""So many support images of a class are drawn, and so many queries that were taken for it, the surest first."""
_RIGHT, _WRONG, _UNKNOWN = "#0072b2", "#d55e00", "#555555"


def draw(
    title: str,
    classes: Sequence[str],
    *,
    support: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    chances: np.ndarray,
    truth: list[str | None],
) -> bytes:
    """Each row a class: its support images, then the queries that were taken for it, with their probability.

    Args:
        title: the first line.
        classes: their names.
        support: [k, height, width, channels], from 0 to 1.
        labels: [k], places in `classes`.
        queries: [n, height, width, channels].
        chances: [n, classes].
        truth: [n], the queries' classes; None where it is not known.

    Returns:
        A PNG.
    """
    said = chances.argmax(axis=1) if len(chances) else np.zeros(0, int)
    rows = []
    for label in range(len(classes)):
        taken = np.flatnonzero(said == label)
        rows.append((np.flatnonzero(labels == label), taken[np.argsort(-chances[taken, label], kind="stable")]))
    shots = min(SHOTS, max(len(own) for own, _ in rows))
    columns = shots + max(1, min(QUERIES, max(len(taken) for _, taken in rows)))
    figure = Figure(figsize=(1.1 * columns + 1.6, 1.3 * len(classes) + 0.9), layout="constrained")
    axes = figure.subplots(len(classes), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")

    def show(axis: Any, image: np.ndarray, note: str, colour: str) -> None:
        axis.axis("on")
        axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_title(note, fontsize=8, color=colour)
        axis.spines[:].set(color=colour, linewidth=2)

    for row, (own, taken), name in zip(axes, rows, classes, strict=True):
        for axis, index in zip(row[:shots], own.tolist(), strict=False):
            show(axis, support[index], _short(name), "black")
        for axis, index in zip(row[shots:], taken.tolist(), strict=False):
            colour = _UNKNOWN if truth[index] is None else _RIGHT if truth[index] == name else _WRONG
            show(axis, queries[index], f"{chances[index].max():.0%}", colour)
        if len(taken) > QUERIES:
            row[-1].set_xlabel(f"and {len(taken) - QUERIES:,} more", fontsize=8)
    key = "; blue: right, orange: wrong" if any(known is not None for known in truth) else ""
    figure.suptitle(f"{title}\nsupport images (black frames), then the queries taken for that class{key}", fontsize=9)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def _short(name: str) -> str:
    # Names that begin alike often end differently. A $ would start a formula.
    return (name if len(name) <= 16 else f"{name[:7]}…{name[-8:]}").replace("$", r"\$")
