"""The meta-test of a run, and the figures that are kept of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from metaception.core.algorithm import MetaAlgorithm, itself
from metaception.core.learner import Learner
from metaception.core.model import Model, count_parameters
from metaception.domains.classification.networks import conv_net
from metaception.domains.regression.networks import mlp
from metaception.domains.regression.tasks import Sinusoids
from metaception.evaluation.curves import Evaluation, evaluate, tune_rate
from metaception.evaluation.per_step import check_per_step, per_step_statistics
from metaception.evaluation.published import IMAGES, SINUSOID, Published
from metaception.methods.joint import Oracle
from metaception.methods.method import with_statistics
from metaception.runs.errors import UsageError, is_out_of_memory, out_of_memory_at_test
from metaception.runs.files import disk_errors, write_json
from metaception.runs.preset import MetaTest, Preset
from metaception.runs.run import TrainedRun, Which

FILE = "test.json"
"""The name of the file in a run's results/ that `save_results` writes."""


@dataclass(frozen=True)
class Results:
    """The figures of one run's meta-test.

    Attributes:
        name: the preset's name.
        method: the method's name.
        measure: what the figures are: `mse`, or `accuracy`, from 0 to 1.
        statistics: the policy of batch statistics that the test had, where the network has any; else empty.
        parameters: numbers in the model.
        step: outer steps of the run when it was tested.
        planned: outer steps that it was to take.
        seeds: its seeds.
        which: the `best` meta-parameters on validation, or the `last`.
        test: the settings of the test.
        tasks: what the test tasks were drawn from, as plain values; runs are comparable where these agree.
        curves: for each number of shots, the figures over 0, 1, … inner steps.
    """

    name: str
    method: str
    measure: str
    statistics: str
    parameters: int
    step: int
    planned: int
    seeds: list[int]
    which: str
    test: dict[str, Any]
    tasks: dict[str, Any]
    curves: list[dict[str, Any]]

    def curve(self, shots: int) -> dict[str, Any] | None:
        """The curve of so many shots."""
        return next((curve for curve in self.curves if curve["shots"] == shots), None)

    @property
    def policy(self) -> str:
        """What the caption of a table or a picture adds about batch statistics; nothing where the network has none."""
        return policy_text(self.statistics)


def meta_test(run: TrainedRun, preset: Preset, which: Which = "best") -> Results:
    """Test a run as its preset says: adapt to fixed held-out tasks at each number of shots.

    A baseline that has no meta-learned step size first gets the one that validation tasks choose, for each number of shots.
    """
    check_test(run.algorithm, preset)
    metas = run.metas(which)
    test = preset.test
    curves = []
    for shots in test.test_shots:
        tasks, algorithm, rate = preset.test_distribution(shots), tested_algorithm(run.algorithm, test), None
        if preset.method.tunes_rate:
            tuning = preset.tasks.tuning_tasks(shots, test.test_queries)
            algorithm, rate = tune_rate(algorithm, metas, tuning, steps=test.test_steps)
        tested = metas
        if test.test_statistics == "per_step":
            train_tasks = preset.tasks.train_tasks()
            algorithm, tested = per_step_statistics(algorithm, metas, tasks=train_tasks, steps=test.test_steps)
        try:
            result = evaluate(
                algorithm, tested, tasks, steps=test.test_steps, count=test.test_tasks, seed=test.test_seed
            )._replace(rate=rate)
            if preset.tasks.measure in result.measures:
                result = result.of(preset.tasks.measure)
        except Exception as error:
            if is_out_of_memory(error):
                raise out_of_memory_at_test(error) from error
            raise
        curves.append({"shots": shots, **_figures(result)})
    model = run.algorithm.learner.model  # type: ignore[attr-defined]
    return Results(
        preset.name,
        preset.method.name,
        preset.tasks.measure,
        statistics_of(preset),
        count_parameters(model),
        run.step,
        preset.steps,
        run.seeds,
        which,
        dataclasses.asdict(test),
        {"family": type(preset.tasks).__name__, **tested_on(preset)},
        curves,
    )


def tuned_learner(run: TrainedRun, shots: int) -> Learner:
    """What learns new tasks: the run's, at the step size and number of steps of the run's own test where those were chosen on
    validation tasks.

    Args:
        run: the run; without a folder, or before its test, nothing has been chosen.
        shots: examples (a class); the choice that was made for the nearest number of them is taken.
    """
    learner = run.algorithm.test_learner
    preset, results = run.preset, None if run.folder is None else load_results(run.folder)
    if preset is None or results is None or not preset.method.tunes_rate:
        return learner
    rate = min(results.curves, key=lambda curve: abs(curve["shots"] - shots))["rate"]
    chosen: dict[str, Any] = {"rate": jnp.asarray(rate), "steps": results.test["test_steps"]}
    return dataclasses.replace(learner, **chosen)


