"""`metaception evaluate`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metaception.cli.console import ResultsTable, caption, console
from metaception.runs.errors import UsageError
from metaception.runs.preset import MetaTest, Preset, TestStatistics
from metaception.runs.run import TrainedRun, load_run
from metaception.runs.testing import Results, load_results, meta_test, save_results


@dataclass(frozen=True)
class Evaluate:
    """Test a run again, on other numbers of shots, steps or tasks; what is not given stays as the run has it.

    Attributes:
        run: the run folder.
        test_shots: support points of a test task, one or more numbers.
        test_steps: inner steps, from 0 to this; may be more than in training.
        test_tasks: how many test tasks.
        test_queries: query points a task, evenly over the range of x; in classification, images a class.
        test_seed: which test tasks.
        test_statistics: what batch normalisation takes its statistics from: batch (transductive), support, one, or
            per_step (what training tasks had after as many inner steps).
        data_dir: the folder of the data sets, for runs on images.
        last: test the last meta-parameters instead of the best on validation.
        save: keep these results in the run folder in place of the ones there; `compare` and `plot` then show them.
    """

    run: Annotated[Path, tyro.conf.Positional]
    test_shots: tuple[int, ...] | None = None
    test_steps: int | None = None
    test_tasks: int | None = None
    test_queries: int | None = None
    test_seed: int | None = None
    test_statistics: TestStatistics | None = None
    data_dir: Path | None = None
    last: bool = False
    save: bool = False


def run(command: Evaluate) -> int:
    """Evaluate a run and print the table."""
    loaded, preset = open_run(command.run)
    names = [field.name for field in dataclasses.fields(MetaTest)]
    given = {name: value for name in names if (value := getattr(command, name)) is not None}
    test = dataclasses.replace(preset.test, **given)
    results = meta_test(loaded, dataclasses.replace(preset, test=test), "last" if command.last else "best")
    say = console()
    say.print(ResultsTable([results], preset.description))
    say.print(caption(results))
    if command.save:
        say.print(f"Saved: {save_results(command.run, results)}")
    return 0


def open_run(folder: Path) -> tuple[TrainedRun, Preset]:
    """A run that was made from a preset, and the preset."""
    loaded = load_run(folder)
    preset = loaded.preset
    if preset is None:
        raise UsageError(
            f"{folder} was not made from a preset, so the command line cannot rebuild it. In Python: "
            f"metaception.load_run({str(folder)!r}, algorithm), then .evaluate() or .adapt()."
        )
    return loaded, preset


def results_of(folder: Path) -> Results:
    """The results in a run folder; made now if there are none yet, or if the run was not at its end when they were made."""
    results = load_results(folder)
    if results is None or results.step < results.planned:
        results = meta_test(*open_run(folder))
        save_results(folder, results)
    return results
