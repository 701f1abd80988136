"""`metaception list`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from metaception.cli.console import console
from metaception.runs.presets import PRESETS


@dataclass(frozen=True)
class List:
    """List the presets: what `metaception train` can train."""


def run(command: List) -> int:
    """Print the presets."""
    del command
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("preset", "method", "outer steps", "what it is"):
        table.add_column(heading, justify="right" if heading == "outer steps" else "left")
    for preset in PRESETS.values():
        table.add_row(preset.name, preset.method.title, f"{preset.steps:,}", preset.description)
    console().print(table)
    return 0