def check_test(algorithm: MetaAlgorithm, preset: Preset) -> None:
    """Refuse, before any training, a test that cannot be run: too few images a class, a policy that the learner has not.

    Raises:
        UsageError: naming what was asked for and what there is.
    """
    try:
        for shots in preset.test.test_shots:
            preset.test_distribution(shots)
        if preset.test.test_statistics == "per_step":
            check_per_step(algorithm)
    except ValueError as error:
        raise UsageError(f"the test of this run: {error}") from error
    tested_algorithm(algorithm, preset.test)


def tested_algorithm(algorithm: MetaAlgorithm, test: MetaTest) -> MetaAlgorithm:
    """The algorithm with the test's policy of batch statistics.

    Raises:
        UsageError: for a learner that has none.
    """
    if test.test_statistics is None or test.test_statistics == "per_step":  # the latter once the step size is known
        return algorithm
    try:
        learner = with_statistics(algorithm.test_learner, test.test_statistics)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return dataclasses.replace(algorithm, learner=learner, at_test=itself)


def tested_on(preset: Preset) -> dict[str, Any]:
    """The settings that say which tasks a test draws from, as plain values."""
    varied = ("train_ways", "shots", "queries", "validation_queries", "exclusive", "batches")
    settings = {name: value for name, value in dataclasses.asdict(preset.tasks).items() if name not in varied}  # type: ignore[call-overload]
    if settings.get("size", ...) is None:
        del settings["size"]  # a named set has its own
    return {**settings, "grid": True} if "grid" in settings else settings


def statistics_of(preset: Preset) -> str:
    """The policy of batch statistics that the test has; empty where the network has none."""
    if getattr(preset.network, "normalisation", "none") != "batch":
        return ""
    return preset.test.test_statistics or preset.method.statistics


def policy_text(policy: str) -> str:
    """What a caption adds about a policy of batch statistics."""
    said = {"": "", "batch": " (transductive)"}
    return said.get(policy, f" (batch statistics: {policy})")


def _figures(result: Evaluation) -> dict[str, Any]:
    return {
        "rate": result.rate,
        "mean": result.mean.tolist(),
        "interval": result.interval.tolist(),
        "median": result.median.tolist(),
        "diverged": result.diverged.tolist(),
        "tasks": result.losses.shape[1],
        "seed_means": result.losses.mean(axis=1).tolist(),
    }


def published(results: Results, shots: int, step: int) -> Published | None:
    """What the method's paper prints for this cell, if the tasks and the network's size are the paper's."""
    if results.measure == "accuracy":
        return _published_of_images(results, shots, step)
    told = results.method == Oracle.name
    paper = {"family": "Sinusoids", **dataclasses.asdict(Sinusoids(told=told))}
    varied = ("shots", "queries", "grid")
    same = all(results.tasks.get(name) == value for name, value in paper.items() if name not in varied)
    network = count_parameters(mlp(3 if told else 1, 1))
    return SINUSOID.get((results.method, shots, step)) if same and results.parameters == network else None


def _published_of_images(results: Results, shots: int, step: int) -> Published | None:
    """The same for images, where papers print the accuracy after the last inner step, in percent."""
    tasks = results.tasks
    if step != len(results.curves[0]["mean"]) - 1 or tasks["images"] not in PAPER_NETWORKS:
        return None
    found = IMAGES.get((tasks["images"], results.method, tasks["ways"], shots, results.statistics))
    size = count_parameters(PAPER_NETWORKS[tasks["images"]](tasks["ways"]))
    return found._replace(value=found.value / 100) if found and results.parameters == size else None


PAPER_NETWORKS: dict[str, Callable[[int], Model]] = {
    "omniglot": lambda ways: conv_net((28, 28, 1), ways),
    "mini_imagenet": lambda ways: conv_net((84, 84, 3), ways, filters=32, downsampling="max_pool", readout="flatten"),
}
"""The networks of the papers' figures."""


def save_results(folder: Path, results: Results) -> Path:
    """Write a run's results into its folder; figures that are not finite become null."""
    path = folder / "results" / FILE
    with disk_errors(str(path), "Free some space, then run `metaception evaluate` on the run."):
        path.parent.mkdir(exist_ok=True)
        write_json(path, dataclasses.asdict(results))
    return path


def load_results(folder: Path) -> Results | None:
    """What `save_results` wrote; None if it did not."""
    path = folder / "results" / FILE
    if not path.is_file():
        return None
    try:
        values = {"measure": "mse", "statistics": "", **json.loads(path.read_text(encoding="utf-8"))}
        for name in ("test", "tasks"):
            values[name] = {key: tuple(v) if isinstance(v, list) else v for key, v in values[name].items()}
        for curve in values["curves"]:
            # A mean is null where a task diverged, and then it has no interval.
            for name, missing in {"mean": np.inf, "median": np.inf, "interval": np.nan}.items():
                curve[name] = [missing if value is None else value for value in curve[name]]
        return Results(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}); make it again with `metaception evaluate {folder}`."
        ) from error
