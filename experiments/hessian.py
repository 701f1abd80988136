"""The Hessian derivation in numbers, and regression as episodes of length one: results/hessian.csv and .md.

python experiments/hessian.py          # 5 initialisations; 400,000 draws for the REINFORCE estimates
python experiments/hessian.py --quick  # a smoke test in a temporary folder
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import episodes
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from report import Report, figure, over_seeds
from report import is_quick as read_command_line
from table import Row

import metaception as mc
from metaception.analysis import hessian

RATE = 0.01
TASKS = 5
EXACT = 1e-12  # below this, what is left is rounding


def relative(wrong: Any, right: Any) -> Any:
    """‖wrong − right‖ / ‖right‖."""
    return jnp.linalg.norm(wrong - right) / jnp.linalg.norm(right)


def learner_of(model: mc.Model, steps: int) -> mc.Initialisation:
    """MAML's learner."""
    return mc.Initialisation(model=model, loss_function=mc.mean_squared_error, rate=jnp.asarray(RATE), steps=steps)


ONE_STEP = (
    "corrected: Σᵢ ∇Lᵢ (I − αHᵢ)",
    "printed: (Σᵢ ∇Lᵢ)(I − αHᵢ), the best task's Hessian",
    "printed, the worst task's Hessian",
    "printed, the mean Hessian",
    "no second-order term at all",
)
TWO_STEPS = (
    "(I − αH(θ₁))(I − αH(θ₀))",
    "the line above the last: I − αH(θ₀) − αH(θ₁)(I − αH(θ₀))",
    "the last line: (I − αH(θ₀) − αH(θ₁))(I − αH(θ₀))",
    "the factors in the other order",
    "no second-order term at all",
)


@eqx.filter_jit
def one_step(model: mc.Model, key: Any) -> Any:
    """The relative errors of `ONE_STEP` beside the meta-gradient of `Unroll`, summed over tasks."""
    key_meta, key_tasks = jax.random.split(key)
    learner, meta = learner_of(model, 1), model.init(key_meta)
    tasks = jax.vmap(mc.Sinusoids().sample)(jax.random.split(key_tasks, TASKS))
    loss = learner.fit_loss

    def over_tasks(of_task: Callable[[mc.Task], Any]) -> Any:
        return jax.lax.map(of_task, tasks)

    def estimated(estimator: mc.MetaGradient) -> Any:
        each = over_tasks(lambda task: estimator.estimate(key, learner, meta, (), task)[0].gradient)
        return jax.vmap(lambda gradient: ravel_pytree(gradient)[0])(each).sum(axis=0)

    exact, first = estimated(mc.Unroll()), estimated(mc.FirstOrder())
    corrected = over_tasks(lambda task: hessian.meta_gradient(loss, meta, task, RATE)).sum(axis=0)
    # As printed, the factor stands outside the sum, and which task's Hessian it holds is left open: each, or their mean.
    factors = over_tasks(lambda task: hessian.factor(loss, meta, task.support, RATE))
    printed = jnp.stack([relative(first @ factor, exact) for factor in factors])
    mean = relative(first @ factors.mean(axis=0), exact)
    return jnp.stack([relative(corrected, exact), printed.min(), printed.max(), mean, relative(first, exact)])


@eqx.filter_jit
def two_steps(model: mc.Model, key: Any) -> Any:
    """The relative errors of `TWO_STEPS` beside dθ₂/dθ₀ through the learner's own two steps."""
    key_meta, key_task = jax.random.split(key)
    learner, meta = learner_of(model, 2), model.init(key_meta)
    support = mc.Sinusoids().sample(key_task).support
    jacobian = hessian.adaptation_jacobian(learner, key, meta, support)
    first, second = hessian.step_factors(learner.fit_loss, meta, support, RATE, 2)
    identity = jnp.eye(len(first))
    line_above = first - (identity - second) @ first
    last_line = (first + second - identity) @ first
    forms = (second @ first, line_above, last_line, first @ second, identity)
    return jnp.stack([relative(form, jacobian) for form in forms])


def derivation(report: Report, *, widths: tuple[int, ...], names: tuple[Any, ...], seeds: int) -> None:
    """Both derivations with each activation."""
    for part, measure, forms in (("one step", one_step, ONE_STEP), ("two steps", two_steps, TWO_STEPS)):
        lines = [[form] for form in forms]
        for name in names:
            model = mc.mlp(1, 1, widths=widths, activation=name, initialiser="he")
            found = np.array([measure(model, key) for key in jax.random.split(jax.random.key(0), seeds)])
            for form, line, values in zip(forms, lines, found.T, strict=True):
                mean, ci95 = over_seeds(values)
                low, high = values.min(), values.max()
                line.append(f"≤ {high:.0e}" if high < EXACT else f"{figure(low)} to {figure(high)}")
                tasks = TASKS if part == "one step" else 1
                report.rows.append(Row(part, name, form, "relative error", mean, ci95, tasks=tasks, seeds=seeds))
        report.table(part, [part, *names], lines)


def main() -> None:
    """Everything in float64."""
    quick = read_command_line(__doc__)
    report = Report("hessian", quick)
    with jax.enable_x64(True):
        if quick:
            derivation(report, widths=(4,), names=("tanh",), seeds=2)
            episodes.run(report, steps=(1,), draws=200, chunk=100, rates=(0.02, 0.01), most=2)
        else:
            derivation(report, widths=(40, 40), names=("relu", "tanh", "softplus"), seeds=5)
            rates = (0.01, 0.005, 0.0025, 0.00125)
            episodes.run(report, steps=(1, 2, 5), draws=400_000, chunk=20_000, rates=rates, most=3)
    report.write()


if __name__ == "__main__":
    main()
