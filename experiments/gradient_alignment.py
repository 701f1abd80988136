"""Gradient alignment between minibatches during joint SGD, Reptile and MAML (part of reptile_expansion.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from report import Report, figure, over_seeds
from table import Row
from training import train

import metaception as mc
from metaception.analysis.alignment import Alignment, gradient_alignment
from metaception.core.streams import stream_key

BATCH = 10
SPLIT = mc.Sinusoids(shots=BATCH, queries=BATCH)
# One gradient step a task is joint SGD. Its outer step is five times Reptile's, so that both follow AvgGrad as fast.
METHODS: dict[str, tuple[Any, mc.Sinusoids]] = {
    "joint_sgd": (mc.Reptile(inner_steps=1, outer_rate=0.5, inner_batch_size=BATCH), mc.Sinusoids(shots=BATCH)),
    "reptile": (mc.Reptile(inner_steps=5, outer_rate=0.1, inner_batch_size=BATCH), mc.Sinusoids(shots=5 * BATCH)),
    "pretrain": (mc.Pretrain(), SPLIT),
    "maml": (mc.MAML(), SPLIT),
}
MEASURES = ("cosine", "share", "inner", "squared_norm", "cosine_between_tasks", "share_between_tasks")


def run(report: Report, names: Sequence[str], *, checkpoints: Sequence[int], seeds: int, count: int) -> None:
    """Train the methods `names` from the same initialisations, and measure on `count` test tasks at the checkpoints."""
    model = mc.mlp(1, 1, initialiser="he")
    tasks = jax.jit(jax.vmap(SPLIT.sample))(jax.random.split(stream_key(0, "test"), count))
    lines, curves = [], {}

    def loss(parameters: Any, examples: mc.Examples) -> Any:
        return mc.mean_squared_error(model.apply(parameters, examples.inputs), examples.targets)

    for name in names:
        method, trained_on = METHODS[name]
        algorithm = method.build(model, trained_on, steps=checkpoints[-1])
        curves[name] = []
        for step, metas in zip(checkpoints, train(algorithm, checkpoints, seeds), strict=True):
            found = _measure(loss, metas, tasks)
            summary = {measure: over_seeds(np.asarray(found[measure])) for measure in MEASURES}
            report.rows += [
                Row("alignment", name, f"outer step {step}", measure, mean, ci95, tasks=count, seeds=seeds)
                for measure, (mean, ci95) in summary.items()
            ]
            curves[name].append([summary[measure][0] for measure in ("cosine", "share")])
            if step in (checkpoints[0], checkpoints[len(checkpoints) // 2], checkpoints[-1]):
                lines.append([f"`{name}`", f"{step:,}", *[figure(*summary[measure]) for measure in MEASURES]])
    header = [
        "trained by", "outer steps", "cosine", "E[g₁·g₂] / E‖g‖²", "E[g₁·g₂]", "E‖g‖²", "cosine, two tasks", "ratio, two tasks",
    ]  # fmt: skip
    report.table("alignment", header, lines)
    drawn, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, title, index in zip(axes, ("mean cosine of g₁ and g₂", "E[g₁·g₂] / E‖g‖²"), (0, 1), strict=True):
        for name, values in curves.items():
            axis.plot(checkpoints, np.array(values)[:, index], "o-", ms=3, label=name)
        axis.set(title=title, xlabel="outer steps")
    axes[0].legend(fontsize=8)
    report.picture("alignment", drawn)


@eqx.filter_jit
def _measure(loss: Any, metas: Any, tasks: mc.Task) -> dict[str, Any]:
    """Measures [seeds], of minibatches of one task and, as a control, of two tasks."""

    def one(meta: Any) -> dict[str, Any]:
        def mean(first: mc.Examples, second: mc.Examples) -> Alignment:
            each = jax.vmap(lambda a, b: gradient_alignment(loss, meta, a, b))(first, second)
            return jax.tree.map(jnp.mean, each)

        within = mean(tasks.support, tasks.query)
        between = mean(tasks.support, jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=0), tasks.query))
        return {
            **within._asdict(),
            "share": within.inner / within.squared_norm,
            "cosine_between_tasks": between.cosine,
            "share_between_tasks": between.inner / between.squared_norm,
        }

    return jax.vmap(one)(metas)
