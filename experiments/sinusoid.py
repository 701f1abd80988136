"""The sinusoid table: every method and baseline at K = 1, 5, 10, 20 after 0, 1, 5, 10 inner steps, beside the paper's.

python experiments/sinusoid.py                  # 5 seeds at the presets' 70,000 outer steps
python experiments/sinusoid.py --only maml anil # these rows anew; the others are kept
python experiments/sinusoid.py --quick          # a smoke test in a temporary folder
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
from table import RESULTS, Row, add_csv

import metaception as mc
from metaception.evaluation.curves import Evaluation, evaluate, tune_rate
from metaception.evaluation.published import SINUSOID, Published
from metaception.runs.preset import Preset
from metaception.runs.presets import PRESETS

SHOTS = (1, 5, 10, 20)
STEPS = (0, 1, 5, 10)
COMMAND = "python experiments/sinusoid.py"
PAPER_NAMES = {"maml_paper": "maml", "maml_paper_alpha001": "maml"}

# The rows of the table and the presets that make them.
METHODS = {
    "maml_paper": "maml-sinusoid-paper",
    "maml_paper_alpha001": "maml-sinusoid-paper-alpha001",
    "maml": "maml-sinusoid",
    "fomaml": "fomaml-sinusoid",
    "reptile": "reptile-sinusoid",
    "meta_sgd": "meta-sgd-sinusoid",
    "imaml": "imaml-sinusoid",
    "anil": "anil-sinusoid",
    "pretrain": "pretrain-sinusoid",
    "random": "random-sinusoid",
    "oracle": "oracle-sinusoid",
}


def measure(method: str, preset: Preset, seeds: int, tasks: int) -> list[Row]:
    """Train one method and test it at every number of shots."""
    started = time.monotonic()
    run = mc.train(preset.build(), steps=preset.steps, seeds=seeds, progress=True)
    trained = time.monotonic() - started
    rows = []
    for shots in SHOTS:
        # Every method is tested on Finn et al.'s family, the oracle with the amplitude and the phase in its inputs.
        test = mc.Sinusoids(shots=shots, queries=100, grid=True, told=preset.method.name == "oracle")
        algorithm, metas, rate = run.algorithm, run.metas("best"), None
        if preset.method.tunes_rate:
            algorithm, rate = tune_rate(algorithm, metas, test, steps=max(STEPS), count=tasks)
        result = evaluate(algorithm, metas, test, steps=max(STEPS), count=tasks)._replace(rate=rate)
        rows += figures(method, shots, result, trained)
    return rows


def figures(method: str, shots: int, result: Evaluation, wall_s: float) -> list[Row]:
    """The rows of one curve."""
    rows = []
    for step in STEPS:
        paper: Published | None = SINUSOID.get((PAPER_NAMES.get(method, method), shots, step))
        rows.append(
            Row(
                experiment="sinusoid",
                method=method,
                setting=f"{shots}-shot step {step}",
                metric="mse",
                mean=float(result.mean[step]),
                ci95=float(result.interval[step]),
                median=float(result.median[step]),
                tasks=result.losses.shape[1],
                seeds=result.losses.shape[0],
                paper=paper.value if paper else None,
                source=paper.source if paper else "",
                wall_s=wall_s,
            )
        )
    return rows


def page(rows: list[dict[str, str]]) -> str:
    """The tables of results/sinusoid.md: one for each number of shots, a paper's figures under the method's own."""
    heads = [f"{step} step{'' if step == 1 else 's'}" for step in STEPS]
    found = {(row["method"], row["setting"]): row for row in rows}
    parts = []
    for shots in SHOTS:
        lines = ["| method | parameters | " + " | ".join(heads) + " |", "|---|---:|" + "---:|" * len(STEPS)]
        for method, preset in METHODS.items():
            cells = [found.get((method, f"{shots}-shot step {step}")) for step in STEPS]
            kept = [cell for cell in cells if cell is not None]
            if len(kept) < len(STEPS):
                continue
            count = mc.count_parameters(PRESETS[preset].build().learner.model)  # type: ignore[attr-defined]
            lines.append(f"| `{method}` | {count:,} | " + " | ".join(map(cell_of, kept)) + " |")
            if any(cell["paper"] for cell in kept):
                lines.append("| *the paper* | | " + " | ".join(cell["paper"] for cell in kept) + " |")
        parts.append(f"### K = {shots}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def cell_of(row: dict[str, str]) -> str:
    """`mean ± interval (median)`, to three decimals."""
    mean, interval, median = (float(row[name] or "nan") for name in ("mean", "ci95", "median"))
    spread = f" ± {interval:.3f}" if np.isfinite(interval) else ""
    return f"{mean:.3f}{spread} ({median:.3f})"


def main() -> None:
    """Train, test, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a smoke test in a temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sinusoid-")) if arguments.quick else RESULTS
    for method in arguments.only:
        preset = PRESETS[METHODS[method]]
        if arguments.quick:
            preset = dataclasses.replace(preset, steps=min(preset.steps, 20))
        rows = measure(method, preset, arguments.seeds, 20 if arguments.quick else 600)
        save(folder, rows)
        print(f"{method}: {folder / 'sinusoid.csv'}", flush=True)


def save(folder: Path, rows: list[Row]) -> None:
    """Keep a method's rows as soon as they are there, and renew the tables of the page."""
    kept = add_csv(folder, "sinusoid", rows, order=list(METHODS), command=COMMAND)
    text = folder / "sinusoid.md"
    if text.exists():
        before, _, rest = text.read_text().partition("<!-- tables -->\n")
        after = rest.partition("<!-- end -->")[2]
        text.write_text(f"{before}<!-- tables -->\n{page(kept)}\n<!-- end -->{after}")


if __name__ == "__main__":
    np.seterr(invalid="ignore")
    main()
