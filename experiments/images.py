"""Few-shot images: every method on one set of images, by each policy of batch statistics, beside what the papers print.

python experiments/images.py glyphs                   # every method, 3 seeds, 4 minutes of training; an hour and a half
python experiments/images.py omniglot                 # every method for 15 minutes of training on the cores it has
python experiments/images.py omniglot --steps 20000 --only maml
python experiments/images.py omniglot_5w5s            # MAML for 20,000 outer steps of 5-way 5-shot; hours
python experiments/images.py mini_imagenet            # ANIL and first-order MAML for an hour each
python experiments/images.py omniglot --quick         # a smoke test on Glyphs in a temporary folder

Omniglot and mini-ImageNet must be there (docs/data.md). Runs are kept in runs/SET, so that what was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from table import RESULTS, Row, add_csv

import metaception as mc
from metaception.core.algorithm import MetaAlgorithm
from metaception.evaluation.curves import evaluate, tune_rate
from metaception.evaluation.published import IMAGES
from metaception.learners.supervised import Supervised
from metaception.methods.nearest import NearestNeighbour
from metaception.runs.loop import Loop
from metaception.runs.metrics import clock
from metaception.runs.pictures import over_time, save_pictures
from metaception.runs.preset import Preset, to_dict
from metaception.runs.presets import PRESETS

ROOT = Path(__file__).parent.parent
POLICIES = {
    "batch": "transductive",
    "support": "support statistics",
    "per_step": "statistics of each step",
    "one": "support and one query",  # the slowest: each query with the whole support set
}


@dataclass(frozen=True)
class Plan:
    """How the methods are compared on one set.

    Attributes:
        preset: the preset's name, with {} for the method.
        methods: the methods, in the order of the table.
        minutes: of training for each, all seeds together; None for a number of outer steps.
        steps: outer steps of each; None for the preset's.
        seeds: independent trainings of each.
        test_tasks: that the accuracies are means over, for each seed.
        policies: of batch statistics at the test.
    """

    preset: str
    methods: tuple[str, ...]
    minutes: float | None = None
    steps: int | None = None
    seeds: int = 1
    test_tasks: int = 1000
    policies: tuple[str, ...] = tuple(POLICIES)


_ALL = (
    "maml",
    "fomaml",
    "reptile",
    "maml++",
    "meta-sgd",
    "meta-lstm",
    "anil",
    "nil",
    "boil",
    "imaml",
    "protonet",
    "matching",
    "mann",
)
PLANS = {
    # The other policies take many times as long at the test as a method is trained here.
    "glyphs": Plan(
        "{}-glyphs",
        (*_ALL, "multiclass", "random", "nearest", "nearest-random", "nearest-features"),
        minutes=4,
        seeds=3,
        test_tasks=200,
        policies=("batch", "support"),
    ),
    "omniglot": Plan("{}-omniglot-5w1s", ("maml", "fomaml", "reptile", "anil", "nil", "protonet"), minutes=15),
    "omniglot_5w5s": Plan("{}-omniglot-5w5s", ("maml",), steps=20_000),
    "mini_imagenet": Plan("{}-mini-imagenet-5w1s", ("anil", "fomaml"), minutes=60, test_tasks=600),
}
TRAINED_AS = {"nil": "anil", "nearest-features": "multiclass"}
"""Whose run a method is tested on that differs from it at meta-test alone."""


def steps_in(algorithm: MetaAlgorithm, seeds: list[int], validation: mc.TaskDistribution, minutes: float) -> int:
    """How many outer steps of all seeds fit into so many minutes, from a minute's trial after compilation."""
    loop = Loop(algorithm, seeds, validation=validation, validation_tasks=2, patience=100)
    snapshot = loop.advance(loop.start(), 2)
    started, before = time.monotonic(), snapshot.step
    while time.monotonic() - started < min(60.0, 6.0 * minutes):
        snapshot = loop.advance(snapshot, snapshot.step + 5)
        jax.block_until_ready(snapshot.taken)
    return max(1, int(60 * minutes * (snapshot.step - before) / (time.monotonic() - started)))


