"""`metaception analyze`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console

from metaception.analysis.freezing import change, evaluate_frozen
from metaception.analysis.representation import (
    MEASURES,
    Similarity,
    adaptation_similarity,
    check_adapts,
    check_layers,
    network_similarity,
)
from metaception.cli.console import console
from metaception.cli.evaluate import open_run
from metaception.cli.layers import freezing_table, refusals, similarity_table
from metaception.core.learner import Learner
from metaception.core.task import TaskDistribution
from metaception.evaluation.curves import Evaluation, tune_rate
from metaception.runs.errors import UsageError
from metaception.runs.files import disk_errors, write_json
from metaception.runs.preset import Preset
from metaception.runs.run import TrainedRun, Which

QUERIES = {"accuracy": 15, "mse": 400}
"""Query inputs of the similarities: images a class, as many as Omniglot has beside five shots; points over the range of x."""


@dataclass(frozen=True)
class Analyze:
    """How adaptation changes a run's layers, and what freezing them costs; of several runs, how alike their layers are.

    Attributes:
        runs: the run folders.
        test_tasks: test tasks for the figures with frozen layers.
        similarity_tasks: test tasks for the similarities.
        shots: support examples of a task; the first of the run's own test unless given.
        steps: inner steps; as many as the run's own test has unless given.
        queries: inputs that layers are compared on: images a class (15), or points over the range of x (400).
        seed: which test tasks; the run's own unless given.
        data_dir: the folder of the data sets, for runs on images.
        last: analyse the last meta-parameters instead of the best on validation.
        out: folder for the pictures and figures; the first run's unless given.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    test_tasks: int = 600
    similarity_tasks: int = 20
    shots: int | None = None
    steps: int | None = None
    queries: int | None = None
    seed: int | None = None
    data_dir: Path | None = None
    last: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        least = {"test_tasks": 1, "similarity_tasks": 1, "shots": 1, "steps": 1, "queries": 1, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                why = "; without an inner step nothing adapts" if name == "steps" else ""
                raise UsageError(f"{name}={value}; expected {low} or more{why}.")

    @property
    def which(self) -> Which:
        """Which meta-parameters."""
        return "last" if self.last else "best"

    @property
    def folder(self) -> Path:
        """Where the figures go."""
        return self.out or self.runs[0]


def run(command: Analyze) -> int:
    """Analyse one run, or compare several."""
    if not command.runs:
        raise UsageError("analyze: no run given; give one or more run folders.")
    opened = [open_run(folder) for folder in command.runs]
    if len(opened) == 1:
        _check(command.runs[0], opened[0][0].algorithm.test_learner, check_adapts)
        _analyze(command, *opened[0])
    else:
        for folder, (loaded, _) in zip(command.runs, opened, strict=True):
            _check(folder, loaded.algorithm.learner, check_layers)
        _compare(command, opened)
    return 0


def _check(folder: Path, learner: Learner, check: Callable[[Learner], Any]) -> None:
    try:
        check(learner)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{folder}: {error}") from error


def _analyze(command: Analyze, run: TrainedRun, preset: Preset) -> None:
    say, status = console(), Console(stderr=True)
    metas, settings = run.metas(command.which), _settings(command, preset)
    steps, shots, seed = settings["steps"], settings["shots"], settings["test_seed"]
    if steps == 0:
        raise UsageError(f"{command.runs[0]}: its own test takes no inner step, so nothing adapts; give --steps.")
    many, own = (_tasks(preset, shots, queries) for queries in (settings["queries"], preset.test.test_queries))
    algorithm = run.algorithm
    if preset.method.tunes_rate:
        with status.status("Choosing the step size on validation tasks"):
            tuning = preset.tasks.tuning_tasks(shots, preset.test.test_queries)
            algorithm, settings["rate"] = tune_rate(algorithm, metas, tuning, steps=steps, count=command.test_tasks)
    with status.status("Comparing layers before and after adaptation"):
        count = command.similarity_tasks
        similarity = adaptation_similarity(algorithm, metas, many, steps=steps, count=count, seed=seed)
    setting = f"{steps} inner step{'s' * (steps > 1)}, {shots} shot{'s' * (shots > 1)}"
    say.print(similarity_table(similarity, f"{preset.name}: each layer before and after {setting}"))
    _explain(say, similarity, command, f"{len(run.seeds)} seed{'s' * (len(run.seeds) > 1)}")
    with status.status("Adapting with frozen layers"):
        frozen = evaluate_frozen(algorithm, metas, own, steps=steps, count=command.test_tasks, seed=seed)
        if preset.tasks.measure in frozen.measures:
            frozen = frozen.of(preset.tasks.measure)
    percent = preset.tasks.measure == "accuracy"
    measure = "accuracy in percent" if percent else "mean squared error"
    say.print(freezing_table(frozen, f"{preset.name}: first layers frozen, {setting}", percent=percent))
    over = "seeds" if len(run.seeds) >= 3 else "tasks"
    say.print(
        f"{measure}, {command.test_tasks} held-out tasks × "
        f"{len(run.seeds)} seed{'s' * (len(run.seeds) > 1)}, ± half a 95 % interval over {over}; all: before adaptation"
    )
    found: dict[str, Any] = {
        "run": {"name": preset.name, "method": preset.method.name, "seeds": run.seeds, "step": run.step},
        "which": command.which,
        **settings,
        "similarity": _figures(similarity, command.similarity_tasks),
        "freezing": {"measure": preset.tasks.measure, "tasks": command.test_tasks, **_frozen_figures(frozen)},
        "seeds": None,
    }
    # Here: matplotlib takes a moment to import, for every command.
    from metaception.analysis import pictures  # noqa: PLC0415

    title, ylabel = f"{preset.name}: {setting}", f"test {measure}"
    drawn = {
        "similarity": pictures.adaptation_picture(similarity, title),
        "freezing": pictures.freezing_picture(frozen, title, ylabel, percent=percent),
    }
    if len(run.seeds) > 1:
        groups, found["seeds"] = _networks(command, [(command.runs[0], run)], many, seed)
        drawn["seeds"] = pictures.networks_picture(groups, f"{preset.name}: layers of two seeds, before adaptation")
    _save(command, "analysis", found, drawn)


def _compare(command: Analyze, opened: list[tuple[TrainedRun, Preset]]) -> None:
    runs = [(folder, loaded) for folder, (loaded, _) in zip(command.runs, opened, strict=True)]
    (first, one), *others = runs
    for folder, other in others:
        shapes = [jax.eval_shape(each.algorithm.tasks.sample, jax.random.key(0)).query.inputs for each in (one, other)]
        depths = [len(check_layers(each.algorithm.learner).model.layers or ()) for each in (one, other)]
        for what, (here, there) in (("inputs of shape", [s.shape[1:] for s in shapes]), ("layers:", depths)):
            if here != there:
                raise UsageError(
                    f"{first} and {folder} cannot be compared layer by layer on the same inputs: the one has {what} {here}, "
                    f"the other {there}. Give runs on inputs of one shape, with networks of one depth."
                )
    preset = opened[0][1]
    settings = _settings(command, preset)
    tasks = _tasks(preset, settings["shots"], settings["queries"])
    groups, found = _networks(command, runs, tasks, settings["test_seed"])
    from metaception.analysis import pictures  # noqa: PLC0415

    picture = pictures.networks_picture(groups, "layers of two networks, before adaptation")
    content = {"runs": [str(folder) for folder in command.runs], "which": command.which, **settings, "pairs": found}
    _save(command, "between_runs", content, {"between_runs": picture})


def _networks(
    command: Analyze, runs: list[tuple[Path, TrainedRun]], tasks: TaskDistribution, seed: int
) -> tuple[dict[str, Similarity], list[dict[str, Any]]]:
    """Compare all networks of the runs, a table for each two runs, or for the seeds of one."""
    say = console()
    places = [(index, seed) for index, (_, loaded) in enumerate(runs) for seed in range(len(loaded.seeds))]
    networks = [(runs[index][1].algorithm, runs[index][1].meta(command.which, place)) for index, place in places]
    with Console(stderr=True).status("Comparing networks"):
        pairs, similarity = network_similarity(networks, tasks, count=command.similarity_tasks, seed=seed)
    groups, found = {}, []
    members: dict[tuple[int, int], list[int]] = {}
    for number, (i, j) in enumerate(pairs):
        members.setdefault((places[i][0], places[j][0]), []).append(number)
    for (i, j), numbers in members.items():
        name = f"{runs[i][0]}: two seeds" if i == j else f"{runs[i][0]} and {runs[j][0]}"
        groups[name] = similarity.of(numbers)
        say.print(similarity_table(groups[name], f"{name}, before adaptation"))
        _explain(say, groups[name], command, f"{len(numbers)} pair{'s' * (len(numbers) > 1)} of networks")
        of_runs = {"runs": [str(runs[i][0]), str(runs[j][0])], "pairs": len(numbers)}
        found.append(of_runs | _figures(groups[name], command.similarity_tasks))
    return groups, found


def _settings(command: Analyze, preset: Preset) -> dict[str, Any]:
    test = preset.test
    given = {
        "shots": (command.shots, test.test_shots[0]),
        "steps": (command.steps, test.test_steps),
        "queries": (command.queries, QUERIES[preset.tasks.measure]),
        "test_seed": (command.seed, test.test_seed),
    }
    return {name: own if value is None else value for name, (value, own) in given.items()}


def _tasks(preset: Preset, shots: int, queries: int) -> TaskDistribution:
    try:
        return preset.tasks.test_tasks(shots, queries)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _explain(say: Console, similarity: Similarity, command: Analyze, over: str) -> None:
    say.print(
        f"{command.similarity_tasks} held-out tasks × {over}, ± half a 95 % interval over tasks. Below each: its floor, the "
        "same measure with the examples shuffled."
    )
    notes = list(refusals(similarity, command.similarity_tasks))
    for note in notes:
        say.print(f"[yellow]note[/yellow]: {note}", soft_wrap=True)
    if notes:
        say.print("More inputs a task: --queries.")


def _figures(similarity: Similarity, tasks: int) -> dict[str, Any]:
    sizes = zip(similarity.names, similarity.neurons, similarity.rows, strict=True)
    layers: list[dict[str, Any]] = [{"layer": name, "neurons": neurons, "rows": rows} for name, neurons, rows in sizes]
    for measure in MEASURES:
        parts = {name: getattr(similarity, name)(measure) for name in ("mean", "interval", "floor", "measured")}
        each = similarity.values[measure].mean(axis=1)
        for index, layer in enumerate(layers):
            layer[measure] = {name: part[index] for name, part in parts.items()} | {"means": each[:, index]}
    return {"tasks": tasks, "layers": layers}


def _frozen_figures(frozen: Evaluation) -> dict[str, Any]:
    changed = change(frozen)
    return {
        "frozen": list(range(len(frozen.mean))),
        "mean": frozen.mean,
        "interval": frozen.interval,
        "change": changed.mean,
        "change_interval": changed.interval,
        "diverged": frozen.diverged,
        "seed_means": frozen.losses.mean(axis=1),
    }


def _save(command: Analyze, name: str, content: dict[str, Any], drawn: dict[str, Any]) -> None:
    from metaception.runs.pictures import save_pictures  # noqa: PLC0415

    path = command.folder / "results" / f"{name}.json"
    with disk_errors(str(path), "Choose a folder that can be written (--out)."):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
        paths = save_pictures(command.folder / "pictures", drawn)
    console().print(f"Figures: {path}; pictures: {', '.join(str(picture) for picture in paths)}", soft_wrap=True)
