"""What the agreement table does not show: named omissions, lives that end, orders of derivatives, shapes of states."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.flatten_util import ravel_pytree
from problems import problem

import metaception as mc

pytestmark = pytest.mark.usefixtures("float64")

KEY = jax.random.key(3)


def gradients(estimator, given, keys):
    """Independent estimates on the problem's first task: an array [keys, P]."""

    def one(key):
        return ravel_pytree(estimator.estimate(key, given.learner, given.meta, (), given.task)[0].gradient)[0]

    return np.asarray(jax.jit(jax.vmap(one))(keys))


def test_without_the_score_term_the_bandits_gradient_is_biased():
    """The omission has a name, `score_term=False`, and an effect of dozens of standard errors."""
    given = problem("bandit")
    estimator = mc.Unroll(score_term=False)
    estimator.check(given.learner, given.meta, given.task)
    drawn = gradients(estimator, given, jax.random.split(KEY, 5000))
    exact = ravel_pytree(oracles.enumerated(given, given.task))[0]
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    assert np.max(np.abs(drawn.mean(0) - exact) / error) > 30


def test_the_score_term_is_right_to_second_order():
    """The mean of an estimate's own derivative along u is the enumerated objective's second derivative along u."""
    given = problem("bandit")
    along = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size) + 1.0).reshape(leaf.shape), given.meta)

    def slope(meta, key):
        gradient = mc.Unroll().estimate(key, given.learner, meta, (), given.task)[0].gradient
        return ravel_pytree(gradient)[0] @ ravel_pytree(along)[0]

    @jax.jit
    def curvatures(keys):
        return jax.vmap(lambda key: ravel_pytree(jax.grad(slope)(given.meta, key))[0])(keys)

    drawn = np.asarray(curvatures(jax.random.split(KEY, 20_000)))

    def exact_slope(meta):
        gradient = jax.grad(lambda meta: oracles.expected_loss(given, meta, given.task))(meta)
        return ravel_pytree(gradient)[0] @ ravel_pytree(along)[0]

    exact = ravel_pytree(oracles.central_differences(exact_slope, given.meta))[0]
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    assert 4 * error.max() < 0.3 * np.abs(exact).max()
    np.testing.assert_array_less(np.abs(drawn.mean(0) - exact), 4 * error)


def test_a_truncated_life_ends_and_the_slot_takes_the_new_task():
    given = problem("rule")
    old, new = (jax.tree.map(lambda a, i=i: a[i], given.tasks) for i in range(2))
    estimator = mc.Truncated(window=2, horizon=4)
    estimate = jax.jit(lambda state, task: estimator.estimate(KEY, given.learner, given.meta, state, task))
    state = estimator.init(KEY, given.learner, given.meta, old)
    ages = []
    for task in (old, new, new):  # the second is ignored: the old life goes on
        said, state = estimate(state, task)
        ages.append(int(state.age))
    assert ages == [2, 4, 2]
    expected = oracles.of_a_window(given, new, index=0, length=2)
    np.testing.assert_allclose(ravel_pytree(said.gradient)[0], ravel_pytree(expected)[0], rtol=1e-6, atol=1e-8)


def test_a_persistent_life_ends_and_forgets_its_noise():
    given = problem("rule")
    old, new = (jax.tree.map(lambda a, i=i: a[i], given.tasks) for i in range(2))
    estimator = mc.PersistentES(window=2, horizon=4, pairs=3)
    estimate = jax.jit(lambda state, task: estimator.estimate(KEY, given.learner, given.meta, state, task))
    state = estimator.init(KEY, given.learner, given.meta, old)
    first, state = estimate(state, old)
    _, state = estimate(state, new)
    np.testing.assert_array_equal(state.task.support.w, old.support.w)
    again, state = estimate(state, new)
    np.testing.assert_array_equal(state.task.support.w, new.support.w)
    assert int(state.age) == 2
    # The same key and the task of the third life from its start: what came before left nothing behind.
    fresh = estimate(estimator.init(KEY, given.learner, given.meta, new), new)[0]
    np.testing.assert_allclose(*(ravel_pytree(e.gradient)[0] for e in (again, fresh)), rtol=1e-12)
    assert not np.allclose(*(ravel_pytree(e.gradient)[0] for e in (again, first)))


