"""Pictures of a run: adaptation on three tasks, the loss over inner steps, training."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from metaception.core.files import write_atomically
from metaception.core.learner import Iterative, Meta, advance
from metaception.core.streams import stream_key
from metaception.core.task import Task
from metaception.domains.classification.image_tasks import ImageTasks
from metaception.methods.method import with_statistics
from metaception.runs.files import disk_errors
from metaception.runs.metrics import clock, read_rows
from metaception.runs.preset import Preset
from metaception.runs.run import TrainedRun
from metaception.runs.testing import Results, policy_text, published, statistics_of, tuned_learner

_STEPS = (0, 1, 10)
_COLOURS = {0: "#9aa5b1", 1: "#e69f00", 10: "#0072b2"}


def draw_pictures(run: TrainedRun, preset: Preset, results: Results) -> list[Path]:
    """Draw all pictures of a run into its folder; returns where they are."""
    assert run.folder is not None
    images = isinstance(preset.tasks, ImageTasks)
    first = {"episode": episode(run, preset)} if images else {"adaptation": adaptation(run, preset)}
    figures = {**first, "inner_steps": inner_steps(results)}
    if run.step:
        figures["training"] = training(run)
    with disk_errors("the pictures", "Free some space, then run `metaception plot` on the run."):
        return save_pictures(run.folder / "pictures", figures)


def save_pictures(folder: Path, figures: dict[str, Figure]) -> list[Path]:
    """Write pictures into a folder, each under its name; returns where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        content = io.BytesIO()
        FigureCanvasAgg(figure).print_png(content)
        write_atomically(paths[-1], content.getvalue())
    return paths


def adaptation(run: TrainedRun, preset: Preset) -> Figure:
    """Three test tasks: the true curve, the support points, and the prediction before and after 1 and 10 inner steps."""
    shots = preset.test.test_shots[-1]
    tasks = preset.test_distribution(shots)
    changes: dict[str, Any] = {"noise": 0.0}
    clean = dataclasses.replace(tasks, **changes)
    learner = tuned_learner(run, shots)
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, key in zip(axes, jax.random.split(stream_key(preset.test.test_seed, "test"), 3), strict=True):
        # With the same key, the task without noise is the curve that the noisy points are from.
        task, truth = tasks.sample(key), clean.sample(key).query
        x = np.asarray(truth.inputs)[:, 0]
        axis.plot(x, np.asarray(truth.targets)[:, 0], color="black", linestyle="--", linewidth=1.2, label="true curve")
        for step, y in _predictions(learner, run.meta(), task).items():
            label = "before adaptation" if step == 0 else f"after {step} step{'s' * (step > 1)}"
            axis.plot(x, np.asarray(y)[:, 0], color=_COLOURS[step], linewidth=1.8, label=label)
        support = task.support
        axis.plot(np.asarray(support.inputs)[:, 0], np.asarray(support.targets)[:, 0], "k^", label="support points")
        axis.set_xlabel("x")
    axes[0].set_ylabel("y")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(f"{preset.name}: adaptation to three test tasks, {_shots(shots)}")
    return figure


def episode(run: TrainedRun, preset: Preset) -> Figure:
    """A test episode: each row a class, its support images, then its queries as they are classified after adaptation."""
    assert isinstance(preset.tasks, ImageTasks)
    shots, queries = preset.test.test_shots[-1], max(preset.test.test_queries, 3)
    tasks = preset.tasks.test_tasks(shots, queries)
    task = tasks.sample(stream_key(preset.test.test_seed, "test"))
    learner, policy = tuned_learner(run, shots), statistics_of(preset)
    # What training tasks had after each step is not at hand for one episode; the picture says what it took instead.
    policy = preset.method.statistics if policy == "per_step" else policy
    if policy and hasattr(learner, "statistics"):
        learner = with_statistics(learner, policy)  # type: ignore[arg-type]
    logits = _after(learner, stream_key(0, "test"), run.meta(), task, preset.test.test_steps)
    chances = np.asarray(jax.nn.softmax(logits))
    ways = preset.tasks.ways  # a model may have more outputs
    shown_shots, shown_queries = min(shots, 5), min(queries, 8)
    columns = shown_shots + shown_queries
    figure = Figure(figsize=(1.1 * columns + 0.6, 1.25 * ways + 0.8), layout="constrained")
    support, query = (np.asarray(half.inputs).reshape(ways, -1, *half.inputs.shape[1:]) for half in task)
    axes = figure.subplots(ways, columns, squeeze=False)
    for label in range(ways):
        for column in range(columns):
            axis = axes[label, column]
            is_support = column < shown_shots
            picture = support[label, column] if is_support else query[label, column - shown_shots]
            axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            if is_support:
                axis.set_title(f"class {label}", fontsize=8)
                continue
            chance = chances[label * queries + column - shown_shots]
            said = int(chance.argmax())
            colour = "#0072b2" if said == label else "#d55e00"
            axis.set_title(f"{said} ({chance[said]:.0%})", fontsize=8, color=colour)
            for spine in axis.spines.values():
                spine.set(color=colour, linewidth=2)
    shown = f"{shown_shots} support image{'s' * (shown_shots > 1)} a class, then queries"
    after = f"after {preset.test.test_steps} inner steps" if isinstance(learner, Iterative) else ""
    heading = f"{preset.name}{policy_text(policy)}\n{shown}\nand what they are taken for {after}\n(orange: wrongly)"
    figure.suptitle(heading, fontsize=9)
    return figure


