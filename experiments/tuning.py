"""How the sinusoid presets were chosen: the same number of settings for every method, compared on validation tasks.

python experiments/tuning.py                     # all methods, one seed each
python experiments/tuning.py --only anil imaml   # these anew; the others are kept
python experiments/tuning.py --quick             # a smoke test in a temporary folder

Each setting trains for 20,000 outer steps. Its score is the geometric mean of its validation losses at K = 5 after 1, 5 and 10
inner steps (each counts alike); of Meta-SGD, trained for one step, the loss after that one. A loss is the mean over the
better 99 % of the tasks, or the one task on which ten steps diverge would decide.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
from table import RESULTS, Row, merge_csv

import metaception as mc
from metaception.evaluation.curves import evaluate
from metaception.runs.preset import Preset
from metaception.runs.presets import PRESETS

COMMAND = "python experiments/tuning.py"
STEPS = 20_000
OUTER_RATES = (1e-3, 5e-3)

# Sixteen settings a method: two outer rates, and eight of what the method has inside.
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "maml": {"inner_rate": (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05)},
    "fomaml": {"inner_rate": (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05)},
    "anil": {"inner_rate": (0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3)},
    "meta_sgd": {"inner_rate": (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05)},
    "imaml": {"inner_rate": (0.003, 0.01), "strength": (0.1, 0.3, 1.0, 3.0)},
}
SCORED_AFTER = {"meta_sgd": (1,)}


def settings(method: str) -> list[dict[str, float]]:
    """What is tried of one method."""
    grid = {"outer_rate": OUTER_RATES} | GRIDS[method]
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def score(preset: Preset, after: tuple[int, ...], tasks: int) -> float:
    """Train one seed, and see how well it adapts to validation tasks; infinite where a hundredth of them diverged."""
    run = mc.train(preset.build(), steps=preset.steps)
    family = mc.Sinusoids(shots=5, queries=100, grid=True)
    result = evaluate(run.algorithm, run.metas("best"), family, steps=max(after), count=tasks, stream="validation")
    better = np.sort(np.nan_to_num(result.losses[0][:, list(after)], nan=np.inf), axis=0)[: int(0.99 * tasks)]
    return float(np.exp(np.log(better.mean(axis=0)).mean()))


def measure(method: str, quick: bool) -> list[Row]:
    """The scores of all settings of one method, the best first."""
    preset = PRESETS[f"{method.replace('_', '-')}-sinusoid"]
    after = SCORED_AFTER.get(method, (1, 5, 10))
    rows = []
    for changes in settings(method)[: 1 if quick else None]:
        started = time.monotonic()
        changed = dataclasses.replace(preset.method, outer_schedule="cosine", **changes)
        preset = dataclasses.replace(preset, method=changed, steps=10 if quick else STEPS)
        found = score(preset, after, 20 if quick else 600)
        rows.append(
            Row(
                experiment="tuning",
                method=method,
                setting=", ".join(f"{name} {value:g}" for name, value in changes.items()),
                metric=f"validation mse after {'/'.join(map(str, after))} steps",
                mean=found,
                tasks=600,
                seeds=1,
                wall_s=time.monotonic() - started,
            )
        )
        print(f"{method}: {rows[-1].setting}: {found:.4f} ({rows[-1].wall_s:.0f} s)", flush=True)
    return sorted(rows, key=lambda row: row.mean)


def main() -> None:
    """Try, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GRIDS, default=list(GRIDS), metavar="METHOD")
    parser.add_argument("--quick", action="store_true", help="a smoke test in a temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tuning-")) if arguments.quick else RESULTS
    for method in arguments.only:
        merge_csv(folder, "tuning", method, measure(method, arguments.quick), order=list(GRIDS), command=COMMAND)


if __name__ == "__main__":
    np.seterr(divide="ignore", invalid="ignore")
    main()
