"""Checkpoints: the last few snapshots of a run, each with a digest of its bits, through Orbax."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from metaception.runs.arrays import digest, named, unnamed
from metaception.runs.errors import RunError
from metaception.runs.files import disk_errors

KEEP = 3
"""How many of the latest checkpoints are kept."""

_DIGEST = "sha256"


class Checkpoints:
    """The checkpoints of a run folder. One process writes them, however many train.

    Args:
        folder: the folder that holds them.
        writing: whether this process is the one that writes, and may clear away what died half-written.
    """

    def __init__(self, folder: Path, *, writing: bool):
        # Orbax tells the root logger at length what it does; a reader of ours wants none of it.
        logging.getLogger("absl").setLevel(logging.ERROR)
        index = jax.process_index()
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEEP,
                create=False,
                read_only=not writing,
                cleanup_tmp_directories=writing,
                enable_async_checkpointing=False,
                # This process alone: what is saved are host copies, and no barrier can hang.
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"metaception{index}"
                ),
            ),
        )

    def save(self, step: int, snapshot: PyTree) -> None:
        """Save the snapshot after `step` outer steps; it is on the disk, whole, when this returns.

        Raises:
            RunError: where the disk is full, or cannot be written; the checkpoints before this one are untouched.
        """
        before = self.steps()
        if step in before:
            return
        arrays = named(snapshot)
        arrays[_DIGEST] = digest(arrays)
        last = f"The checkpoint of step {before[-1]:,} is intact" if before else "There is no checkpoint before it"
        remedy = f"{last}; free some space, then go on with --resume."
        with disk_errors(f"the checkpoint of step {step:,} in {self._folder}", remedy):
            self._manager.save(step, args=ocp.args.Composite(snapshot=ocp.args.StandardSave(arrays)))

    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def restore(self, shapes: PyTree) -> tuple[int, PyTree] | None:
        """The newest checkpoint that is whole, as host arrays; damaged ones are passed over with a warning.

        Args:
            shapes: the shapes and types that it should have.

        Returns:
            Its step and the snapshot; None where there is no checkpoint.

        Raises:
            RunError: where there are checkpoints and all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return step, self._load(step, shapes)
            # Whatever the reader of a damaged file stumbles over: the remedy is the same.
            except Exception as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                warnings.warn(
                    f"the checkpoint of step {step:,} in {self._folder} is damaged, and passed over: {reason}",
                    stacklevel=2,
                )
        if steps:
            raise RunError(
                f"every checkpoint in {self._folder} is damaged (steps {', '.join(f'{s:,}' for s in steps)}), so that this "
                "run cannot go on. Start a new one in another folder."
            )
        return None

    def discard_after(self, step: int) -> None:
        """Remove the checkpoints of later steps: the damaged ones that `restore` passed over."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def close(self) -> None:
        """Let go of Orbax's resources."""
        self._manager.close()

    def _load(self, step: int, shapes: PyTree) -> PyTree:
        wanted = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in named(shapes, shapes_only=True).items()}
        wanted[_DIGEST] = np.zeros(32, np.uint8)
        restored = self._manager.restore(step, args=ocp.args.Composite(snapshot=ocp.args.StandardRestore(wanted)))
        arrays: dict[str, np.ndarray] = dict(restored.snapshot)
        if not np.array_equal(arrays.pop(_DIGEST), digest(arrays)):
            raise ValueError("its bits are not those that were saved")
        for name, array in arrays.items():
            if array.shape != wanted[name].shape or array.dtype != wanted[name].dtype:
                raise ValueError(
                    f"it is of another model ({name} is {array.dtype}{list(array.shape)}, expected "
                    f"{wanted[name].dtype}{list(wanted[name].shape)})"
                )
        return unnamed(arrays, shapes)
