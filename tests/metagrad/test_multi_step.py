"""The multi-step loss, and step sizes for each layer and inner step: against plain loops and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.flatten_util import ravel_pytree
from problems import Problem, curves, network, problem

import metaception as mc

pytestmark = pytest.mark.usefixtures("float64")

KEY = jax.random.key(0)


def step_rates() -> Problem:
    """Three steps, whose sizes differ from array to array and from step to step."""
    learner = mc.LearnedStepRates(network(), mc.mean_squared_error, jnp.asarray(0.1), steps=3)
    meta = learner.init_meta(jax.random.key(1))
    shifts = iter(jnp.cos(jnp.arange(100.0)))
    rates = jax.tree.map(lambda r: r + 0.1 * jnp.array([next(shifts) for _ in r]), meta.rates)
    return Problem(learner, meta._replace(rates=rates), curves())


@pytest.mark.parametrize("taken", [0, 3, 9, 10, 25])
@pytest.mark.parametrize("name", ["initialisation", "step_rates"])
def test_the_gradient_is_that_of_the_weighted_losses(name, taken):
    given = step_rates() if name == "step_rates" else problem(name)
    estimator = mc.MultiStep(annealed_over=10)
    estimator.check(given.learner, given.meta, given.task)
    # Written out: equal at first, along a line, a floor, and from the tenth outer step on the last loss alone.
    earlier = {0: 1 / 3, 3: 0.7 / 3, 9: 0.1 / 3, 10: 0.0, 25: 0.0}[taken]
    weights = [earlier, earlier, 1 - 2 * earlier]

    def weighted(meta):
        states = oracles.life(given, meta, given.task)
        losses = (oracles.judged(given, meta, given.task, [state], "last") for state in states)
        return sum(weight * loss for weight, loss in zip(weights, losses, strict=True))

    state = jnp.asarray(taken, jnp.int32)
    estimate, after = jax.jit(lambda: estimator.estimate(KEY, given.learner, given.meta, state, given.task))()
    expected = ravel_pytree(oracles.central_differences(weighted, given.meta))[0]
    np.testing.assert_allclose(ravel_pytree(estimate.gradient)[0], expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(estimate.loss, weighted(given.meta), rtol=1e-12)
    assert int(after) == taken + 1


def test_no_weight_falls_below_the_floor_and_they_add_up_to_one():
    weights = mc.MultiStep(annealed_over=1000).weights(jnp.asarray(999), 5)
    np.testing.assert_allclose(weights, [0.006, 0.006, 0.006, 0.006, 0.976], rtol=1e-12)


@pytest.mark.parametrize("mode", ["rematerialise", "mixed"])
def test_its_memory_modes_give_the_same_gradient(mode):
    given = step_rates()
    plain, other = (
        mc.MultiStep(mode=how).estimate(KEY, given.learner, given.meta, jnp.zeros((), jnp.int32), given.task)[0]
        for how in ("reverse", mode)
    )
    np.testing.assert_allclose(ravel_pytree(other.gradient)[0], ravel_pytree(plain.gradient)[0], rtol=1e-9)


def test_steps_beyond_the_learned_ones_take_the_last_step_size():
    line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
    learner = mc.LearnedStepRates(line, mc.mean_squared_error, jnp.array(0.25), steps=2)
    one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
    meta = learner.init_meta(KEY)._replace(rates=jnp.array([0.0, 0.25]))
    state = mc.unroll(learner, KEY, meta, one, length=4)
    assert float(state.parameters) == 3.5  # stays, then goes half of the way to 4 three times


def test_it_is_refused_where_there_is_no_inner_step():
    given = problem("initialisation").with_steps(0)
    with pytest.raises(ValueError, match="there is none"):
        mc.MultiStep().check(given.learner, given.meta, given.task)


def test_the_count_of_outer_steps_is_kept_by_the_algorithm():
    """The loss that is reported changes from the mean over steps to that of the last once annealing is over."""
    line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
    x, y = jnp.array([[[1.0]]]), jnp.array([[[4.0]]])
    method = mc.MAMLPlusPlus(inner_rate=0.25, inner_steps=2, multi_step=2, outer_rate=0.0, meta_batch_size=2)
    algorithm = method.build(line, mc.ArrayTasks(x, y, x, y))
    state = algorithm.init(KEY)
    losses = []
    for key in jax.random.split(KEY, 3):
        state, info = algorithm.step(key, state)
        losses.append(float(info.loss))
    # After the steps: (2 − 4)² = 4 and (3 − 4)² = 1; halves, then a quarter and three quarters, then the last.
    np.testing.assert_allclose(losses, [2.5, 1.75, 1.0], rtol=1e-12)
