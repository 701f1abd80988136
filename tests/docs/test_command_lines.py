"""Every command line that a page shows is one that the command line takes."""

import re
import shlex
import warnings
from pathlib import Path

import pytest

from metaception.cli import main as cli
from metaception.cli import train

ROOT = Path(__file__).parents[2]
_LINE = re.compile(r"^(?:srun )?metaception (.*)$", re.MULTILINE)


def shown():
    """(page, arguments) of every line that starts with metaception."""
    return [
        (page.name, shlex.split(line, comments=True))
        for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
        for line in _LINE.findall(page.read_text().replace("\\\n", " "))
    ]


@pytest.mark.parametrize(
    ("page", "arguments"), shown(), ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_command_line_is_taken(page, arguments, monkeypatch):
    taken = []

    def take(command, flags=None):
        taken.append(command)
        return 0

    commands = {name: (kind, take) for name, (kind, _) in cli._COMMANDS.items()}
    monkeypatch.setattr(cli, "_COMMANDS", commands)
    monkeypatch.setattr(train, "_train", take)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main sets its own
    assert cli.main(arguments) == 0
    assert len(taken) == 1


def test_pages_show_command_lines():
    assert {arguments[0] for _, arguments in shown()} == {
        "list",
        "train",
        "evaluate",
        "compare",
        "analyze",
        "plot",
        "adapt",
        "export",
        "cite",
        "data",
    }
