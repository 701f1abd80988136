"""Tables of results, from the files in results/ at build time, so that no page holds a number of its own.

A line `<!-- results: sinusoid maml fomaml; 5-shot -->` becomes a table of `results/sinusoid.csv`: of these methods, and
of the settings that start with what stands after the semicolon (of all, without one).
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mkdocs.plugins import get_plugin_logger

_MARKER = re.compile(r"<!-- results: (?P<name>\w+) (?P<methods>[\w+ -]+?)(?:; (?P<settings>[\w, -]+))? -->")
_METRICS = {"mse": "mean squared error"}
_log = get_plugin_logger(__name__)

Row = dict[str, str]


def on_page_markdown(markdown: str, page: Any, config: Any, **kwargs: Any) -> str:
    """Replace the markers of a page; what cannot be replaced is a warning, which fails a strict build."""
    folder = Path(config.config_file_path).parent / "results"

    def table(match: re.Match[str]) -> str:
        try:
            return fill(folder, match["name"], match["methods"].split(), match["settings"] or "")
        except LookupError as error:
            _log.warning("%s: %s", page.file.src_uri, error.args[0])
            return f"*{error.args[0]}*"

    return _MARKER.sub(table, markdown)


def fill(folder: Path, name: str, methods: Sequence[str], settings: str = "") -> str:
    """The table that one marker stands for.

    Args:
        folder: where the results are.
        name: which of them, without `.csv`.
        methods: their names in the column `method`, in the order to show them.
        settings: what the settings to show start with.

    Raises:
        LookupError: where there are results, but not these: a page would show too little without anybody noticing.
            Before anything was measured at all, the table is a sentence that says so.
    """
    path = folder / f"{name}.csv"
    if not path.exists():
        if not any(folder.glob("*.csv")):
            return "*Not measured yet.*"
        raise LookupError(f"results/{name}.csv is missing; run the experiment that writes it.")
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["setting"].startswith(settings)]
    absent = sorted(set(methods) - {row["method"] for row in rows})
    if absent:
        raise LookupError(f"results/{name}.csv has no row of {', '.join(absent)} {settings}".rstrip() + ".")
    return render([row for method in methods for row in rows if row["method"] == method], path.name)


def render(rows: Sequence[Row], source: str) -> str:
    """A Markdown table with a line for each method and setting and a column for each number of inner steps."""
    several = len({row["method"] for row in rows}) > 1
    lines: dict[tuple[str, str], dict[str, str]] = {}
    columns: dict[str, None] = {}
    for row in rows:
        setting, _, step = row["setting"].partition(" step ")
        column = {"": row["metric"], "0": "before adapting", "1": "1 step"}.get(step, f"{step} steps")
        columns[column] = None
        lines.setdefault((row["method"], setting), {})[column] = _cell(row)
    head = [*(["method"] if several else []), "setting", *columns]
    body = [
        [*([f"`{method}`"] if several else []), setting, *(cells.get(column, "") for column in columns)]
        for (method, setting), cells in lines.items()
    ]
    table = ["| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body]]
    return "\n".join(table) + "\n\n" + _caption(rows, source)


def _cell(row: Row) -> str:
    cell = f"**{_number(row['mean'])}**"
    for before, column in ((" ± ", "ci95"), ("<br>median ", "median"), ("<br>paper ", "paper")):
        if row[column]:
            cell += before + _number(row[column])
    return cell


def _number(text: str) -> str:
    value = float(text)
    if value == float("inf"):
        return "∞"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def _caption(rows: Sequence[Row], source: str) -> str:
    def every(column: str) -> str:
        return "; ".join(dict.fromkeys(row[column] for row in rows if row[column]))

    seeds = {int(row["seeds"]) for row in rows if row["seeds"]}
    over = "seeds" if seeds and min(seeds) >= 3 else "tasks"
    metric = ", ".join(_METRICS.get(row, row) for row in dict.fromkeys(row["metric"] for row in rows))
    said = [
        f"The {metric} over {every('tasks')} tasks for each of {every('seeds')} trained seeds: the mean over all of them "
        f"± the half-width of its 95 % interval over {over}, and the median."
    ]
    if any(row["mean"] == "inf" for row in rows):
        said.append("∞: at least one task diverged.")
    if every("source"):
        said.append(f"The paper's figures: {every('source')}.")
    said.append(f"From `results/{source}`: `{every('command')}`, commit {every('commit')}, on {every('machine')}.")
    return "<small>" + " ".join(said) + "</small>"
