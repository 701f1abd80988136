"""Pictures of how alike layers are, and of what freezing them costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metaception.analysis.names import LABELS, frozen_names
from metaception.analysis.representation import Similarity
from metaception.evaluation.curves import Evaluation

_BLUE, _ORANGE = "#0072b2", "#e69f00"
_FLOOR: dict[str, Any] = {"linestyle": ":", "marker": "o", "markersize": 3}


def adaptation_picture(similarity: Similarity, title: str) -> Figure:
    """Similarity before and after adaptation over layers: CCA on the left, CKA on the right, floors dotted."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, measures in zip(axes, (("pwcca", "mean_cca"), ("cka", "cka_debiased")), strict=True):
        axis.set_title("canonical correlations" if "pwcca" in measures else "kernel alignment")
        for place, (measure, colour) in enumerate(zip(measures, (_BLUE, _ORANGE), strict=True)):
            _curve(axis, similarity, measure, label=LABELS[measure], colour=colour, place=(place, 2))
    axes[0].set_ylabel("similarity before and after adaptation")
    _legend(figure, axes)
    figure.suptitle(title)
    return figure


def networks_picture(groups: dict[str, Similarity], title: str) -> Figure:
    """Similarity of independently trained networks over layers, a curve for each two runs, floors dotted."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, measure in zip(axes, ("pwcca", "cka_debiased"), strict=True):
        for place, (name, similarity) in enumerate(groups.items()):
            _curve(axis, similarity, measure, label=name, colour=f"C{place}", place=(place, len(groups)))
        axis.set_title(LABELS[measure])
    axes[0].set_ylabel("similarity of two networks")
    _legend(figure, axes[:1])
    figure.suptitle(title)
    return figure


def freezing_picture(frozen: Evaluation, title: str, ylabel: str, *, percent: bool) -> Figure:
    """The test figure over the number of first layers that are frozen, with its 95 % interval."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    scale = 100.0 if percent else 1.0
    names = frozen_names(len(frozen.mean) - 1)
    places, mean, interval = np.arange(len(names)), scale * frozen.mean, scale * np.nan_to_num(frozen.interval)
    axis.bar(places, mean, yerr=interval, capsize=4, color=_BLUE, alpha=0.8)
    axis.axhline(mean[0], color="black", linewidth=0.8, linestyle="--", label="no layer frozen")
    axis.set_xticks(places, names)
    axis.set_xlabel("layers frozen while adapting (all: before adaptation)")
    axis.set_ylabel(f"{ylabel}, 95 % interval")
    axis.set_ylim(bottom=0, top=100 if percent else None)
    axis.set_title(title)
    figure.legend(loc="outside lower center", frameon=False)
    return figure


def _curve(
    axis: Axes, similarity: Similarity, measure: str, *, label: str, colour: str, place: tuple[int, int]
) -> None:
    """A curve and its floor; the `place` of several moves each a little aside, so that none hides another."""
    mean, interval = similarity.mean(measure), np.nan_to_num(similarity.interval(measure))
    number, of = place
    layers = np.arange(len(mean)) + 0.08 * (number - (of - 1) / 2)
    axis.errorbar(layers, mean, interval, marker="o", markersize=5, capsize=3, color=colour, label=label)
    axis.plot(layers, similarity.floor(measure), color=colour, **_FLOOR)
    axis.set_xticks(np.arange(len(mean)), similarity.names)
    axis.set_xlabel("layer")
    axis.set_ylim(-0.05, 1.05)


def _legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """Below the panels: their curves, and one entry for all floors."""
    handles = [handle for axis in axes for handle in axis.get_legend_handles_labels()[0]]
    handles.append(Line2D([], [], color="grey", label="floor: examples shuffled", **_FLOOR))
    widest = max(len(str(handle.get_label())) for handle in handles)
    figure.legend(handles=handles, loc="outside lower center", ncols=5 if widest < 25 else 2, frameon=False)
