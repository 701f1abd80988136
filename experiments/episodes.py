"""Regression as reinforcement learning with episodes of length one (part of hessian.py)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from report import Report, figure
from table import Row

import metaception as mc
from metaception.analysis.episodes import (
    DeterministicPolicy,
    GaussianPolicy,
    Problem,
    World,
    expected_outer_loss,
)

RATE, SCALE = 0.05, 0.3
MODEL = mc.mlp(1, 1, widths=(4,), activation="tanh", initialiser="he")
AMPLITUDES = (0.5, 1.5)


def pay(setting: tuple[Any, Any], x: Any, a: Any) -> Any:
    """(a − A sin(x − φ))²."""
    amplitude, phase = setting
    return jnp.sum((a - amplitude * jnp.sin(x - phase)) ** 2)


def move(setting: tuple[Any, Any], x: Any, a: Any) -> Any:
    """x + a: reached only where an episode has a second step."""
    del setting
    return x + a


def worlds(key: Any, *, shots: int, queries: int) -> tuple[mc.Task, mc.Task]:
    """The same sinusoid as a regression task and as worlds to act in."""
    families = (mc.Sinusoids(shots, queries, amplitude=AMPLITUDES, told=told) for told in (False, True))
    plain, told = (jax.jit(family.sample)(key) for family in families)
    both = (World(half.inputs[:, :1], (half.inputs[0, 1], half.inputs[0, 2])) for half in told)
    return plain, mc.Task(*both)


@eqx.filter_jit
def gradient(learner: mc.Learner, meta: Any, task: mc.Task, key: Any, *, score_term: bool = True) -> Any:
    """The meta-gradient by `Unroll`, flattened."""
    return ravel_pytree(mc.Unroll(score_term=score_term).estimate(key, learner, meta, (), task)[0].gradient)[0]


def regression(rate: Any, steps: int = 1) -> mc.Initialisation:
    """The supervised learner."""
    return mc.Initialisation(model=MODEL, loss_function=mc.mean_squared_error, rate=jnp.asarray(rate), steps=steps)


def gaussian(rate: Any) -> GaussianPolicy:
    """The acting one."""
    return GaussianPolicy(MODEL, Problem(pay, move), jnp.asarray(rate), jnp.asarray(SCALE), steps=1)


@eqx.filter_jit
def exact(learner: GaussianPolicy, meta: Any, task: mc.Task, nodes: int) -> Any:
    """The meta-gradient of the expected outer loss, by quadrature, flattened."""
    return ravel_pytree(jax.grad(lambda meta: expected_outer_loss(learner, meta, task, nodes))(meta))[0]


def run(report: Report, *, steps: tuple[int, ...], draws: int, chunk: int, rates: tuple[float, ...], most: int) -> None:
    """Deterministic policies, then Gaussian ones: by sampling, and against regression."""
    meta = jax.jit(MODEL.init)(jax.random.key(1))
    _deterministic(report, meta, steps)
    _sampled(report, meta, draws, chunk)
    _gaps(report, meta, rates, most)


def _deterministic(report: Report, meta: Any, numbers: tuple[int, ...]) -> None:
    plain, acting = worlds(jax.random.key(3), shots=10, queries=10)
    lines = []
    for horizon in (1, 2):
        cells = []
        for steps in numbers:
            wanted = gradient(regression(RATE, steps), meta, plain, jax.random.key(0))
            policy = DeterministicPolicy(MODEL, Problem(pay, move, horizon), jnp.asarray(RATE), steps=steps)
            found = gradient(policy, meta, acting, jax.random.key(0))
            error = float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted))
            cells.append(figure(error))
            setting = f"H={horizon} inner steps={steps}"
            report.rows.append(Row("episodes", "deterministic policy", setting, "relative difference", error, tasks=1))
        lines.append([str(horizon), *cells])
    report.table("deterministic", ["H, inner steps", *map(str, numbers)], lines)


def _sampled(report: Report, meta: Any, draws: int, chunk: int) -> None:
    _, acting = worlds(jax.random.key(3), shots=2, queries=4)
    learner = gaussian(RATE)
    wanted = np.asarray(exact(learner, meta, acting, 40))
    lines = []
    for score_term in (True, False):

        @jax.jit
        def sample(key: Any, score_term: bool = score_term) -> Any:
            keys = jax.random.split(key, chunk)
            each = jax.vmap(lambda key: gradient(learner, meta, acting, key, score_term=score_term))(keys)
            return each.sum(axis=0), (each**2).sum(axis=0)

        sums = [sample(key) for key in jax.random.split(jax.random.key(0), draws // chunk)]
        total, squares = (np.sum(part, axis=0) for part in zip(*sums, strict=True))
        mean = total / draws
        errors = np.sqrt((squares / draws - mean**2) / draws)
        away = (mean - wanted) / errors
        error, noise = (float(np.linalg.norm(a) / np.linalg.norm(wanted)) for a in (mean - wanted, errors))
        root, worst = float(np.sqrt(np.mean(away**2))), float(np.abs(away).max())
        name = "with the score term" if score_term else "without it"
        for metric, value in (
            ("relative difference", error),
            ("relative standard error", noise),
            ("root mean square z", root),
            ("largest z", worst),
        ):
            report.rows.append(Row("episodes", "gaussian policy", f"{draws} draws {name}", metric, value, tasks=1))
        lines.append([name, f"{100 * error:.2f} %", f"{100 * noise:.2f} %", f"{root:.2f}", f"{worst:.1f}"])
    header = ["REINFORCE", "difference from exact", "standard error", "root mean square z", "largest of 13"]
    report.table("sampled", header, lines)


def _gaps(report: Report, meta: Any, rates: tuple[float, ...], most: int) -> None:
    """How far the acting policy's exact meta-gradient is from regression's, by α and by episodes a first observation."""
    plain, acting = worlds(jax.random.key(3), shots=1, queries=4)
    lines = []
    for episodes in range(1, most + 1):
        # The same x₁ in each episode: the expected inner gradient stays regression's, and only its noise falls.
        first = jnp.repeat(acting.support.first, episodes, axis=0)
        task = mc.Task(acting.support._replace(first=first), acting.query)
        gaps = []
        for rate in rates:
            wanted = gradient(regression(rate), meta, plain, jax.random.key(0))
            found = exact(gaussian(rate), meta, task, 24)
            gaps.append(float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted)))
            setting = f"K={episodes} alpha={rate:g}"
            report.rows.append(
                Row("episodes", "gaussian policy, exact", setting, "relative difference", gaps[-1], tasks=1)
            )
        slope = np.polyfit(np.log(rates), np.log(gaps), 1)[0]
        lines.append([str(episodes), *[figure(gap) for gap in gaps], f"{slope:.2f}"])
    report.table("gaps", ["episodes K", *[f"α = {rate:g}" for rate in rates], "log-log slope"], lines)
