"""`metaception data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from metaception.cli.console import console
from metaception.data.omniglot import load_omniglot
from metaception.data.places import DataError, data_dir
from metaception.data.sets import SETS, load_images
from metaception.runs.errors import UsageError


@dataclass(frozen=True)
class Data:
    """Show the image sets, whether they are there and whole, and their licences; or fetch one.

    Attributes:
        name: the set to fetch, or to be told how to get it; all are shown unless given.
        data_dir: the folder of the data sets; METACEPTION_DATA, or metaception/data in your cache folder, unless given.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
    data_dir: Path | None = None


def run(command: Data) -> int:
    """Show all sets, or fetch one."""
    if command.name is None:
        return _show_all()
    if command.name not in SETS:
        raise UsageError(f"data: unknown set {command.name!r}; expected one of {', '.join(SETS)}.")
    say = console()
    try:
        if command.name == "omniglot":
            _fetch_omniglot()
        for subset in ("train", "val", "test"):
            images = load_images(command.name, subset)
            say.print(f"{images.name}: {len(images.classes):,} classes, {len(images.images):,} images")
    except DataError as error:
        raise UsageError(str(error)) from error
    say.print(f"Licence: {images.licence}")
    return 0


def _fetch_omniglot() -> None:
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(), transient=True) as bar:
        task = bar.add_task("omniglot")
        load_omniglot(
            subset="all",
            download=True,
            progress=lambda there, total: bar.update(task, completed=there, total=total),
        )


def _show_all() -> int:
    table = Table(title=f"Image sets in {data_dir()}", title_justify="left")
    for column in ("set", "there?", "training classes", "size", "licence"):
        table.add_column(column, overflow="fold")
    missing = []
    for name, known in SETS.items():
        classes, size = f"{known.training_classes[0]:,}", "×".join(map(str, known.shape))
        try:
            table.add_row(name, "yes", classes, size, load_images(name, "val").licence)
        except DataError as error:
            table.add_row(name, "no", classes, size, "")
            missing.append(str(error))
    out = console()
    out.print(table)
    for message in missing:
        out.print(f"\n{message}", markup=False)
    return 0
