"""The agreement table: every estimator on every learner, against an oracle that does not use it, or its refusal.

`TABLE` is the table. Each cell names its oracle (tests/oracles.py); a cell that is missing fails `test_no_cell_is_missing`.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.flatten_util import ravel_pytree
from problems import PROBLEMS, problem

import metaception as mc
from metaception.core.metagradient import MetaGradient
from metaception.metagrad.reptile import Reptile

pytestmark = pytest.mark.usefixtures("float64")

WINDOW, HORIZON, SIGMA = 2, 4, 0.1

ESTIMATORS = {
    "unroll": lambda loss_at: mc.Unroll(loss_at=loss_at),
    "rematerialised": lambda loss_at: mc.Unroll(mode="rematerialise", loss_at=loss_at),
    "mixed": lambda loss_at: mc.Unroll(mode="mixed", loss_at=loss_at),
    "multi_step": lambda loss_at: mc.MultiStep(),  # before annealing, which tests/metagrad/test_multi_step.py has
    "first_order": lambda loss_at: mc.FirstOrder(loss_at=loss_at),
    "reptile": lambda loss_at: Reptile(),
    "implicit": lambda loss_at: mc.Implicit(cg_steps=30, tolerance=1e-12),
    "implicit_gmres": lambda loss_at: mc.Implicit(cg_steps=30, tolerance=1e-12, symmetric=False),
    "truncated": lambda loss_at: mc.Truncated(window=WINDOW, horizon=HORIZON),
    "evolution": lambda loss_at: mc.EvolutionStrategies(sigma=SIGMA, pairs=10, loss_at=loss_at),
    "persistent": lambda loss_at: mc.PersistentES(window=WINDOW, horizon=HORIZON, sigma=SIGMA, pairs=10),
}


class Exact(NamedTuple):
    """Successive estimates equal these oracles, to the error of a finite difference."""

    oracles: tuple[Any, ...]
    steps: int | None = None  # inner steps instead of the problem's own, where the oracle needs convergence


class OnAverage(NamedTuple):
    """The mean of independent estimates, each summed over a life, is within four standard errors of the oracle's."""

    oracle: Any
    draws: int = 1000


class Refused(NamedTuple):
    """`check` refuses, and the message holds these."""

    reason: str
    remedy: str


