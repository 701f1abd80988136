"""What stands elsewhere already, and would go stale as a copy: a preset's settings, BibTeX, a section of the README.

A line `<!-- preset: NAME ... -->` becomes the settings of these presets, `<!-- bibtex: KEY ... -->` the entries of these
keys, `<!-- readme: HEADING -->` what the README has under that heading.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

from metaception.methods.references import BIBTEX, bibtex
from metaception.runs.presets import PRESETS

_MARKER = re.compile(r"<!-- (?P<kind>preset|bibtex|readme): (?P<names>[\w +-]+?) -->")


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Replace the markers of a page."""

    def replace(match: re.Match[str]) -> str:
        if match["kind"] == "readme":
            return readme(match["names"])
        known = PRESETS if match["kind"] == "preset" else BIBTEX
        names = match["names"].split()
        for name in names:
            if name not in known:
                raise PluginError(f"{page.file.src_uri}: no {match['kind']} {name!r}; there are {', '.join(known)}.")
        if match["kind"] == "bibtex":
            return f"```bibtex\n{bibtex(names)}\n```"
        return "\n".join(describe(name) for name in names)

    return _MARKER.sub(replace, markdown)


def readme(heading: str) -> str:
    """The README's text under a heading of the second level."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    found = re.search(rf"^## {re.escape(heading)}\n+(.*?)\s*(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise PluginError(f"README.md has no section {heading!r}.")
    return found[1]


def describe(name: str) -> str:
    """A preset's settings in one list item."""
    preset = PRESETS[name]
    tasks = _settings(preset.tasks, changed=("shots", "queries"))
    # What few presets change is named by these alone.
    always = tuple(f.name for f in dataclasses.fields(preset.method) if f.name not in ("outer_clip", "statistics"))
    return (
        f"- `{name}`: {_settings(preset.method, changed=always)}; tasks `{type(preset.tasks).__name__}` with {tasks}; network "
        f"{_settings(preset.network)}; {preset.steps:,} outer steps."
    )


def _settings(part: Any, changed: tuple[str, ...] | None = None) -> str:
    """The fields of a dataclass with their values; with `changed`, these and those that are not at their defaults."""
    fields = dataclasses.fields(part)
    shown = [f for f in fields if changed is None or f.name in changed or getattr(part, f.name) != f.default]
    return ", ".join(f"{field.name} {_value(getattr(part, field.name))}" for field in shown)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(_value(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