def _predictions(learner: Any, meta: Meta, task: Task) -> dict[int, Array]:
    """Predictions for the query inputs after each of `_STEPS` inner steps; for a learner without steps, after adaptation."""
    key = stream_key(0, "test")
    if not isinstance(learner, Iterative):
        return {10: learner.predict(learner.adapt(key, meta, task.support), task.query.inputs)}
    return {step: _after(learner, key, meta, task, step) for step in _STEPS}


@eqx.filter_jit
def _after(learner: Any, key: Any, meta: Meta, task: Task, steps: int) -> Array:
    if not isinstance(learner, Iterative):
        return learner.predict(learner.adapt(key, meta, task.support), task.query.inputs)
    key_init, key_steps = jax.random.split(key)
    state = learner.init(key_init, meta, task.support)
    state, _ = advance(learner, key_steps, meta, state, task.support, length=steps)
    return learner.predict(learner.output(meta, state), task.query.inputs)


def inner_steps(results: Results) -> Figure:
    """The mean test loss over inner steps with its 95 % interval, a curve for each number of shots; crosses: the paper's.

    A learner that adapts without steps has a point with an error bar for each number of shots.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    at_once = all(len(curve["mean"]) == 1 for curve in results.curves)
    for place, curve in enumerate(results.curves):
        mean, interval = np.asarray(curve["mean"], float), np.nan_to_num(np.asarray(curve["interval"], float))
        steps = np.arange(len(mean)) + (place if at_once else 0)
        line = axis.plot(steps, mean, marker="o", markersize=3, label=_shots(curve["shots"]))[0]
        if at_once:
            axis.errorbar(steps, mean, interval, color=line.get_color(), capsize=4)
        else:
            axis.fill_between(steps, mean - interval, mean + interval, color=line.get_color(), alpha=0.2, linewidth=0)
        printed = {
            int(steps[step]): found.value
            for step in range(len(mean))
            if (found := published(results, curve["shots"], step))
        }
        if printed:
            label = f"{_shots(curve['shots'])}, the paper"
            axis.plot(list(printed), list(printed.values()), "x", color="black", zorder=3, label=label)
    if at_once:
        axis.set_xticks([])
        axis.set_xlim(-1, len(results.curves))
        axis.set_xlabel("after adaptation, which has no steps")
    else:
        axis.set_xlabel("inner steps")
    what = "accuracy" if results.measure == "accuracy" else "loss"
    axis.set_ylabel(f"mean test {what}, 95 % interval")
    axis.set_title(f"{results.name}{results.policy}")
    axis.set_ylim(bottom=0, top=1 if results.measure == "accuracy" else None)
    if results.measure == "accuracy":
        axis.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axis.legend()
    return figure


def _shots(count: int) -> str:
    return f"{count} shot{'s' * (count != 1)}"


def over_time(folders: dict[str, Path]) -> Figure:
    """What validation tasks say of several runs over the minutes that each was trained for: a curve a run, the mean over
    its seeds; the accuracy after adaptation where all runs have it, else the loss.

    Args:
        folders: name -> the run's folder.
    """
    rows = {name: read_rows(folder / "metrics.jsonl") for name, folder in folders.items()}
    accurate = all(any("validation_accuracy" in row for row in own) for own in rows.values())
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    column = "validation_accuracy" if accurate else "validation_after"
    for place, (name, folder) in enumerate(folders.items()):
        times = clock(folder)
        style = ("-", "--", ":")[place // 10 % 3]  # there are ten colours
        points = [
            (times[row["step"]] / 60, np.mean(row[column]))
            for row in rows[name]
            if column in row and None not in row[column] and row["step"] in times
        ]
        if points:
            axis.plot(*np.array(points).T, marker=".", linestyle=style, linewidth=1.2, label=name)
    axis.set_xlabel("minutes of training")
    axis.set_ylabel(f"validation {'accuracy' if accurate else 'loss'} after adaptation")
    if accurate:
        axis.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small", ncols=1 + len(folders) // 7)
    return figure


def training(run: TrainedRun) -> Figure:
    """The training loss and the validation losses over outer steps, the mean over the seeds."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    drawn: dict[str, np.ndarray] = {}
    for name, label in {
        "loss": "training loss",
        "validation_before": "validation, before adaptation",
        "validation_after": "validation, after adaptation",
    }.items():
        rows = [row for row in run.rows if name in row and None not in row[name]]
        if rows:
            drawn[label] = np.array([(row["step"], np.mean(row[name])) for row in rows])
    before, after = drawn.get("validation, before adaptation"), drawn.get("validation, after adaptation")
    if before is not None and after is not None and np.array_equal(before, after):
        # A method without an inner loop in training: one curve, which would lie under the other.
        drawn["validation, no adaptation in training"] = drawn.pop("validation, before adaptation")
        del drawn["validation, after adaptation"]
    for label, points in drawn.items():
        axis.plot(*points.T, label=label, linewidth=1.2)
    axis.set_title(run.preset.name if run.preset else type(run.algorithm.learner).__name__)
    axis.set_xlabel("outer steps")
    axis.set_ylabel("loss")
    values = np.concatenate([points[:, 1] for points in drawn.values()]) if drawn else np.ones(1)
    if np.nanmax(values) > 5 * np.nanmin(values) > 0:
        axis.set_yscale("log")
    axis.legend()
    return figure
