"""Figures that the papers print, to stand beside ours."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One printed figure.

    Attributes:
        value: the figure.
        source: where it stands.
    """

    value: float
    source: str


_TABLE_2 = "Finn et al. 2017, supplementary table 2 (5-shot sinusoid, mean squared error)"

SINUSOID: dict[tuple[str, int, int], Published] = {
    (method, 5, step): Published(value, _TABLE_2)
    for method, values in {
        "maml": {1: 0.67, 5: 0.38, 10: 0.35},
        "pretrain": {1: 2.41, 5: 2.23, 10: 2.19},
    }.items()
    for step, value in values.items()
}
"""(method, shots, inner steps) -> the mean squared error that its paper prints for the sinusoid of Finn et al. 2017."""