def test_truncating_nothing_is_unrolling():
    """One window as long as the life: Truncated takes even a learned initialisation, and is Unroll."""
    given = problem("initialisation")
    whole = mc.Truncated(window=3, horizon=3)
    whole.check(given.learner, given.meta, given.task)
    state = whole.init(KEY, given.learner, given.meta, given.task)
    truncated = whole.estimate(KEY, given.learner, given.meta, state, given.task)[0]
    unrolled = mc.Unroll(loss_at="every").estimate(KEY, given.learner, given.meta, (), given.task)[0]
    for a, b in zip(jax.tree.leaves(truncated), jax.tree.leaves(unrolled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("loss_at", ["last", "every"])
def test_where_the_outer_loss_is_read(loss_at):
    """The reported loss, and the gradient, after the last inner step or averaged over all of them."""
    given = problem("initialisation")._replace(loss_at=loss_at)
    said = mc.Unroll(loss_at=loss_at).estimate(KEY, given.learner, given.meta, (), given.task)[0]
    np.testing.assert_allclose(said.loss, oracles.loss(given, given.meta, given.task), rtol=1e-12)
    expected = oracles.of_the_loss(given, given.task)
    np.testing.assert_allclose(ravel_pytree(said.gradient)[0], ravel_pytree(expected)[0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "estimator",
    [mc.Truncated(window=2, horizon=4), mc.PersistentES(window=2, horizon=4, pairs=2), mc.EvolutionStrategies(pairs=2)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_states_and_gradients_keep_their_shapes(estimator):
    """So that outer steps scan; in a type that is not the default one, too."""
    given = problem("rule")
    meta, task = jax.tree.map(lambda a: a.astype(jnp.float32), (given.meta, given.task))
    state = jax.eval_shape(lambda: estimator.init(KEY, given.learner, meta, task))
    said, after = jax.eval_shape(lambda s: estimator.estimate(KEY, given.learner, meta, s, task), state)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), state) == jax.tree.map(lambda a: (a.shape, a.dtype), after)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), said.gradient) == jax.tree.map(lambda a: (a.shape, a.dtype), meta)


@pytest.mark.parametrize("symmetric", [True, False], ids=["cg", "gmres"])
def test_damping_is_added_to_the_diagonal(float64, symmetric):
    """One inner step, far from the solution: against the dense system (∂F/∂adapted + δI)ᵀ v = ∂L/∂adapted, solved as such."""
    given, damping = problem("proximal").with_steps(1), 2.5
    learner, meta = given.learner, given.meta
    task = jax.tree.map(lambda a: a[0], given.tasks)
    key = jax.random.key(3)
    estimator = mc.Implicit(cg_steps=200, tolerance=1e-12, damping=damping, symmetric=symmetric)
    gradient = estimator.estimate(key, learner, meta, (), task)[0].gradient

    adapted, unravel = ravel_pytree(learner.adapt(key, meta, task.support))
    flat_meta, unravel_meta = ravel_pytree(meta)

    def residual(flat_meta, flat):
        return ravel_pytree(learner.optimality(unravel_meta(flat_meta), unravel(flat), task.support))[0]

    def outer(flat_meta, flat):
        return learner.loss(key, unravel_meta(flat_meta), unravel(flat), task)[0]

    by_meta, by_adapted = jax.jacobian(residual, argnums=(0, 1))(flat_meta, adapted)
    direct, pull = jax.grad(outer, argnums=(0, 1))(flat_meta, adapted)
    solved = np.linalg.solve(np.asarray(by_adapted).T + damping * np.eye(adapted.size), pull)
    undamped = np.linalg.solve(np.asarray(by_adapted).T, pull)
    assert np.linalg.norm(solved - undamped) > 0.1 * np.linalg.norm(undamped)
    np.testing.assert_allclose(ravel_pytree(gradient)[0], direct - by_meta.T @ solved, rtol=1e-8, atol=1e-10)
