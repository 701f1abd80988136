"""How the sinusoid presets were chosen: the same number of settings for every method, compared on validation tasks.

python experiments/tuning.py                     # all methods; what results/tuning.csv has is not done again
python experiments/tuning.py --only anil imaml   # these methods
python experiments/tuning.py --quick             # a smoke test in a temporary folder

Sixteen settings train for 20,000 outer steps each, and the best four of them for the presets' 70,000. Where the winner of one
seed did not hold over several (iMAML, ANIL), one of its step sizes is chosen again over three. A setting's score is the
geometric mean of its validation losses at K = 5 after 1, 5 and 10 inner steps (each counts alike); of Meta-SGD, trained for one
step, the loss after that one. A loss is the mean over the better 99 % of the tasks, or the one task on which ten steps diverge
would decide.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
from table import RESULTS, Row, add_csv, read_csv

import metaception as mc
from metaception.evaluation.curves import evaluate
from metaception.runs.preset import Preset
from metaception.runs.presets import PRESETS

COMMAND = "python experiments/tuning.py"
FIRST_ROUND, BEST = 20_000, 4
OUTER_RATES = (1e-3, 5e-3)

# Sixteen settings a method: two outer rates, and eight of what the method has inside.
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "maml": {"inner_rate": (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05)},
    "fomaml": {"inner_rate": (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05)},
    "anil": {"inner_rate": (0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3)},
    "meta_sgd": {"inner_rate": (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05)},
    "imaml": {"inner_rate": (0.002, 0.004), "strength": (0.1, 1.0), "damping": (3.0, 10.0)},
}
SCORED_AFTER = {"meta_sgd": (1,)}
# What is compared over three seeds around the winner, for methods whose seeds differ so much that one can choose badly.
AGAIN: dict[str, dict[str, tuple[float, ...]]] = {
    "imaml": {"outer_rate": (1e-3, 2e-3, 5e-3)},
    "anil": {"inner_rate": (0.003, 0.01, 0.02)},
}


def settings(method: str) -> list[dict[str, float]]:
    """What is tried of one method."""
    grid = {"outer_rate": OUTER_RATES} | GRIDS[method]
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def score(preset: Preset, after: tuple[int, ...], tasks: int, seeds: int) -> float:
    """Train, and see how well it adapts to validation tasks; infinite where a hundredth of a seed's diverged."""
    run = mc.train(preset.build(), steps=preset.steps, seeds=seeds)
    family = mc.Sinusoids(shots=5, queries=100, grid=True)
    result = evaluate(run.algorithm, run.metas("best"), family, steps=max(after), count=tasks, stream="validation")
    better = np.sort(np.nan_to_num(result.losses[..., list(after)], nan=np.inf), axis=1)[:, : int(0.99 * tasks)]
    return float(np.exp(np.log(better.mean(axis=(0, 1))).mean()))


def measure(folder: Path, method: str, quick: bool) -> None:
    """All rounds of one method; each score is written as soon as it is there."""
    preset = PRESETS[f"{method.replace('_', '-')}-sinusoid"]
    after, tasks = SCORED_AFTER.get(method, (1, 5, 10)), 20 if quick else 600

    def scores(steps: int, tried: list[dict[str, float]], seeds: int = 1) -> list[dict[str, float]]:
        """`tried`, the best first."""
        found = []
        for changes in tried:
            length = f"{steps:,} steps" + f" of {seeds} seeds" * (seeds > 1)
            setting = f"{length}: " + ", ".join(f"{name} {value:g}" for name, value in changes.items())
            rows = {row["setting"]: row for row in read_csv(folder / "tuning.csv") if row["method"] == method}
            if setting not in rows:
                started = time.monotonic()
                changed = dataclasses.replace(preset.method, outer_schedule="cosine", **changes)
                value = score(dataclasses.replace(preset, method=changed, steps=steps), after, tasks, seeds)
                row = Row(
                    experiment="tuning",
                    method=method,
                    setting=setting,
                    metric=f"validation mse after {'/'.join(map(str, after))} steps",
                    mean=value,
                    tasks=tasks,
                    seeds=seeds,
                    wall_s=time.monotonic() - started,
                )
                add_csv(folder, "tuning", [row], order=list(GRIDS), command=COMMAND)
                print(f"{method}: {setting}: {value:.4f} ({row.wall_s:.0f} s)", flush=True)
            else:
                value = float(rows[setting]["mean"])
            found.append(value)
        return [tried[place] for place in np.argsort(found, kind="stable")]

    if quick:
        scores(10, settings(method)[:1])
    else:
        winner = scores(preset.steps, scores(FIRST_ROUND, settings(method))[:BEST])[0]
        for name, values in AGAIN.get(method, {}).items():
            scores(preset.steps, [winner | {name: value} for value in values], seeds=3)


def main() -> None:
    """Try, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GRIDS, default=list(GRIDS), metavar="METHOD")
    parser.add_argument("--quick", action="store_true", help="a smoke test in a temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tuning-")) if arguments.quick else RESULTS
    for method in arguments.only:
        measure(folder, method, arguments.quick)


if __name__ == "__main__":
    np.seterr(divide="ignore", invalid="ignore")
    main()
