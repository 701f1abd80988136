"""`metaception plot`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metaception.cli.console import console
from metaception.cli.evaluate import open_run, results_of


@dataclass(frozen=True)
class Plot:
    """Draw a run's pictures again: adaptation on three tasks, the loss over inner steps, the training curves.

    Attributes:
        run: the run folder.
        data_dir: the folder of the data sets, for runs on images.
    """

    run: Annotated[Path, tyro.conf.Positional]
    data_dir: Path | None = None


def run(command: Plot) -> int:
    """Draw the pictures of a run."""
    # Only here: matplotlib takes a moment to import, for every command.
    from metaception.runs.pictures import draw_pictures  # noqa: PLC0415

    loaded, preset = open_run(command.run)
    for path in draw_pictures(loaded, preset, results_of(command.run)):
        console().print(str(path))
    return 0
