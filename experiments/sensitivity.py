"""Claim: the loss falls faster along its gradient from a meta-learned initialisation (part of claims.py)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from report import Report, figure, over_seeds
from table import Row

import metaception as mc
from metaception.analysis.sensitivity import Sensitivity, loss_along_gradient, sensitivity
from metaception.core.streams import stream_key

RATE = 0.01
DISTANCES = np.linspace(0.0, 1.0, 41)
MEASURES = {
    "support_slope": "−dL_S/dα at 0 = ‖∇L_S‖²",
    "query_slope": "−dL_Q/dα at 0",
    "before": "query MSE before",
    "after": "after one step",
    "drop": "drop",
    "distance": "‖θ′ − θ‖",
    "drop_per_distance": "mean of each task's drop / ‖θ′ − θ‖",
}


def run(report: Report, trained: dict[str, tuple[mc.MetaAlgorithm, Any]], count: int) -> None:
    """Measure one step of α = 0.01 on `count` test tasks from each method's meta-parameters [seeds, ...]."""
    tasks = jax.vmap(mc.Sinusoids(queries=100, grid=True).sample)(jax.random.split(stream_key(0, "test"), count))
    lines, curves = [], {}
    for name, (algorithm, metas) in trained.items():
        found, curve = _measure(algorithm, metas, tasks)
        curves[name] = np.asarray(curve).mean(axis=(0, 1))
        cells = []
        for measure in MEASURES:
            values = np.asarray(getattr(found, measure), np.float64)
            mean, ci95 = over_seeds(values.mean(axis=1))
            cells.append(figure(mean, ci95))
            report.rows.append(
                Row(
                    experiment="sensitivity",
                    method=name,
                    setting=f"10-shot alpha={RATE:g}",
                    metric=measure,
                    mean=mean,
                    ci95=ci95,
                    median=float(np.median(values)),
                    tasks=count,
                    seeds=values.shape[0],
                )
            )
        lines.append([f"`{name}`", *cells])
    report.table("sensitivity", ["initialisation", *MEASURES.values()], lines)
    drawn, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for name, curve in curves.items():
        axis.plot(DISTANCES, curve, label=name)
    axis.set(xlabel="distance along the support gradient", ylabel="mean query MSE", ylim=(0, 6))
    axis.legend()
    report.picture("sensitivity", drawn)


@eqx.filter_jit
def _measure(algorithm: mc.MetaAlgorithm, metas: Any, tasks: mc.Task) -> tuple[Sensitivity, Any]:
    """Both analyses for every seed and task: leaves [seeds, tasks, ...]."""
    loss = algorithm.learner.fit_loss

    def one(meta: Any, task: mc.Task) -> tuple[Sensitivity, Any]:
        return sensitivity(loss, meta, task, RATE), loss_along_gradient(loss, meta, task, jnp.asarray(DISTANCES))

    return jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))(metas, tasks)