UNROLLED = Exact((oracles.of_the_loss,))
AT_EVERY_STEP = Exact((oracles.of_the_mean_loss,))
HELD = Exact((oracles.of_the_loss_with_inner_gradients_held,))
DISPLACED = Exact((oracles.displacement,))
FIRST_AND_LATER_WINDOW = Exact(
    tuple(partial(oracles.of_a_window, index=index, length=WINDOW) for index in range(HORIZON // WINDOW))
)
SMOOTHED = OnAverage(lambda p, task, draws: smoothed_loss(partial(oracles.loss, p), p, task, draws))
ENUMERATED = OnAverage(lambda p, task, draws: exactly(oracles.enumerated(p, task)), draws=20_000)
ENUMERATED_MEAN = OnAverage(lambda p, task, draws: exactly(oracles.enumerated_mean(p, task)), draws=20_000)
SMOOTHED_EXPECTATION = OnAverage(
    lambda p, task, draws: smoothed_loss(partial(oracles.expected_loss, p), p, task, draws), draws=2000
)
SMOOTHED_LIFE = OnAverage(
    lambda p, task, draws: oracles.smoothed(
        oracles.life_in_windows(p, task, length=WINDOW), p.meta, SIGMA, draws, windows=HORIZON // WINDOW
    )
)

NOT_DESCENDING = Refused("does not declare one (metaception.Descending)", "Use mode='rematerialise'")
NOT_AN_INITIALISATION = Refused("Reptile is defined for the initialisation alone", "Use Unroll or FirstOrder.")
NOT_STATIONARY = Refused("not declared to solve an equation (metaception.Stationary)", "Use a learner with a proximal")
NO_INNER_GRADIENT = Refused("no inner gradient to hold fixed (metaception.GradientBased)", "Use Unroll or Evolution")
DRAWS_ITS_DATA = Refused("it draws its data as a whole before it adapts", "Use Unroll, which adds the score term")


def only_at_the_start(*leaves):
    return Refused(
        f"in every window but the first the meta-gradient of {', '.join(leaves)} is exactly zero",
        "Use Unroll, or Persis",
    )


WEIGHTS = ["[0]['bias']", "[0]['weight']", "[1]['bias']", "[1]['weight']"]

TABLE: dict[str, dict[str, Exact | OnAverage | Refused]] = {
    "unroll": {
        "initialisation": UNROLLED,
        "proximal": UNROLLED,
        "rates": UNROLLED,
        "rule": UNROLLED,
        "bandit": ENUMERATED,
        "returns": UNROLLED,
    },
    "rematerialised": {
        "initialisation": UNROLLED,
        "proximal": UNROLLED,
        "rates": UNROLLED,
        "rule": UNROLLED,
        "bandit": ENUMERATED,
        "returns": UNROLLED,
    },
    "mixed": {
        "initialisation": UNROLLED,
        "proximal": UNROLLED,
        "rates": UNROLLED,
        "rule": UNROLLED,
        "bandit": NOT_DESCENDING,
        "returns": NOT_DESCENDING,
    },
    "multi_step": {
        "initialisation": AT_EVERY_STEP,
        "proximal": AT_EVERY_STEP,
        "rates": AT_EVERY_STEP,
        "rule": AT_EVERY_STEP,
        "bandit": ENUMERATED_MEAN,
        "returns": AT_EVERY_STEP,
    },
    "first_order": {
        "initialisation": HELD,
        "proximal": HELD,
        "rates": HELD,
        "rule": HELD,
        "bandit": NO_INNER_GRADIENT,
        "returns": Refused("the meta-gradient of ['gamma'], ['lambda_'] is exactly zero", "Use Unroll or Evolution"),
    },
    "reptile": {
        "initialisation": DISPLACED,
        "proximal": DISPLACED,
        "rates": NOT_AN_INITIALISATION,
        "rule": NOT_AN_INITIALISATION,
        "bandit": NOT_AN_INITIALISATION,
        "returns": NOT_AN_INITIALISATION,
    },
    "implicit": {
        "initialisation": NOT_STATIONARY,
        "proximal": Exact((oracles.through_the_proximal_solution,), steps=120),
        "rates": NOT_STATIONARY,
        "rule": NOT_STATIONARY,
        "bandit": NOT_STATIONARY,
        "returns": Refused("conjugate gradients need a symmetric ∂F/∂adapted", "Use Implicit(symmetric=False)"),
    },
    "implicit_gmres": {
        "initialisation": NOT_STATIONARY,
        "proximal": Exact((oracles.through_the_proximal_solution,), steps=120),
        "rates": NOT_STATIONARY,
        "rule": NOT_STATIONARY,
        "bandit": NOT_STATIONARY,
        "returns": Exact((oracles.through_the_fixed_point,), steps=120),
    },
    "truncated": {
        "initialisation": only_at_the_start(*WEIGHTS),
        "proximal": FIRST_AND_LATER_WINDOW,
        "rates": only_at_the_start(*(f".initialisation{name}" for name in WEIGHTS)),
        "rule": FIRST_AND_LATER_WINDOW,
        "bandit": DRAWS_ITS_DATA,
        "returns": FIRST_AND_LATER_WINDOW,
    },
    "evolution": {
        "initialisation": SMOOTHED,
        "proximal": SMOOTHED,
        "rates": SMOOTHED,
        "rule": SMOOTHED,
        "bandit": SMOOTHED_EXPECTATION,
        "returns": SMOOTHED,
    },
    "persistent": {
        "initialisation": SMOOTHED_LIFE,
        "proximal": SMOOTHED_LIFE,
        "rates": SMOOTHED_LIFE,
        "rule": SMOOTHED_LIFE,
        "bandit": DRAWS_ITS_DATA,
        "returns": SMOOTHED_LIFE,
    },
}


def cells(*kinds):
    """The cells of these kinds, as the parameters of a test."""
    return pytest.mark.parametrize(
        ("how", "what"),
        [
            pytest.param(how, what, id=f"{how}-{what}")
            for how, row in TABLE.items()
            for what, cell in row.items()
            if isinstance(cell, kinds)
        ],
    )


def look_up(how, what):
    """A cell, its problem and its estimator."""
    cell, given = TABLE[how][what], problem(what)
    if isinstance(cell, Exact) and cell.steps is not None:
        given = given.with_steps(cell.steps)
    return cell, given, ESTIMATORS[how](given.loss_at)


def estimates(estimator, given, task, key, count=1):
    """`count` successive gradients, the estimator's state carried on: an array [count, P]."""
    key_init, *keys = jax.random.split(key, count + 1)
    meta = given.meta
    state = estimator.init(key_init, given.learner, meta, task)
    gradients = []
    for key_estimate in keys:
        estimate, state = estimator.estimate(key_estimate, given.learner, meta, state, task)
        gradients.append(ravel_pytree(estimate.gradient)[0])
    return jnp.stack(gradients)


def smoothed_loss(loss, given, task, draws):
    return oracles.smoothed(lambda meta: loss(meta, task), given.meta, SIGMA, draws)


def exactly(gradient):
    """An oracle without an error of its own, as one draw."""
    return ravel_pytree(gradient)[0][None]


KEY = jax.random.key(11)


def test_no_cell_is_missing():
    """Every estimator of the library, and every form of it here, meets every learner."""
    assert list(TABLE) == list(ESTIMATORS)
    assert all(tuple(row) == PROBLEMS for row in TABLE.values())

    def final(kind):
        """The classes below `kind` that can be made; abstract ones group them."""
        below = {leaf for child in kind.__subclasses__() for leaf in final(child)}
        return below or {kind}

    public = {kind for kind in final(MetaGradient) if kind.__module__.startswith("metaception.")}
    assert {type(make("last")) for make in ESTIMATORS.values()} == public
    modes = {make("last").mode for make in ESTIMATORS.values() if isinstance(make("last"), mc.Unroll)}
    assert modes == {"reverse", "rematerialise", "mixed"}


@cache
def expected(what, steps, oracle):
    """An oracle's gradients on both tasks of a problem, computed once for all estimators that share it: [2, P]."""
    given = problem(what) if steps is None else problem(what).with_steps(steps)
    tasks = [jax.tree.map(lambda a, i=i: a[i], given.tasks) for i in range(2)]
    return np.array([ravel_pytree(oracle(given, task))[0] for task in tasks])


@cells(Exact)
def test_equals_its_oracle(how, what):
    """Compiled, and vectorised over two tasks: [2, estimates, P]."""
    cell, given, estimator = look_up(how, what)
    estimator.check(given.learner, given.meta, given.task)
    run = partial(estimates, estimator, given, key=KEY, count=len(cell.oracles))
    oracle = np.stack([expected(what, cell.steps, each) for each in cell.oracles], axis=1)
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(given.tasks), oracle, rtol=1e-6, atol=1e-8)
    # The problem must be able to tell: no oracle is zero everywhere, and no two tasks look alike.
    assert np.abs(oracle).max(axis=-1).min() > 1e-3
    assert not np.allclose(*oracle, rtol=0.01)


@pytest.mark.parametrize("how", ESTIMATORS)
def test_compiled_and_vectorised_agree(how):
    """To the rounding error, and whether the estimate is drawn or not."""
    what = next(what for what in ("rule", "proximal") if not isinstance(TABLE[how][what], Refused))
    given = problem(what)
    estimator = ESTIMATORS[how](given.loss_at)
    run = partial(estimates, estimator, given, key=KEY)
    tasks = [jax.tree.map(lambda a, i=i: a[i], given.tasks) for i in range(2)]
    compiled = jax.jit(run)
    one_by_one = [compiled(task) for task in tasks]
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(given.tasks), one_by_one, rtol=1e-9, atol=1e-12)


