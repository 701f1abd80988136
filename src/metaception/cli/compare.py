"""`metaception compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metaception.cli.console import ResultsTable, caption, console
from metaception.cli.evaluate import results_of
from metaception.runs.errors import UsageError
from metaception.runs.files import disk_errors
from metaception.runs.folder import RunFolder
from metaception.runs.testing import Results


@dataclass(frozen=True)
class Compare:
    """One table of several runs.

    Attributes:
        runs: the run folders.
        picture: draw what validation tasks said over the minutes of training, a curve a run, into this PNG file.
        data_dir: the folder of the data sets, for runs on images that are yet to be tested.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    picture: Path | None = None
    data_dir: Path | None = None


def run(command: Compare) -> int:
    """Print the table of the runs' results."""
    if not command.runs:
        raise UsageError("compare: no run given; give one or more run folders.")
    if command.picture is not None and command.picture.suffix.lower() != ".png":
        raise UsageError(f"--picture {command.picture}: expected the name of a PNG file, for example methods.png.")
    for folder in command.runs:
        RunFolder(folder).config()
    found = {str(folder): results_of(folder) for folder in command.runs}
    say = console()
    title = "Test accuracy" if all(results.measure == "accuracy" for results in found.values()) else "Test losses"
    say.print(ResultsTable(list(_distinct(found)), title))
    for note in dict.fromkeys(caption(results) for results in found.values()):
        say.print(note)
    if len({str(_tested_on(results)) for results in found.values()}) > 1:
        say.print("[yellow]note[/yellow]: these runs were not tested on the same tasks; the rows are not comparable.")
    if command.picture is not None:
        # Only here: matplotlib takes a moment to import, for every command.
        from metaception.runs.pictures import over_time, save_pictures  # noqa: PLC0415

        names = [results.name for results in _distinct(found)]
        figure = over_time(dict(zip(names, command.runs, strict=True)))
        with disk_errors(str(command.picture), "Choose a place that can be written (--picture)."):
            save_pictures(command.picture.parent, {command.picture.stem: figure})
        say.print(f"Picture: {command.picture}", markup=False)
    return 0


def _distinct(found: dict[str, Results]) -> list[Results]:
    """The results, under their folders' names where two runs are of the same preset."""
    names = [results.name for results in found.values()]
    return [
        results if names.count(results.name) == 1 else Results(**{**vars(results), "name": folder})
        for folder, results in found.items()
    ]


def _tested_on(results: Results) -> dict[str, object]:
    # Being told the task is a property of the learner's inputs; the tasks are the same.
    tasks = {name: value for name, value in results.tasks.items() if name not in ("told", "shots")}
    return {**tasks, **{name: results.test[name] for name in ("test_tasks", "test_seed", "test_queries")}}
