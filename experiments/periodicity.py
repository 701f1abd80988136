"""Claim: MAML fits the half of the range without support points; pretraining does not (part of claims.py)."""

from __future__ import annotations

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from report import Report, figure
from table import Row

import metaception as mc
from metaception.analysis.extrapolation import SupportElsewhere
from metaception.core.streams import stream_key
from metaception.evaluation.curves import evaluate, tune_rate

STEPS = (0, 1, 5, 10)
HALVES = {"x < 0": (-5.0, 0.0), "x > 0": (0.0, 5.0)}
SHOTS = 10


def half_tasks(seen: str) -> SupportElsewhere:
    """Ten support points in the half `seen`, the query on a grid over the other one."""
    (other,) = (half for half in HALVES if half != seen)
    return SupportElsewhere(
        mc.Sinusoids(shots=SHOTS, inputs=HALVES[seen]), mc.Sinusoids(queries=50, inputs=HALVES[other], grid=True)
    )


def run(report: Report, trained: dict[str, tuple[mc.MetaAlgorithm, Any]], count: int) -> None:
    """Measure on `count` test tasks a half, for each method's algorithm and final meta-parameters [seeds, ...].

    Each method takes steps of its α = 0.01, and of the size that is best after 10 steps on validation tasks of the same
    half.
    """
    lines = []
    for name, (algorithm, metas) in trained.items():
        for seen, tuned in itertools.product(HALVES, (False, True)):
            tasks, chosen, rate = half_tasks(seen), algorithm, float(algorithm.learner.rate)
            if tuned:
                chosen, rate = tune_rate(algorithm, metas, tasks, count=count)
            result = evaluate(chosen, metas, tasks, count=count)
            for step in STEPS:
                report.rows.append(
                    Row(
                        experiment="periodicity",
                        method=name,
                        setting=f"support in {seen} alpha {'tuned' if tuned else 'as trained'} {rate:g} step {step}",
                        metric="mse on the other half",
                        mean=float(result.mean[step]),
                        ci95=float(result.interval[step]),
                        median=float(result.median[step]),
                        tasks=count,
                        seeds=result.losses.shape[0],
                    )
                )
            cells = [f"{figure(result.mean[s], result.interval[s])} ({figure(float(result.median[s]))})" for s in STEPS]
            lines.append([f"`{name}`", seen, f"{rate:g}" + " (tuned)" * tuned, *cells])
    zero = {seen: _always_zero(seen, count) for seen in HALVES}
    lines += [["always 0", seen, "", *[figure(value)] * len(STEPS)] for seen, value in zero.items()]
    report.table(
        "periodicity", ["method", "support in", "α", *[f"{step} step{'s' * (step != 1)}" for step in STEPS]], lines
    )
    report.picture("periodicity", _draw(trained))


def _always_zero(seen: str, count: int) -> float:
    """The error, on the same test tasks, of the function that is 0 everywhere."""
    keys = jax.vmap(jax.random.split)(jax.random.split(stream_key(0, "test"), count))[:, 0]
    return float(jnp.mean(jax.jit(jax.vmap(half_tasks(seen).sample))(keys).query.targets ** 2))


def _draw(trained: dict[str, tuple[mc.MetaAlgorithm, Any]]) -> Any:
    """One task each way, by seed 0 of both methods, steps of 0.01."""
    names = ("maml", "pretrain")
    drawn, axes = plt.subplots(len(names), 2, figsize=(8, 4.6), sharex=True, sharey=True, layout="constrained")
    x = jnp.linspace(-5.0, 5.0, 200)[:, None]
    for row, name in zip(axes, names, strict=True):
        for axis, seen in zip(row, HALVES, strict=True):
            algorithm, meta = trained[name][0], jax.tree.map(lambda leaf: leaf[0], trained[name][1])
            # Both halves' tasks of one key are the same function; a large amplitude shows best.
            task = mc.Sinusoids(SHOTS, 200, amplitude=(4.0, 4.0), inputs=HALVES[seen]).sample(jax.random.key(2))
            whole = mc.Sinusoids(SHOTS, 200, amplitude=(4.0, 4.0), grid=True).sample(jax.random.key(2))
            axis.axvspan(*HALVES[seen], color="0.92", zorder=0)
            axis.plot(x, whole.query.targets, "k-", lw=1, label="truth")
            fits = _fits(algorithm.learner, meta, task.support, x)
            for steps, style in ((0, ":"), (1, "--"), (10, "-")):
                color = "C0" if name == "maml" else "C1"
                axis.plot(x, np.asarray(fits[steps]), style, color=color, label=f"{steps} steps")
            axis.plot(task.support.inputs, task.support.targets, "k^", ms=4, label="support")
            axis.set_title(f"{name}, support in {seen}", fontsize=9)
    axes[1, 1].legend(fontsize=7, ncols=2)
    return drawn


@eqx.filter_jit
def _fits(learner: Any, meta: Any, support: mc.Examples, x: Any) -> Any:
    """The curve at `x` after 0, 1, …, 10 inner steps: [11, n, 1]."""
    key = jax.random.key(0)

    def read(state: Any) -> Any:
        return learner.predict(learner.output(meta, state), x)

    start = learner.init(key, meta, support)
    after = mc.advance(learner, key, meta, start, support, length=max(STEPS), read=read)[1]
    return jnp.concatenate([read(start)[None], after])