def trained(preset: Preset, minutes: float | None, out: Path) -> tuple[mc.TrainedRun, Preset]:
    """The run in a folder, made or gone on with, and its preset."""
    validation, seeds = preset.tasks.validation_tasks(), list(range(preset.seed, preset.seed + preset.seeds))
    if (out / "config.json").exists():
        done = mc.load_run(out)
        preset = done.preset or preset
        # A pace that fell during the run does not give it more time than the others have.
        timeout = minutes is not None and max(clock(out).values(), default=0.0) >= 60 * minutes
        if done.step >= preset.steps or timeout:
            return done, preset
    elif minutes is not None and preset.steps:
        preset = dataclasses.replace(preset, steps=steps_in(preset.build(), seeds, validation, minutes))
    every = max(1, preset.steps // 50)
    if (out / "config.json").exists():
        every = json.loads((out / "config.json").read_text())["run"]["log_every"]
    run = mc.train(
        preset.build(),
        steps=preset.steps,
        seed=preset.seed,
        seeds=preset.seeds,
        folder=out,
        resume=True,
        validation=validation,
        validation_tasks=preset.validation_tasks,
        log_every=every,
        # On mini-ImageNet a validation costs as much as dozens of outer steps.
        validate_every=5 * every,
        preset=to_dict(preset),
        progress=True,
    )
    return run, preset


def figures(
    name: str, run: mc.TrainedRun, preset: Preset, policies: tuple[str, ...], *, shots: int, wall_s: float, tasks: int
) -> Iterator[Row]:
    """The rows of one method, by its name in the plan, at one number of shots: its accuracy after the last inner step, by
    each policy."""
    family: Any = preset.tasks
    method, test, steps = preset.method, preset.test_distribution(shots), preset.test.test_steps
    algorithm = preset.build(data=False)
    learner: Any = algorithm.test_learner
    for policy in policies:
        if policy != "batch" and not hasattr(learner, "statistics"):
            continue
        if policy == "per_step" and not isinstance(learner, Supervised):
            continue
        own = dataclasses.replace(learner, statistics=policy) if policy in ("support", "one") else learner
        tested = dataclasses.replace(algorithm, learner=own, at_test=lambda learner: learner)
        if method.tunes_rate:
            tuning = family.tuning_tasks(shots, preset.test.test_queries)
            tested, _ = tune_rate(tested, run.metas(), tuning, steps=steps, count=min(tasks, 200))
        metas = run.metas()
        if policy == "per_step":
            tested, metas = mc.per_step_statistics(tested, metas, steps=steps, tasks=family.train_tasks())
        result = evaluate(tested, metas, test, steps=steps, count=tasks).of("accuracy")
        paper = IMAGES.get((family.images, method.name, family.ways, shots, policy))
        yield Row(
            experiment=family.images,
            method=name,
            setting=f"{family.ways}-way {shots}-shot, {POLICIES[policy]}, {preset.test.test_queries} queries, {run.step} steps",
            metric="accuracy",
            mean=100 * float(result.mean[-1]),
            ci95=100 * float(result.interval[-1]),
            median=100 * float(result.median[-1]),
            tasks=tasks,
            seeds=len(run.seeds),
            paper=paper.value if paper else None,
            source=paper.source if paper else "",
            wall_s=wall_s,
        )


def page(rows: list[dict[str, str]]) -> str:
    """The table of results/SET.md: a row a method and setting, the paper's figure beside ours."""
    lines = [
        "| method | setting | accuracy, % | the paper | tasks × seeds | minutes |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        spread = f" ± {float(row['ci95']):.2f}" if row["ci95"] else ""
        counts, minutes = f"{row['tasks']} × {row['seeds']}", f"{float(row['wall_s']) / 60:.0f}"
        cells = (
            f"`{row['method']}`",
            row["setting"],
            f"{float(row['mean']):.2f}{spread}",
            row["paper"],
            counts,
            minutes,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def save(folder: Path, images: str, rows: list[Row], command: str) -> None:
    """Keep a method's rows as soon as they are there, and renew the table of the page."""
    kept = add_csv(folder, images, rows, order=PLANS[images].methods, command=command)
    text = folder / f"{images}.md"
    if text.exists():
        before, _, rest = text.read_text().partition("<!-- table -->\n")
        after = rest.partition("<!-- end -->")[2]
        text.write_text(f"{before}<!-- table -->\n{page(kept)}\n<!-- end -->{after}")


def small(preset: Preset) -> Preset:
    """The same on Glyphs, with a tiny network, for two outer steps."""
    tasks = dataclasses.replace(preset.tasks, images="glyphs")  # type: ignore[type-var]
    network: Any = preset.network
    network = dataclasses.replace(network, filters=2, blocks=1) if hasattr(network, "filters") else network
    method = dataclasses.replace(preset.method, meta_batch_size=2)
    test = dataclasses.replace(preset.test, test_shots=(1,), test_steps=1, test_queries=1)
    return dataclasses.replace(
        preset, tasks=tasks, network=network, method=method, steps=min(preset.steps, 2), validation_tasks=2, test=test
    )


def as_tested(preset: Preset, name: str, plan: Plan) -> Preset:
    """What was trained, with the method that tests it: its own, but for those of `TRAINED_AS`."""
    if name != "nearest-features":
        return dataclasses.replace(preset, method=PRESETS[plan.preset.format(name)].method)
    # A learner of episodes, on a network that has an output for each training class.
    tasks: Any = preset.tasks
    tasks = dataclasses.replace(tasks, batches=0, train_ways=tasks.outputs)
    return dataclasses.replace(preset, method=NearestNeighbour(), tasks=tasks)


def main() -> None:
    """Train, test, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", choices=PLANS)
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="these methods; the rows of the others are kept")
    parser.add_argument("--minutes", type=float, help="of training for each method")
    parser.add_argument("--steps", type=int, help="outer steps, instead of minutes")
    parser.add_argument("--runs", type=Path, help="where the runs are kept; runs/SET unless given")
    parser.add_argument("--quick", action="store_true", help="a smoke test on Glyphs in a temporary folder")
    arguments = parser.parse_args()
    plan = PLANS[arguments.images]
    chosen = arguments.only or plan.methods
    if not set(chosen) <= set(plan.methods):
        parser.error(f"--only: expected some of {', '.join(plan.methods)}")
    steps = arguments.steps or plan.steps
    folder = Path(tempfile.mkdtemp(prefix="images-")) if arguments.quick else RESULTS
    runs = folder if arguments.quick else arguments.runs or ROOT / "runs" / arguments.images
    minutes = arguments.minutes or (None if arguments.steps or arguments.quick else plan.minutes)
    command = f"python experiments/images.py {arguments.images}"
    if minutes is not None:
        command += f" --minutes {minutes:g}"
    if arguments.steps:
        command += f" --steps {arguments.steps}"
    for method in chosen:
        name = TRAINED_AS.get(method, method)
        preset = dataclasses.replace(PRESETS[plan.preset.format(name)], seeds=plan.seeds)
        if steps and preset.steps:
            preset = dataclasses.replace(preset, steps=steps)
        if arguments.quick:
            preset = small(preset)
        length = f"{minutes:g}min" if minutes is not None else f"{preset.steps}steps"
        out = runs / f"{name}-{length}"
        run, preset = trained(preset, minutes, out)
        seconds = max(clock(out).values(), default=0.0)
        for shots in preset.test.test_shots:
            tested = as_tested(preset, method, plan)
            tasks = 4 if arguments.quick else plan.test_tasks
            for row in figures(method, run, tested, plan.policies, shots=shots, wall_s=seconds, tasks=tasks):
                save(folder, row.experiment, [row], command)
        print(f"{method}: {folder / row.experiment}.csv", flush=True)
    drawn = {path.name.rpartition("-")[0]: path for path in sorted(runs.glob(f"*-{length}")) if clock(path)}
    if drawn:
        save_pictures(folder / "pictures", {f"{arguments.images}_time": over_time(drawn)})


if __name__ == "__main__":
    np.seterr(invalid="ignore")
    main()