@cells(Exact)
def test_can_be_differentiated_again(how, what):
    """The derivative of ‖meta-gradient‖² in the meta-parameters, against differences of it."""
    cell, given, estimator = look_up(how, what)
    count = len(cell.oracles)
    key_init, *_ = jax.random.split(KEY)
    # A truncated life's earlier windows are the estimator's state, and held fixed.
    state = estimator.init(key_init, given.learner, given.meta, given.task)
    for _ in range(count - 1):
        _, state = estimator.estimate(KEY, given.learner, given.meta, state, given.task)

    def size(meta):
        gradient = estimator.estimate(KEY, given.learner, meta, state, given.task)[0].gradient
        return jnp.sum(ravel_pytree(gradient)[0] ** 2)

    derivative = jax.jit(jax.value_and_grad(size))  # one program for both sides
    if how == "first_order":  # what is held fixed is held fixed for outer derivatives too
        held = oracles.loss_with_inner_gradients_held(given, given.meta, given.task)
        expected = oracles.central_differences(
            lambda meta: jnp.sum(ravel_pytree(jax.grad(held)(meta))[0] ** 2), given.meta
        )
    else:
        expected = oracles.differences_of_compiled(lambda meta: derivative(meta)[0], given.meta)
    actual, expected = ravel_pytree(derivative(given.meta)[1])[0], ravel_pytree(expected)[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)
    assert np.abs(expected).max() > 1e-3


@cells(Refused)
def test_refuses(how, what):
    """Naming both parties, the reason and the remedy."""
    cell, given, estimator = look_up(how, what)
    with pytest.raises(mc.Unsuitable) as caught:
        estimator.check(given.learner, given.meta, given.task)
    message = str(caught.value)
    parties = f"{type(estimator).__name__} cannot estimate the meta-gradient of {type(given.learner).__name__}: "
    assert message.startswith(parties)
    assert cell.reason in message
    assert cell.remedy in message


@cells(OnAverage)
def test_equals_its_oracle_on_average(how, what):
    cell, given, estimator = look_up(how, what)
    estimator.check(given.learner, given.meta, given.task)
    windows = HORIZON // WINDOW if how == "persistent" else 1

    @jax.jit
    def run(keys):
        return jax.vmap(lambda key: jnp.sum(estimates(estimator, given, given.task, key, windows), 0))(keys)

    agree(run(jax.random.split(KEY, cell.draws)), cell.oracle(given, given.task, 4000))


def agree(drawn, expected):
    """Two means within four standard errors of their difference, which is small beside what is measured."""
    drawn, expected = np.asarray(drawn), np.asarray(expected)
    error = np.hypot(standard_error(drawn), standard_error(expected))
    assert 4 * error.max() < 0.25 * np.abs(expected.mean(0)).max()
    np.testing.assert_array_less(np.abs(drawn.mean(0) - expected.mean(0)), 4 * error + 1e-12)


def standard_error(draws):
    """Of the mean over the first axis; zero for a single, exact draw."""
    return draws.std(axis=0, ddof=1) / np.sqrt(len(draws)) if len(draws) > 1 else np.zeros(draws.shape[1])
