"""One outer step: sampling, mapping, aggregation, the update, and what happens to a bad gradient."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from problems import network, problem

import metaception as mc
from metaception.core.task import sample_batch

KEY = jax.random.key(5)


def curve(key):
    """A task of four support and three query points on a sinusoid of random height."""
    key_x, key_height = jax.random.split(key)
    x = jax.random.uniform(key_x, (7, 1), minval=-2.0, maxval=2.0)
    y = 2 * jax.random.normal(key_height) * jnp.sin(2 * x)
    return mc.Task(mc.Examples(x[:4], y[:4]), mc.Examples(x[4:], y[4:]))


def algorithm(estimator=None, *, learner=None, outer=None, aggregate=jnp.mean, tasks=curve, batch=3, mapping=None):
    return mc.MetaAlgorithm(
        learner=learner
        or mc.Initialisation(model=network(), loss_function=mc.mean_squared_error, rate=jnp.asarray(0.1), steps=2),
        estimator=estimator or mc.Unroll(),
        tasks=mc.FunctionTasks(tasks),
        outer=outer or optax.sgd(1.0),
        meta_batch_size=batch,
        mapping=mapping or mc.Vectorised(),
        aggregate=aggregate,
    )


def log_mean_exp(losses):
    """An aggregate that dwells on the hard tasks."""
    return jax.nn.logsumexp(losses) - jnp.log(losses.size)


@pytest.mark.parametrize("aggregate", [jnp.mean, log_mean_exp, jnp.max], ids=["mean", "logmeanexp", "max"])
def test_a_step_follows_the_gradient_of_the_aggregate(float64, aggregate):
    """meta − ∂aggregate(losses), by differentiating plain loops over the very tasks of that step."""
    maml = algorithm(aggregate=aggregate)
    state = maml.init(jax.random.key(1))
    after, info = eqx.filter_jit(maml.step)(KEY, state)
    tasks = [maml.tasks.sample(jax.random.split(key)[0]) for key in jax.random.split(KEY, 3)]
    given = problem("initialisation")._replace(learner=maml.learner)

    def objective(meta):
        return aggregate(jnp.stack([oracles.loss(given, meta, task) for task in tasks]))

    loss, gradient = jax.jit(jax.value_and_grad(objective))(state.meta)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(info.gradient_norm, optax.tree.norm(gradient), rtol=1e-10)
    for new, old, slope in zip(*map(jax.tree.leaves, (after.meta, state.meta, gradient)), strict=True):
        np.testing.assert_allclose(new, old - slope, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "estimator",
    [mc.Unroll(), mc.Unroll("mixed", loss_at="every"), mc.FirstOrder(), mc.Truncated(window=1, horizon=2)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_the_mapping_does_not_matter(float64, estimator):
    """Whether a meta-batch is differentiated at once or task by task, in whatever order."""
    states = []
    for mapping in (mc.Vectorised(), mc.Sequential(), mc.Chunked(2), mc.Sharded(mc.Vectorised())):
        maml = algorithm(estimator, mapping=mapping)
        states.append(eqx.filter_jit(maml.step)(KEY, maml.init(jax.random.key(1)))[0])
    for other in states[1:]:
        for a, b in zip(jax.tree.leaves(states[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def sometimes_broken(key):
    """A task that is not a number three times in ten."""
    broken = jax.random.bernoulli(jax.random.fold_in(key, 7), 0.3)
    return jax.tree.map(lambda a: jnp.where(broken, jnp.nan, a), curve(key))


def same_bits(a, b):
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_a_bad_gradient_never_enters():
    """Skipped and counted; parameters, optimiser and healthy inner lives stay bit for bit; the next good step is taken."""
    truncated = mc.Truncated(window=1, horizon=3)
    maml = algorithm(truncated, tasks=sometimes_broken, outer=optax.adam(0.1), batch=2)
    step, state = eqx.filter_jit(maml.step), maml.init(jax.random.key(1))
    seen, in_a_row, anew = {True: 0, False: 0}, 0, 0
    for number in range(20):
        after, info = step(jax.random.fold_in(KEY, number), state)
        finite = bool(info.finite)
        seen[finite] += 1
        in_a_row = 0 if finite else in_a_row + 1
        assert (int(after.step), int(after.skipped)) == (number + 1, seen[False])
        assert int(after.skipped_in_a_row) == in_a_row
        assert np.isfinite(info.gradient_norm) == finite
        assert same_bits(state.meta, after.meta) == (not finite)
        assert same_bits(state.outer, after.outer) == (not finite)
        slots = [[jax.tree.map(lambda a, i=i: a[i], s.estimator) for s in (state, after)] for i in range(2)]
        kept = [same_bits(*slot) for slot in slots]
        if finite:
            assert kept == [False, False]
        else:
            assert not all(kept)
            assert all(int(new.age) == 0 for (_, new), same in zip(slots, kept, strict=True) if not same)
            anew += kept.count(False)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((after.meta, after.outer)))
        state = after
    assert min(seen.values()) > 3  # both kinds of step happened,
    assert anew < 2 * seen[False]  # and beside broken lives there were healthy ones


def test_a_stateless_estimator_has_nothing_to_start_anew():
    maml = algorithm(tasks=lambda key: jax.tree.map(lambda a: a * jnp.nan, curve(key)), outer=optax.adam(0.1))
    state = maml.init(jax.random.key(1))
    after, info = eqx.filter_jit(maml.step)(KEY, state)
    assert not bool(info.finite)
    assert same_bits((state.meta, state.outer, state.estimator), (after.meta, after.outer, after.estimator))
    assert (int(after.step), int(after.skipped), int(after.skipped_in_a_row)) == (1, 1, 1)


def test_the_second_step_does_not_compile_again():
    traced = []

    def counted(key):
        traced.append(key)
        return curve(key)

    maml = algorithm(tasks=counted, outer=optax.adam(0.01))
    step, state = eqx.filter_jit(maml.step), maml.init(jax.random.key(1))
    state, _ = step(KEY, state)
    before = len(traced)
    state, _ = step(jax.random.key(6), state)
    assert before > 0
    assert len(traced) == before


def test_steps_scan_to_the_same_numbers():
    maml = algorithm(outer=optax.adam(0.01))
    keys, state = jax.random.split(KEY, 4), maml.init(jax.random.key(1))
    scanned = jax.jit(lambda s: jax.lax.scan(lambda s, key: (maml.step(key, s)[0], None), s, keys)[0])(state)
    step = eqx.filter_jit(maml.step)
    for key in keys:
        state, _ = step(key, state)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(scanned), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_algorithm_is_a_pytree():
    """So that an array in it, an inner step size say, is an argument of a compiled step and not a constant of it."""
    maml = algorithm()
    step = eqx.filter_jit(lambda maml, state: maml.step(KEY, state)[1].gradient_norm)
    state = maml.init(jax.random.key(1))
    other = eqx.tree_at(lambda a: a.learner.rate, maml, jnp.asarray(0.3))
    assert float(step(maml, state)) != float(step(other, state))


def test_meta_gradient_is_the_estimators_word_on_one_task(float64):
    maml, given = algorithm(), problem("initialisation")
    said = maml.meta_gradient(KEY, given.meta, given.task)
    expected = oracles.of_the_loss(given._replace(learner=maml.learner), given.task)
    for a, b in zip(jax.tree.leaves(said.gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_adapt_and_predict():
    maml = algorithm()
    meta, task = maml.learner.init_meta(KEY), curve(KEY)
    adapted = maml.adapt(KEY, meta, task.support)
    assert maml.predict(adapted, task.query.inputs).shape == (3, 1)
    loss = mc.mean_squared_error(maml.predict(adapted, task.query.inputs), task.query.targets)
    np.testing.assert_allclose(loss, maml.learner.loss(KEY, meta, adapted, task)[0], rtol=1e-6)


def test_a_batch_of_tasks_is_stacked():
    tasks = sample_batch(mc.FunctionTasks(curve), KEY, 5)
    assert (tasks.support.inputs.shape, tasks.query.targets.shape) == ((5, 4, 1), (5, 3, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "meta_batch_size=0; an outer step needs at least one task."),
        ({"mapping": mc.Chunked(0)}, "mapping 'chunked:0' over 3 tasks: a chunk holds at least one task."),
        ({"estimator": mc.Implicit()}, "Implicit cannot estimate the meta-gradient of Initialisation: its adapted"),
    ],
)
def test_check_refuses_before_any_work(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        algorithm(**options).check()
