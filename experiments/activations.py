"""Claim: the second-order term is small for ReLU, and little is lost without it (part of claims.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from report import Report, figure, over_seeds
from table import Row
from training import train

import metaception as mc
from metaception.analysis.second_order import Activation, difference, split_hessian_product, straightened
from metaception.core.streams import stream_key
from metaception.evaluation.curves import evaluate

ACTIVATIONS: dict[str, Activation] = {"relu": jax.nn.relu, "tanh": jnp.tanh, "softplus": jax.nn.softplus}
TASKS = 25
MEASURES = {
    "relative_size": "‖second-order term‖ / ‖exact‖",
    "cosine": "cosine of exact and first-order",
    "cosine_per_task": "the same for single tasks",
    "gauss_newton": "loss curvature",
    "layers": "products of layers",
    "activations": "φ″",
}
STEPS = (0, 1, 5, 10)


def run(
    report: Report, names: Sequence[str], *, checkpoints: Sequence[int], seeds: int, batches: int, count: int
) -> None:
    """Train MAML and FOMAML with each activation; compare their meta-gradients along MAML's training, and the ends."""
    lines, ends, curves = [], [], {}
    for activation in names:
        model = mc.mlp(1, 1, activation=activation, initialiser="he")
        maml, fomaml = mc.MAML().build(model, mc.Sinusoids()), mc.FOMAML().build(model, mc.Sinusoids())
        metas = train(maml, checkpoints, seeds)
        keys = jax.random.split(stream_key(0, "test"), (batches, TASKS))
        curves[activation] = []
        for step, meta in zip(checkpoints, metas, strict=True):
            found = _meta_gradients(maml, fomaml, ACTIVATIONS[activation], meta, keys)
            cells, spread = [], {}
            for measure in MEASURES:
                mean, ci95 = spread[measure] = over_seeds(np.asarray(found[measure]).mean(axis=1))
                cells.append(figure(mean, ci95))
                report.rows.append(
                    Row(
                        "activations",
                        activation,
                        f"outer step {step}",
                        measure,
                        mean,
                        ci95,
                        tasks=keys.size,
                        seeds=seeds,
                    )
                )
            curves[activation].append([spread[name] for name in ("relative_size", "cosine")])
            lines.append([activation, f"{step:,}", *cells])
        trained = {"maml": (maml, metas[-1]), "fomaml": (fomaml, train(fomaml, checkpoints, seeds)[-1])}
        ends += _ends(report, activation, trained, count)
    report.table("activations", ["activation", "outer steps", *MEASURES.values()], lines)
    report.table("gap", ["activation", "method", *[f"{step} step{'s' * (step != 1)}" for step in STEPS]], ends)
    report.picture("activations", _draw(checkpoints, curves))


@eqx.filter_jit
def _meta_gradients(
    maml: mc.MetaAlgorithm, fomaml: mc.MetaAlgorithm, activation: Activation, metas: Any, keys: Any
) -> dict[str, Any]:
    """Measures [seeds, batches] of the meta-gradients on meta-batches of tasks; `keys` [batches, tasks]."""
    straight = _network(straightened(activation))
    learner = maml.learner

    def of_task(meta: Any, key: Any) -> tuple[Any, Any, Any]:
        key_task, key_estimate = jax.random.split(key)
        task = maml.tasks.sample(key_task)
        exact, first = (a.meta_gradient(key_estimate, meta, task).gradient for a in (maml, fomaml))
        # FOMAML's gradient v is the query gradient at the adapted parameters, and the term it leaves out is −α H v.
        parts = split_hessian_product(
            learner.model.apply, straight, mc.mean_squared_error, meta, task.support, vector=first
        )
        return exact, first, jax.tree.map(lambda part: learner.rate * part, parts)

    def of_batch(meta: Any, keys: Any) -> dict[str, Any]:
        each = jax.vmap(of_task, in_axes=(None, 0))(meta, keys)
        exact, first, parts = jax.tree.map(lambda leaf: leaf.mean(axis=0), each)
        whole, single = difference(exact, first), jax.vmap(difference)(each[0], each[1])
        size = optax.tree.norm(exact)
        return {
            "relative_size": whole.relative_size,
            "cosine": whole.cosine,
            "cosine_per_task": single.cosine.mean(),
            **{name: optax.tree.norm(getattr(parts, name)) / size for name in parts._fields},
        }

    return jax.vmap(jax.vmap(of_batch, in_axes=(None, 0)), in_axes=(0, None))(metas, keys)


def _network(activation: Activation) -> Any:
    """What `mlp` applies, with any activation."""

    def apply(parameters: list[dict[str, Any]], x: Any) -> Any:
        for layer in parameters[:-1]:
            x = activation(x @ layer["weight"] + layer["bias"])
        return x @ parameters[-1]["weight"] + parameters[-1]["bias"]

    return apply


def _ends(
    report: Report, activation: str, trained: dict[str, tuple[mc.MetaAlgorithm, Any]], count: int
) -> list[list[str]]:
    """The rows of the final test errors of both methods, and of the gap between them."""
    results = {
        name: evaluate(algorithm, metas, mc.Sinusoids(queries=100, grid=True), count=count)
        for name, (algorithm, metas) in trained.items()
    }
    lines = []
    for name, result in results.items():
        for step in STEPS:
            report.rows.append(
                Row(
                    experiment="activations",
                    method=name,
                    setting=f"{activation} 10-shot step {step}",
                    metric="mse",
                    mean=float(result.mean[step]),
                    ci95=float(result.interval[step]),
                    median=float(result.median[step]),
                    tasks=count,
                    seeds=result.losses.shape[0],
                )
            )
        cells = [f"{figure(result.mean[s], result.interval[s])} ({figure(float(result.median[s]))})" for s in STEPS]
        lines.append([activation, f"`{name}`", *cells])
    # Both methods have the same seeds and the same test tasks, so the difference is taken seed by seed.
    gaps = results["fomaml"].losses.mean(axis=1) - results["maml"].losses.mean(axis=1)
    cells = []
    for step in STEPS:
        mean, ci95 = over_seeds(gaps[:, step])
        cells.append(figure(mean, ci95))
        report.rows.append(
            Row(
                experiment="activations",
                method="fomaml minus maml",
                setting=f"{activation} 10-shot step {step}",
                metric="mse",
                mean=mean,
                ci95=ci95,
                tasks=count,
                seeds=len(gaps),
            )
        )
    return [*lines, [activation, "gap", *cells]]


def _draw(checkpoints: Sequence[int], curves: dict[str, list[list[tuple[float, float]]]]) -> Any:
    """Lines through the means, bands over their 95 % intervals over seeds."""
    drawn, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    titles = ("size of the second-order term / exact", "cosine of exact and first-order")
    for axis, title, index in zip(axes, titles, (0, 1), strict=True):
        for activation, values in curves.items():
            mean, ci95 = np.array(values)[:, index].T
            axis.plot(checkpoints, mean, "o-", ms=3, label=activation)
            axis.fill_between(checkpoints, mean - ci95, mean + ci95, alpha=0.2, lw=0)
        axis.set_xscale("symlog", linthresh=1000)
        axis.set_xticks(checkpoints, [f"{step // 1000}k" if step else "0" for step in checkpoints])
        axis.minorticks_off()
        axis.set(title=title, xlabel="outer steps")
    axes[0].legend()
    return drawn
