"""Reptile's expansion in numbers, and gradient alignment in training: results/reptile.csv, .md and pictures.

python experiments/reptile_expansion.py          # 5 initialisations; 3 seeds of 30,000 outer steps
python experiments/reptile_expansion.py --quick  # a smoke test in a temporary folder
"""

from __future__ import annotations

from typing import Any

import gradient_alignment
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from report import Report, figure, is_quick, over_seeds
from table import Row

import metaception as mc
from metaception.analysis.expansion import (
    Coefficients,
    Terms,
    expected_gradient,
    on_minibatches,
    predicted,
    regress,
    terms,
)
from metaception.metagrad.reptile import Reptile

ESTIMATORS = {"maml": mc.Unroll(), "fomaml": mc.FirstOrder(), "reptile": Reptile()}
RATES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
AT = 1e-4
BATCH = 5


def expansion(report: Report, *, gradients: tuple[int, ...], rates: tuple[float, ...], seeds: int, count: int) -> None:
    """The coefficients of each estimator at each number of gradients k and inner step size."""
    lines, curves = [], {}
    for k in gradients:
        for name in ESTIMATORS:
            found = _measure(name, k, rates, seeds, count)
            errors = []
            for rate in rates:
                expected, (average, inner, residual) = predicted(name, k, rate), found[rate]
                for term, values in (("AvgGrad", average), ("AvgGradInner", inner), ("residual", residual)):
                    mean, ci95 = over_seeds(values)
                    wanted = {"AvgGrad": expected.average, "AvgGradInner": expected.inner}.get(term)
                    source = "Nichol et al. 2018, section 5.1" if wanted else ""
                    setting = f"k={k} alpha={rate:g}"
                    report.rows.append(
                        Row(
                            "expansion",
                            name,
                            setting,
                            term,
                            mean,
                            ci95,
                            tasks=count,
                            seeds=seeds,
                            paper=wanted,
                            source=source,
                        )
                    )
                errors.append(np.mean(residual))
            curves[name, k] = errors
            slope = np.polyfit(np.log(rates[-3:]), np.log(errors[-3:]), 1)[0]
            report.rows.append(
                Row("expansion", name, f"k={k}", "log-log slope of the residual", float(slope), seeds=seeds)
            )
            expected, here = predicted(name, k, AT), found[AT]
            worst = max(
                np.abs(here.average / expected.average - 1).max(), np.abs(here.inner / expected.inner - 1).max()
            )
            theory, measured = (
                [figure(expected.average), figure(expected.inner / AT)],
                [f"{np.mean(here.average):.5f}", figure(*over_seeds(here.inner / AT))],
            )
            pairs = [cell for pair in zip(theory, measured, strict=True) for cell in pair]
            lines.append([f"`{name}`", str(k), *pairs, f"{100 * worst:.2f} %", f"{slope:.3f}"])
    header = ["estimator", "k", "AvgGrad: theory", "measured", "AvgGradInner / α: theory", "measured"]
    header += ["worst error", "slope of the residual"]
    report.table("expansion", header, lines)
    drawn, axis = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for (name, k), errors in curves.items():
        color, style = f"C{list(ESTIMATORS).index(name)}", {2: "o:", 3: "o--", 4: "o-"}[k]
        axis.loglog(rates, errors, style, ms=3, color=color, label=f"{name}, k = {k}")
    axis.loglog(rates, 1e5 * np.square(rates), "k-", lw=0.8, label="slope 2")
    axis.set(xlabel="α", ylabel="norm of what the two terms leave")
    axis.legend(fontsize=7)
    report.picture("expansion", drawn)


def _measure(name: str, k: int, rates: tuple[float, ...], seeds: int, count: int) -> dict[float, Coefficients]:
    """Coefficients and residual at each rate, each an array [seeds]."""
    held_out = name != "reptile"
    model = on_minibatches(mc.mlp(1, 1, widths=(20, 20), activation="tanh", initialiser="he"))

    def learner(rate: Any) -> mc.Initialisation:
        return mc.Initialisation(
            model=model, loss_function=mc.mean_squared_error, rate=rate, steps=k - held_out, batch_size=1
        )

    def one(key: Any, rate: Any) -> tuple[Terms, Any]:
        key_meta, key_tasks = jax.random.split(key)
        meta = model.init(key_meta)
        support = jax.vmap(mc.Sinusoids(shots=BATCH * k).sample)(jax.random.split(key_tasks, count)).support
        minibatches = jax.tree.map(lambda leaf: leaf.reshape(count, k, BATCH, 1), support)
        both = jax.vmap(
            lambda each: (
                terms(learner(rate).fit_loss, meta, each),
                expected_gradient(ESTIMATORS[name], learner(rate), meta, each, held_out=held_out),
            )
        )(minibatches)
        on, gradient = jax.tree.map(lambda leaf: leaf.mean(axis=0), both)
        # Reptile's estimate is a displacement, which has one more factor α than a gradient.
        return on, gradient if held_out else gradient / rate

    run = jax.jit(jax.vmap(one, in_axes=(0, None)))
    found = {}
    for rate in rates:
        on, gradient = run(jax.random.split(jax.random.key(0), seeds), jnp.asarray(rate))
        expected = predicted(name, k, rate)
        left = jnp.linalg.norm(gradient - expected.average * on.average - expected.inner * on.inner, axis=1)
        average, inner, _ = jax.vmap(regress)(gradient, on)
        found[rate] = Coefficients(*map(np.asarray, (average, inner, left)))
    return found


def main() -> None:
    """Both parts."""
    quick = is_quick(__doc__)
    report = Report("reptile", quick)
    # The coefficients need float64: at α = 1e-4 the second term is a few thousandths of the first. Most of the time is
    # compilation, even of the full run.
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.enable_x64(True):
        if quick:
            expansion(report, gradients=(2,), rates=(1e-3, 3e-4, AT), seeds=2, count=2)
        else:
            expansion(report, gradients=(2, 3, 4), rates=RATES, seeds=5, count=20)
    jax.config.update("jax_disable_most_optimizations", quick)
    if quick:
        gradient_alignment.run(report, ["joint_sgd", "maml"], checkpoints=[0, 10], seeds=2, count=4)
    else:
        checkpoints = [0, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000]
        gradient_alignment.run(report, list(gradient_alignment.METHODS), checkpoints=checkpoints, seeds=3, count=600)
    report.write()


if __name__ == "__main__":
    main()
