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

_MAML = "Finn et al. 2017, table 1"
_REPTILE = "Nichol et al. 2018, tables 1 and 2"
_LSTM = "Ravi & Larochelle 2017, table 1"
_ANIL = "Raghu et al. 2020, tables 2 and 4"

# Of each method: the policy of batch statistics, the source, and by (ways, shots) the accuracy in percent.
_OMNIGLOT: dict[str, list[tuple[str, str, dict[tuple[int, int], float]]]] = {
    "maml": [("batch", _MAML, {(5, 1): 98.7, (5, 5): 99.9, (20, 1): 95.8, (20, 5): 98.9})],
    "fomaml": [("batch", _REPTILE, {(5, 1): 98.3, (5, 5): 99.2, (20, 1): 89.4, (20, 5): 97.9})],
    "reptile": [
        ("batch", _REPTILE, {(5, 1): 97.68, (5, 5): 99.48, (20, 1): 89.43, (20, 5): 97.12}),
        ("one", _REPTILE, {(5, 1): 95.39, (5, 5): 98.90, (20, 1): 88.14, (20, 5): 96.65}),
    ],
    "anil": [("batch", _ANIL, {(20, 1): 96.2, (20, 5): 98.0})],
    "nil": [("batch", _ANIL, {(20, 1): 96.7, (20, 5): 98.0})],
}
_MINI_IMAGENET: dict[str, list[tuple[str, str, dict[tuple[int, int], float]]]] = {
    "maml": [("batch", _MAML, {(5, 1): 48.70, (5, 5): 63.11})],
    "fomaml": [("batch", _MAML, {(5, 1): 48.07, (5, 5): 63.15})],
    "reptile": [
        ("batch", _REPTILE, {(5, 1): 49.97, (5, 5): 65.99}),
        ("one", _REPTILE, {(5, 1): 47.07, (5, 5): 62.74}),
    ],
    "meta_lstm": [("support", _LSTM, {(5, 1): 43.44, (5, 5): 60.60})],
    "anil": [("batch", _ANIL, {(5, 1): 46.7, (5, 5): 61.5})],
    "nil": [("batch", _ANIL, {(5, 1): 48.0, (5, 5): 62.2})],
}

IMAGES: dict[tuple[str, str, int, int, str], Published] = {
    (images, method, ways, shots, statistics): Published(value, source)
    for images, methods in {"omniglot": _OMNIGLOT, "mini_imagenet": _MINI_IMAGENET}.items()
    for method, groups in methods.items()
    for statistics, source, cells in groups
    for (ways, shots), value in cells.items()
}
"""(set, method, ways, shots, batch statistics at the test) -> the accuracy in percent that a paper prints."""
