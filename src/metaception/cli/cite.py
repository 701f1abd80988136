"""`metaception cite`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metaception.methods.references import LIBRARY, bibtex
from metaception.runs.folder import RunFolder
from metaception.runs.preset import from_dict


@dataclass(frozen=True)
class Cite:
    """Print BibTeX for exactly what a run used: the library, the method, the family of tasks.

    Attributes:
        run: the run folder.
    """

    run: Annotated[Path, tyro.conf.Positional]


def run(command: Cite) -> int:
    """Print the BibTeX entries of a run."""
    values = RunFolder(command.run).config()["preset"]
    # A run from Python does not say what it is made of; the library is all that is certain.
    print(bibtex([LIBRARY] if values is None else from_dict(values).citations()))
    return 0
