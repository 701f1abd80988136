"""The lasting side of a run: rows of metrics and checkpoints in its folder, or in memory alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metaception.runs import processes
from metaception.runs.arrays import named, unnamed
from metaception.runs.files import disk_errors, plain
from metaception.runs.folder import RunFolder
from metaception.runs.loop import Loop, Snapshot
from metaception.runs.metrics import Metrics

if TYPE_CHECKING:
    from metaception.runs.checkpoints import Checkpoints


class Record:
    """Where rows and snapshots go.

    Args:
        metrics, checkpoints: those of the folder; None for a run in memory, or for a process that does not write.
        fresh: whether the run starts at its beginning; all processes agree on it.

    Attributes:
        rows: the rows of metrics so far.
    """

    def __init__(self, metrics: Metrics | None, checkpoints: Checkpoints | None, *, fresh: bool):
        self._metrics, self._checkpoints = metrics, checkpoints
        self.fresh = fresh
        self.rows: list[dict[str, Any]] = [] if metrics is None else metrics.rows

    @classmethod
    def open(cls, folder: RunFolder | None, loop: Loop, seeds: list[int], *, resume: bool) -> tuple[Record, Snapshot]:
        """The record, and the snapshot that the run starts from: a checkpoint's, or a fresh one."""
        # Only here: Orbax takes a moment to import, and a run in memory does without.
        from metaception.runs.checkpoints import Checkpoints  # noqa: PLC0415

        shapes = loop.shapes()
        checkpoints = None if folder is None else Checkpoints(folder.checkpoints, writing=True)
        arrays = None
        if resume:
            restored = None if checkpoints is None else checkpoints.restore(shapes)
            arrays = processes.from_writer(
                None if restored is None else named(restored[1]), named(shapes, shapes_only=True)
            )
        snapshot = loop.start() if arrays is None else loop.place(unnamed(arrays, shapes))
        metrics = None
        if folder is not None and checkpoints is not None:
            step = -1 if arrays is None else snapshot.step
            checkpoints.discard_after(step)
            metrics = Metrics(folder.path, step, seeds)
        return cls(metrics, checkpoints, fresh=arrays is None), snapshot

    @property
    def latest(self) -> dict[str, Any]:
        """The latest row; empty before the first."""
        return self.rows[-1] if self.rows else {}

    def write(self, row: dict[str, Any], timing: dict[str, Any]) -> None:
        """Add a row of metrics.

        Raises:
            RunError: where the disk is full.
        """
        if self._metrics is None:
            self.rows.append(plain(row))
            return
        with disk_errors("the metrics", "Free some space, then go on from the last checkpoint with --resume."):
            self._metrics.write(row, timing)

    def save(self, snapshot: Snapshot) -> None:
        """Save a snapshot, unless the run is in memory."""
        if self._checkpoints is not None:
            self._checkpoints.save(snapshot.step, snapshot)

    def close(self) -> None:
        """Close the files."""
        if self._metrics is not None:
            self._metrics.close()
        if self._checkpoints is not None:
            self._checkpoints.close()
