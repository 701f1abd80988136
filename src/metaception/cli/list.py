"""`metaception list`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.table import Table

from metaception.cli.console import console
from metaception.runs.errors import UsageError
from metaception.runs.presets import PRESETS


@dataclass(frozen=True)
class List:
    """List the presets: what `metaception train` can train.

    Attributes:
        words: only presets whose name has all of these in it, for example: omniglot 20w.
    """

    words: Annotated[tuple[str, ...], tyro.conf.Positional] = ()


def run(command: List) -> int:
    """Print the presets."""
    chosen = [preset for preset in PRESETS.values() if all(word in preset.name for word in command.words)]
    if not chosen:
        raise UsageError(
            f"list: no preset has {' and '.join(command.words)} in its name; `metaception list` shows all."
        )
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("preset", no_wrap=True)  # to be typed
    table.add_column("outer steps", justify="right")
    table.add_column("what it is")
    for preset in chosen:
        table.add_row(preset.name, f"{preset.steps:,}", preset.description)
    console().print(table)
    return 0
