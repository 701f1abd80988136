"""What adaptation changes, layer by layer, of MAML and ANIL on Omniglot: similarities and frozen layers.

python experiments/images.py omniglot --steps 20000 --only maml anil   # the runs
python experiments/representation.py runs/omniglot/maml-20000steps runs/omniglot/anil-20000steps
python experiments/representation.py --quick                           # a smoke test on a run of a few steps

Each run is analysed by `metaception analyze`, and its figures become rows of results/representation.csv and the page's table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from table import RESULTS, Row, add_csv

from metaception.cli.main import main as metaception

COMMAND = "python experiments/representation.py"
MEASURES = ("pwcca", "mean_cca", "cka", "cka_debiased")
METHODS = ("maml", "anil")
QUICK_TRAINING = (
    "maml-glyphs --steps 2 --filters 2 --blocks 1 --meta-batch-size 2 --test-tasks 4 --validation-tasks 2 --quiet"
)
QUICK_ANALYSIS = "--test-tasks 4 --similarity-tasks 2 --steps 1"


def figures(found: dict[str, Any], wall_s: float | None = None) -> list[Row]:
    """The rows of one run: a measure and its floor for each layer, and the accuracy by how many layers are frozen."""
    run = found["run"]
    cell = f"{found['shots']}-shot, {found['steps']} inner steps, {run['step']} outer steps"
    common: dict[str, Any] = {
        "experiment": "representation",
        "method": run["method"],
        "seeds": len(run["seeds"]),
        "wall_s": wall_s,
    }
    rows = []
    for number, layer in enumerate(found["similarity"]["layers"], 1):
        for measure in MEASURES:
            value = layer[measure]
            if value is None or value.get("mean") is None:
                continue
            setting = f"layer {number}, before and after, {cell}"
            tasks = found["similarity"]["tasks"]
            rows.append(
                Row(setting=setting, metric=measure, mean=value["mean"], ci95=value["interval"], tasks=tasks, **common)
            )
            rows.append(Row(setting=setting, metric=f"{measure}_floor", mean=value["floor"], tasks=tasks, **common))
    frozen = found["freezing"]
    scale = 100 if frozen["measure"] == "accuracy" else 1
    for count, mean, interval in zip(frozen["frozen"], frozen["mean"], frozen["interval"], strict=True):
        what = "none" if count == 0 else "1" if count == 1 else f"1–{count}"
        setting = f"layers {what} frozen, {cell}"
        rows.append(
            Row(
                setting=setting,
                metric=frozen["measure"],
                mean=scale * mean,
                ci95=scale * interval,
                tasks=frozen["tasks"],
                **common,
            )
        )
    return rows


def page(rows: list[dict[str, str]]) -> str:
    """Two tables: similarities before and after adaptation, and frozen layers."""
    similar = [row for row in rows if row["setting"].startswith("layer ")]
    floors = {
        (row["method"], row["setting"], row["metric"]): row for row in similar if row["metric"].endswith("_floor")
    }
    lines = ["| method | setting | measure | value | floor |", "|---|---|---|---:|---:|"]
    for row in similar:
        floor = floors.get((row["method"], row["setting"], f"{row['metric']}_floor"))
        if floor is not None:
            spread = f" ± {float(row['ci95']):.3f}" if row["ci95"] else ""
            cells = (f"`{row['method']}`", row["setting"], row["metric"], f"{float(row['mean']):.3f}{spread}")
            lines.append(f"| {' | '.join(cells)} | {float(floor['mean']):.3f} |")
    lines += ["", "| method | frozen at meta-test | accuracy, % |", "|---|---|---:|"]
    for row in rows:
        if row["setting"].startswith("layers "):
            lines.append(
                f"| `{row['method']}` | {row['setting']} | {float(row['mean']):.2f} ± {float(row['ci95'] or 0):.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Analyse, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders")
    parser.add_argument("--quick", action="store_true", help="a smoke test on a run of a few steps")
    arguments = parser.parse_args()
    folder, runs, flags = RESULTS, arguments.runs, list[str]()
    if arguments.quick:
        folder = Path(tempfile.mkdtemp(prefix="representation-"))
        runs, flags = [folder / "run"], QUICK_ANALYSIS.split()
        assert metaception(["train", *QUICK_TRAINING.split(), "--out", str(runs[0])]) == 0
    if not runs:
        parser.error("give the run folders")
    for run in runs:
        assert metaception(["analyze", str(run), *flags]) == 0
        found = json.loads((run / "results" / "analysis.json").read_text())
        kept = add_csv(folder, "representation", figures(found), order=METHODS, command=COMMAND)
        text = folder / "representation.md"
        if text.exists():
            before, _, rest = text.read_text().partition("<!-- table -->\n")
            text.write_text(f"{before}<!-- table -->\n{page(kept)}\n<!-- end -->{rest.partition('<!-- end -->')[2]}")
    print(folder / "representation.csv")


if __name__ == "__main__":
    main()
