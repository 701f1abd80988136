"""Metrics: rows of figures that depend on the configuration alone, and, kept apart, what the clock said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from metaception.runs.files import plain


class Metrics:
    """The metrics of a run folder.

    `metrics.jsonl` has one row a line and no wall-clock field, so that a run that was killed and resumed ends with the same
    bytes; `timing.jsonl` has the wall clock; `tensorboard/` has both for TensorBoard.

    Args:
        folder: the run folder.
        step: outer steps already done; what is there of later ones was written by a process that died, and goes.
        seeds: the run's seeds, for the names in TensorBoard.
    """

    def __init__(self, folder: Path, step: int, seeds: list[int]):
        # Only here: TensorBoard's writer takes a moment to import, and most commands do not need it.
        from tensorboardX import SummaryWriter  # noqa: PLC0415

        self._path, self._timing = folder / "metrics.jsonl", folder / "timing.jsonl"
        self._seeds = seeds
        self.rows = _cut(self._path, step)
        _cut(self._timing, step)
        purge = {"purge_step": step + 1} if step or self.rows else {}
        self._board = SummaryWriter(str(folder / "tensorboard"), **purge)

    def write(self, row: dict[str, Any], timing: dict[str, Any]) -> None:
        """Add a row, and its wall-clock figures; both are on the disk when this returns."""
        _append(self._path, row)
        _append(self._timing, timing)
        self.rows.append(plain(row))
        for name, values in row.items():
            if name == "step":
                continue
            for seed, value in zip(self._seeds, values, strict=True):
                tag = name if len(self._seeds) == 1 else f"{name}/seed_{seed}"
                self._board.add_scalar(tag, float(value), row["step"])
        self._board.add_scalar("time/steps_per_second", timing["steps_per_second"], row["step"])
        self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        self._board.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a JSONL file; a torn last line is left out."""
    return [row for _, row in _whole_rows(path)]


def clock(folder: Path) -> dict[int, float]:
    """The seconds of training at each row of a run, in all processes that went on with it: outer step -> seconds."""
    times, before, last = {}, 0.0, 0.0
    for row in read_rows(folder / "timing.jsonl"):
        if row["seconds"] < last:  # another process, whose clock began anew
            before += last
        last = row["seconds"]
        times[row["step"]] = before + last
    return times


def _whole_rows(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    rows = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n"):
            break
        rows.append((line, row))
    return rows


def _cut(path: Path, step: int) -> list[dict[str, Any]]:
    """Cut the rows after `step` off a JSONL file, and a torn last line; returns the rows that stay."""
    kept = [(line, row) for line, row in _whole_rows(path) if row["step"] <= step]
    if path.exists():
        os.truncate(path, sum(len(line) for line, _ in kept))
    return [row for _, row in kept]


def _append(path: Path, row: dict[str, Any]) -> None:
    with open(path, "ab") as file:
        file.write(json.dumps(plain(row), allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
