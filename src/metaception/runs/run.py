"""A finished (or interrupted) run, as Python meets it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from metaception.core.algorithm import MetaAlgorithm
from metaception.core.learner import Iterative, Meta, unroll
from metaception.core.streams import stream_key
from metaception.core.task import Examples, Task, TaskDistribution, as_tasks
from metaception.evaluation.curves import Evaluation, evaluate
from metaception.runs.arrays import on_device
from metaception.runs.errors import UsageError
from metaception.runs.folder import RunFolder
from metaception.runs.loop import Loop, Snapshot
from metaception.runs.metrics import read_rows
from metaception.runs.preset import Preset, from_dict

Which = Literal["best", "last"]


@dataclass(frozen=True)
class TrainedRun:
    """What was trained, and what can be done with it.

    Attributes:
        algorithm: the algorithm.
        seeds: the seeds of the independent trainings.
        snapshot: the final state, the seeds along the first axis of every leaf.
        rows: the metrics, a row each.
        config: the configuration.
        folder: where the run is kept, or None.
    """

    algorithm: MetaAlgorithm
    seeds: list[int]
    snapshot: Snapshot
    rows: list[dict[str, Any]]
    config: dict[str, Any]
    folder: Path | None = None

    def __repr__(self) -> str:
        where = f", folder={str(self.folder)!r}" if self.folder else ""
        learner, estimator = type(self.algorithm.learner).__name__, type(self.algorithm.estimator).__name__
        return f"TrainedRun({learner} by {estimator}, step={self.step}, seeds={self.seeds}{where})"

    def __deepcopy__(self, memo: dict[int, Any]) -> TrainedRun:
        # Nothing changes a run; scikit-learn copies an estimator's arguments whenever it clones it.
        del memo
        return self

    @property
    def step(self) -> int:
        """Outer steps done."""
        return self.snapshot.step

    @property
    def preset(self) -> Preset | None:
        """The preset that it was made from, flags included; None for a run that was made from Python."""
        values = self.config["preset"]
        return None if values is None else from_dict(values)

    def metas(self, which: Which = "best") -> Meta:
        """The meta-parameters of all seeds, [seeds, ...]: the `best` on validation, or the `last`.

        A seed whose validation loss was never finite has no best, and gives its last.
        """
        last, best = self.snapshot.state.meta, self.snapshot.best
        if which == "last":
            return last
        some = np.isfinite(np.asarray(best.loss))

        def pick(best: Array, last: Array) -> Array:
            return jnp.where(some.reshape(-1, *[1] * (best.ndim - 1)), best, last)

        return jax.tree.map(pick, best.meta, last)

    def meta(self, which: Which = "best", index: int = 0) -> Meta:
        """The meta-parameters of one seed, by its place in `seeds`."""
        return jax.tree.map(lambda leaf: leaf[index], self.metas(which))

    def adapt(
        self, inputs: Any, targets: Any, *, steps: int | None = None, which: Which = "best", index: int = 0
    ) -> Callable[[Any], Array]:
        """Learn a new task from a few examples.

        Args:
            inputs: array [n, ...], one example a row, as in training.
            targets: array [n, ...].
            steps: inner steps; training's unless given.
            which: the `best` meta-parameters on validation, or the `last`.
            index: which seed's, by its place in `seeds`.

        Returns:
            A function of new inputs [m, ...] to predictions [m, ...].

        Raises:
            UsageError: for shapes that training did not have.

        Examples:
            >>> import numpy as np, metaception as mc
            >>> run = mc.train(mc.MAML().build(mc.mlp(1, 1, widths=(8,)), mc.Sinusoids()), steps=20)
            >>> x = np.linspace(-5, 5, 10)[:, None]
            >>> predict = run.adapt(x, np.sin(x), steps=5)
            >>> predict(x[:3]).shape
            (3, 1)
        """
        inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
        seen = jax.eval_shape(self.algorithm.tasks.sample, jax.random.key(0)).support
        if isinstance(seen, Examples):
            _check_rows("adapt: inputs", inputs, seen.inputs, example="x[:, None]")
            _check_rows("adapt: targets", targets, seen.targets, example="y[:, None]")
        for what, array in (("inputs", inputs), ("targets", targets)):
            if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
                raise UsageError(f"adapt: {what} has entries that are not finite; take those examples out.")
        if inputs.shape[:1] != targets.shape[:1]:
            raise UsageError(
                f"adapt: {inputs.shape[0]} inputs but {targets.shape[0]} targets; every input needs its target."
            )
        learner, meta = self.algorithm.test_learner, self.meta(which, index)
        key, data = stream_key(0, "test"), Examples(inputs, targets)
        if steps is not None and (steps < 0 or not isinstance(learner, Iterative)):
            can = (
                "0 or more" if isinstance(learner, Iterative) else f"none: {type(learner).__name__} has no inner steps"
            )
            raise UsageError(f"adapt: steps={steps}; expected {can}.")
        if isinstance(learner, Iterative):
            adapted = _iterate(learner, key, meta, data, learner.steps if steps is None else steps)
        else:
            adapted = eqx.filter_jit(learner.adapt)(key, meta, data)

        def predict(inputs: Any) -> Array:
            inputs = jnp.asarray(inputs)
            if isinstance(seen, Examples):
                _check_rows("adapt: new inputs", inputs, seen.inputs, example="x[:, None]")
            return _predict(learner, adapted, inputs)

        return predict

    def evaluate(
        self,
        tasks: TaskDistribution | Callable[[Any], Task] | None = None,
        *,
        steps: int = 10,
        count: int = 600,
        seed: int = 0,
        which: Which = "best",
    ) -> Evaluation:
        """Adapt to held-out tasks; the arguments are those of `metaception.evaluate`.

        Where training drew from a finite set (`ArrayTasks`, `Episodes`), a run of a preset is tested on the preset's test
        tasks; any other must be given tasks, for it has seen its own.
        """
        if tasks is None and self.algorithm.tasks.finite:
            preset = self.preset
            if preset is None:
                raise UsageError(
                    "evaluate: the run was trained on a finite set of tasks, so none of it is held out; give other tasks, as "
                    "ArrayTasks.split and ImageSet.split make them."
                )
            tasks = preset.test_distribution(preset.test.test_shots[0])
        tasks = self.algorithm.tasks if tasks is None else as_tasks(tasks)
        seen, given = (jax.eval_shape(t.sample, jax.random.key(0)) for t in (self.algorithm.tasks, tasks))
        for half in Task._fields:
            new, old = getattr(given, half), getattr(seen, half)
            if isinstance(new, Examples) and isinstance(old, Examples):
                _check_rows(f"evaluate: {half} inputs", new.inputs, old.inputs, example="x[..., None]")
                _check_rows(f"evaluate: {half} targets", new.targets, old.targets, example="y[..., None]")
        return evaluate(self.algorithm, self.metas(which), tasks, steps=steps, count=count, seed=seed)


@eqx.filter_jit
def _iterate(learner: Iterative, key: Any, meta: Meta, data: Examples, steps: int) -> PyTree:
    return learner.output(meta, unroll(learner, key, meta, data, length=steps))


@eqx.filter_jit
def _predict(learner: Any, adapted: PyTree, inputs: Float[Array, "..."]) -> Array:
    return learner.predict(adapted, inputs)


def _check_rows(what: str, given: Any, seen: Any, *, example: str) -> None:
    """Refuse an array whose rows are not like those of training."""
    if given.ndim == 0 or given.shape[0] == 0 or given.shape[1:] != seen.shape[1:]:
        row = ", ".join(str(n) for n in ("n", *seen.shape[1:]))
        hint = f"; for example {example}" if given.ndim == 1 and seen.shape[1:] == (1,) else ""
        raise UsageError(f"{what} of shape {given.shape}; training had [{row}], with n of 1 or more{hint}.")


def load_run(folder: str | os.PathLike[str], algorithm: MetaAlgorithm | None = None) -> TrainedRun:
    """Load a run from its folder, finished or not.

    Args:
        folder: the folder; or `glyphs`, the model that ships with the package, where no run has that name.
        algorithm: what was trained, for a run that was not made from a preset; it cannot be rebuilt from the folder.

    Raises:
        UsageError: where the folder is not a run, or has no checkpoint yet, or needs an algorithm.
        RunError: where all of its checkpoints are damaged.

    Examples:
        >>> import tempfile, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> algorithm = mc.MAML(inner_rate=0.25).build(line, mc.Lines())
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     run = mc.train(algorithm, steps=20, folder=f"{parent}/run")
        ...     loaded = mc.load_run(f"{parent}/run", algorithm)
        >>> loaded.step, bool(loaded.meta() == run.meta())
        (20, True)
    """
    from metaception.runs.checkpoints import Checkpoints  # noqa: PLC0415 (Orbax takes a moment to import)

    if not (Path(folder) / "config.json").exists() and algorithm is None:
        from metaception.runs.shipped import SHIPPED, load_shipped  # noqa: PLC0415 (it is made of what stands above)

        if str(folder) in SHIPPED:
            return load_shipped(str(folder))
    where = RunFolder(folder)
    config = where.config()
    settings = config["run"]
    if algorithm is None:
        if config["preset"] is None:
            raise UsageError(
                f"{folder} was trained from Python, and an algorithm cannot be rebuilt from a file; give the one that was "
                "trained: load_run(folder, algorithm)."
            )
        preset = from_dict(config["preset"])
        if preset.method.mapping == "sharded":
            # Trained over many devices, used on one; how many there are here does not matter.
            preset = dataclasses.replace(preset, method=dataclasses.replace(preset.method, mapping="auto"))
        algorithm = preset.build(data=False)
    seeds = list(range(settings["seed"], settings["seed"] + settings["seeds"]))
    loop = Loop(
        algorithm,
        seeds,
        validation=algorithm.tasks,
        validation_tasks=settings["validation_tasks"],
        patience=settings["patience"],
    )
    checkpoints = Checkpoints(where.checkpoints, writing=False)
    try:
        restored = checkpoints.restore(loop.shapes())
    finally:
        checkpoints.close()
    if restored is None:
        raise UsageError(
            f"{folder} has no checkpoint yet; nothing can be loaded from it. Go on with it: train … --resume."
        )
    step, snapshot = restored
    rows = [row for row in read_rows(where.path / "metrics.jsonl") if row["step"] <= step]
    return TrainedRun(algorithm, seeds, on_device(snapshot), rows, config, where.path)
