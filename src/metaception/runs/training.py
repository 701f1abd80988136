"""The training loop: compiled stretches of outer steps; between them the host logs, validates, saves and may stop."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metaception.core.algorithm import MetaAlgorithm
from metaception.core.task import Task, TaskDistribution, as_tasks
from metaception.runs import processes
from metaception.runs.arrays import describe, on_device
from metaception.runs.compilation import use_compilation_cache
from metaception.runs.errors import UsageError, diverged, is_out_of_memory, out_of_memory, stopped
from metaception.runs.folder import RunFolder
from metaception.runs.loop import Loop, Snapshot
from metaception.runs.memory import check_fits
from metaception.runs.pace import Pace
from metaception.runs.progress import Progress, choose
from metaception.runs.record import Record
from metaception.runs.run import TrainedRun
from metaception.runs.signals import Signals


def train(
    algorithm: MetaAlgorithm,
    *,
    steps: int,
    seed: int = 0,
    seeds: int = 1,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    validation: TaskDistribution | Callable[[Any], Task] | None = None,
    validation_tasks: int = 100,
    log_every: int | None = None,
    validate_every: int | None = None,
    checkpoint_seconds: float = 30.0,
    patience: int = 100,
    progress: bool | None = None,
    preset: dict[str, Any] | None = None,
    resume_command: str | None = None,
) -> TrainedRun:
    """Meta-train.

    Whole stretches of outer steps are one compiled program; the host meets them only to log, validate, save and stop.
    Where stretches, checkpoints and interruptions fall changes no bit of the result.

    Args:
        algorithm: what to train.
        steps: outer steps.
        seed: the first seed.
        seeds: how many independent trainings, with the seeds `seed`, `seed + 1`, …
        folder: where to keep the run; without it, nothing is written.
        resume: go on with the run in `folder` after its last whole checkpoint (or start it, if there is none yet).
        validation: what validation tasks are drawn from; the training's distribution unless given, on other keys.
        validation_tasks: how many; the same ones every time and for every seed.
        log_every: outer steps a row of metrics; a hundredth of `steps` (at most 1,000) unless given.
        validate_every: outer steps between validations, a multiple of `log_every`; every row unless given.
        checkpoint_seconds: the least time between two checkpoints; the last one is always saved.
        patience: stop after so many outer steps in a row whose meta-gradient was not finite.
        progress: True: shown, on a terminal or as a few lines. False: not. None: on a terminal only.
        preset: the settings that `algorithm` was built from, for the configuration in the folder.
        resume_command: what continues this run from the command line, told to who stops it.

    Returns:
        What was trained.

    Raises:
        UsageError: before any work: impossible values, a folder that exists, is not a run or was started otherwise.
        RunError: another process writes the folder; a full disk; `Diverged`; `OutOfMemory`.
        Stopped: SIGINT or SIGTERM came, and the folder has all there was.

    Examples:
        >>> import metaception as mc
        >>> algorithm = mc.MAML().build(mc.mlp(1, 1, widths=(8,)), mc.Sinusoids())
        >>> run = mc.train(algorithm, steps=20)
        >>> run.step
        20
    """
    log_every = min(max(1, steps // 100), 1000) if log_every is None else log_every
    validate_every = log_every if validate_every is None else validate_every
    settings = {
        "steps": steps,
        "seed": seed,
        "seeds": seeds,
        "validation_tasks": validation_tasks,
        "log_every": log_every,
        "validate_every": validate_every,
        "patience": patience,
    }
    _check(settings, checkpoint_seconds, resume, folder)
    if not isinstance(algorithm, MetaAlgorithm):
        raise UsageError(
            f"train: expected a MetaAlgorithm, not {algorithm!r}; build one first: mc.MAML().build(model, tasks)."
        )
    if validation is None and algorithm.tasks.finite:
        warnings.warn(
            "validation tasks are drawn from the training tasks; give others (validation=...), as ArrayTasks.split and "
            "ImageSet.split make them.",
            stacklevel=2,
        )
    validation = algorithm.tasks if validation is None else as_tasks(validation)
    check_fits(algorithm, seeds)
    all_seeds = list(range(seed, seed + seeds))
    config = {"preset": preset, "algorithm": None if preset else describe(algorithm), "run": settings}
    run_folder = RunFolder(folder) if folder is not None and processes.writes() else None

    with contextlib.ExitStack() as stack:
        if run_folder is not None:
            _open(run_folder, config, resume, stack)
        use_compilation_cache()
        loop = Loop(
            algorithm,
            all_seeds,
            validation=validation,
            validation_tasks=validation_tasks,
            patience=patience,
        )
        try:
            signals = stack.enter_context(Signals()) if folder is not None else None
            record, snapshot = Record.open(run_folder, loop, all_seeds, resume=resume)
            stack.callback(record.close)
            shown = choose(progress if processes.writes() else False)
            name = preset["name"] if preset else type(algorithm.learner).__name__
            shown.start(name if seeds == 1 else f"{name}, {seeds} seeds", snapshot.step, steps)
            stack.callback(shown.stop)
            snapshot = _run(
                loop,
                snapshot,
                record=record,
                shown=shown,
                signals=signals,
                settings=settings,
                checkpoint_seconds=checkpoint_seconds,
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise out_of_memory(algorithm, seeds, error) from error
            raise
        if signals is not None and snapshot.step < steps and signals.received:
            again = resume_command or f"{shlex.join([sys.executable, *sys.argv])} (with resume=True)"
            raise stopped(signals.received, snapshot.step, steps, again)
        in_a_row = np.asarray(snapshot.state.skipped_in_a_row)
        if (in_a_row >= patience).any():
            bad = [s for s, count in zip(all_seeds, in_a_row, strict=True) if count >= patience]
            raise diverged(algorithm, snapshot.step, patience, bad)
    where = Path(folder) if folder is not None else None
    return TrainedRun(algorithm, all_seeds, on_device(snapshot), record.rows, config, where)


def _run(
    loop: Loop,
    snapshot: Snapshot,
    *,
    record: Record,
    shown: Progress,
    signals: Signals | None,
    settings: dict[str, Any],
    checkpoint_seconds: float,
) -> Snapshot:
    """From `snapshot` to the last outer step, a signal, or the end of patience; saved in any case."""
    steps, log_every, patience = settings["steps"], settings["log_every"], settings["patience"]
    pace = Pace()
    saved = time.monotonic()
    if record.fresh:
        snapshot = _note(loop, snapshot, record, settings, pace)
    shown.update(snapshot.step, record.latest)
    while True:
        step = snapshot.step
        received, size = processes.agree(signals.received if signals else 0, pace.size)
        spent = int(np.asarray(snapshot.state.skipped_in_a_row).max()) >= patience
        if signals is not None and received:
            signals.received = received
        if step >= steps or spent or received:
            break
        boundary = min(steps, (step // log_every + 1) * log_every)
        began = time.monotonic()
        snapshot = loop.advance(snapshot, min(boundary, step + size))
        pace.observe(snapshot.step - step, time.monotonic() - began)
        if snapshot.step == boundary:
            snapshot = _note(loop, snapshot, record, settings, pace)
        shown.update(snapshot.step, record.latest)
        if time.monotonic() - saved >= checkpoint_seconds:
            record.save(snapshot)
            saved = time.monotonic()
    record.save(snapshot)
    return snapshot


def _note(loop: Loop, snapshot: Snapshot, record: Record, settings: dict[str, Any], pace: Pace) -> Snapshot:
    """Write a row of metrics: the means since the last one, and the validation losses where they are due."""
    step = snapshot.step
    row: dict[str, Any] = {"step": step}
    if step:
        taken = np.asarray(snapshot.taken)
        with np.errstate(invalid="ignore"):
            row |= {name: np.asarray(total) / taken.astype(np.float32) for name, total in snapshot.sums.items()}
    row["skipped"] = np.asarray(snapshot.state.skipped)
    if step % settings["validate_every"] == 0 or step == settings["steps"]:
        snapshot, figures = loop.validate(snapshot)
        row |= figures
    record.write(row, pace.row(step))
    zeros = ({name: np.zeros_like(total) for name, total in snapshot.sums.items()}, np.zeros_like(snapshot.taken))
    sums, taken = loop.place(zeros)
    return snapshot._replace(sums=sums, taken=taken)


def _open(folder: RunFolder, config: dict[str, Any], resume: bool, stack: contextlib.ExitStack) -> None:
    """Make a new run's folder, or see that an old one is the run that is asked for; hold it against other writers."""
    if not resume or not folder.path.exists() or (folder.path.is_dir() and not any(folder.path.iterdir())):
        folder.create(config)
    changed = folder.compare(config)
    stack.enter_context(folder.lock())
    if changed:
        listed = "; ".join(changed)
        warnings.warn(
            f"{folder.path}: the run goes on, but its bits may differ, for it was started with {listed}.", stacklevel=3
        )


def _check(
    settings: dict[str, Any], checkpoint_seconds: float, resume: bool, folder: str | os.PathLike[str] | None
) -> None:
    least = {
        "steps": 0,
        "seed": 0,
        "seeds": 1,
        "validation_tasks": 1,
        "log_every": 1,
        "validate_every": 1,
        "patience": 1,
    }
    for name, low in least.items():
        value = settings[name]
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < low:
            raise UsageError(f"{name}={value}; expected a whole number, {low} or more.")
    if settings["seed"] + settings["seeds"] > 2**32:
        raise UsageError(f"seed={settings['seed']}; expected seeds below 2³² = {2**32:,}.")
    if settings["validate_every"] % settings["log_every"]:
        raise UsageError(
            f"validate_every={settings['validate_every']} is not a multiple of log_every={settings['log_every']}; a "
            "validation is part of a row of metrics."
        )
    if not checkpoint_seconds >= 0:
        raise UsageError(f"checkpoint_seconds={checkpoint_seconds}; expected 0 or more.")
    if resume and folder is None:
        raise UsageError("resume=True without a folder; give the folder of the run to go on with.")
