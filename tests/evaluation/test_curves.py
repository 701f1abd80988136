"""The evaluation protocol, by hand: which tasks, which steps, which mean, which interval, which rate."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import metaception as mc
from metaception.core.streams import stream_key
from metaception.evaluation.curves import DIVERGED, Evaluation

LOSSES = np.array([[[4.0, 1.0], [2.0, 3.0]], [[6.0, 2.0], [4.0, 6.0]], [[5.0, 0.0], [9.0, 0.0]]])


def scalar_model():
    """y = w: one parameter, so that an inner step is w − α · 2 (w − mean of the targets)."""
    return lambda key: jax.random.normal(key, (1,)), lambda w, x: jnp.broadcast_to(w, x.shape)


def constant(key):
    """A task whose targets are all one number, drawn from the key."""
    y = jnp.full((3, 1), jax.random.uniform(key, minval=-2.0, maxval=2.0))
    return mc.Task(mc.Examples(jnp.zeros((3, 1)), y), mc.Examples(jnp.zeros((3, 1)), y))


@pytest.fixture(scope="module")
def algorithm():
    return mc.MAML(inner_rate=0.1, inner_steps=1, meta_batch_size=2).build(scalar_model(), constant)


METAS = jnp.array([[0.5], [-1.0]])


def test_the_curve_is_adaptation_by_hand_beyond_trainings_steps(algorithm):
    """A step multiplies w − y by 1 − 2α; the loss is its square. Training takes one step, the test four."""
    result = mc.evaluate(algorithm, METAS, steps=4, count=5)
    keys = jax.random.split(stream_key(0, "test"), 5)
    targets = np.array([constant(jax.random.split(key)[0]).query.targets[0, 0] for key in keys])
    gaps = np.asarray(METAS)[:, :, None] - targets[None, :, None]
    np.testing.assert_allclose(result.losses, (gaps * 0.8 ** np.arange(5)) ** 2, rtol=1e-4, atol=1e-7)


def test_streams_are_disjoint_and_fixed_by_the_seed(algorithm):
    """The loss of w = 0 before adaptation is y², which names the task."""

    def tasks(seed, stream="test"):
        losses = mc.evaluate(algorithm, jnp.zeros((1, 1)), steps=0, count=50, seed=seed, stream=stream).losses
        return set(losses.ravel().tolist())

    trained = {
        float(constant(jax.random.split(key, 3)[0]).query.targets[0, 0] ** 2)
        for step in range(25)
        for key in jax.random.split(jax.random.fold_in(stream_key(0, "train"), step), 2)
    }
    sets = [tasks(0), tasks(0, "validation"), tasks(1), trained]
    assert all(len(found) >= 49 for found in sets)
    assert len(set.union(*sets)) == sum(map(len, sets))
    assert tasks(0) == sets[0]


def test_more_tasks_than_a_meta_batch_change_no_loss(algorithm):
    sequential = eqx.tree_at(lambda a: a.mapping, algorithm, mc.Sequential())
    many, one_by_one = (mc.evaluate(a, METAS, steps=2, count=130).losses for a in (algorithm, sequential))
    np.testing.assert_allclose(one_by_one, many, rtol=1e-5)
    assert many.shape == (2, 130, 3)


def test_means_medians_and_intervals_by_hand():
    found = Evaluation(LOSSES)
    np.testing.assert_allclose(found.mean, [5.0, 2.0])
    np.testing.assert_allclose(found.median, [4.5, 1.5])
    # Three seeds: their means are (3, 5, 7) and (2, 4, 0); both have a standard deviation of 2.
    half = stats.t.ppf(0.975, 2) * 2 / np.sqrt(3)
    np.testing.assert_allclose(
        half, 4.968, atol=1e-3
    )  # t of a 95 % interval with 2 degrees of freedom: 4.303 (any table)
    np.testing.assert_allclose(found.interval, [half, half])
    # One seed: over the tasks, 1.96 standard errors.
    one = Evaluation(LOSSES[:1])
    np.testing.assert_allclose(one.interval, 1.96 * np.array([np.sqrt(2), np.sqrt(2)]) / np.sqrt(2))
    assert found.diverged.tolist() == [0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2 * DIVERGED])
def test_one_task_that_diverges_makes_the_mean_infinite_and_is_counted(bad):
    losses = LOSSES.copy()
    losses[1, 0, 1] = bad
    found = Evaluation(losses)
    assert found.mean.tolist() == [5.0, np.inf]
    assert found.diverged.tolist() == [0, 1]
    assert np.isnan(found.interval[1])
    assert found.median[1] == 2.0  # the median of 0, 0, 1, 3, 6 and the diverged one


def test_the_rate_is_the_best_on_validation_tasks(algorithm):
    """With targets all alike, α = 0.5 solves a task in one step: (1 − 2α)² = 0. No test task has a say."""
    chosen, rate = mc.tune_rate(algorithm, METAS, rates=(0.1, 0.5, 0.7), steps=1, count=4)
    assert rate == 0.5
    assert float(chosen.learner.rate) == 0.5

    class OnlyValidation(mc.TaskDistribution):
        """Targets of zero for the first validation keys, so that they alone want w to stay: any step away is worse."""

        def sample(self, key):
            known = jax.random.split(stream_key(0, "validation"), 4)
            ours = jax.random.key_data(jax.vmap(lambda k: jax.random.split(k)[0])(known))
            seen = (ours == jax.random.key_data(key)).all(axis=-1).any()
            support = jnp.full((3, 1), 1.0)
            query = jnp.where(seen, METAS[0, 0], 1.0) * jnp.ones((3, 1))
            return mc.Task(mc.Examples(jnp.zeros((3, 1)), support), mc.Examples(jnp.zeros((3, 1)), query))

    assert mc.tune_rate(algorithm, METAS[:1], OnlyValidation(), rates=(0.01, 0.5), steps=1, count=4)[1] == 0.01


@pytest.mark.parametrize(("steps", "count"), [(-1, 5), (2, 0)])
def test_impossible_numbers_are_refused(algorithm, steps, count):
    with pytest.raises(ValueError, match="expected steps >= 0 and at least one task"):
        mc.evaluate(algorithm, METAS, steps=steps, count=count)


def test_what_is_compiled_for_one_algorithm_serves_another_that_adapts_alike():
    traced = []

    def loss(predictions, targets):
        traced.append(1)
        return mc.mean_squared_error(predictions, targets)

    def evaluate(method):
        # Built anew each time, as when runs are loaded: a network of the same sizes, another outer optimiser.
        algorithm = method.build(mc.mlp(1, 1, widths=(3,)), mc.Sinusoids(), loss=loss)
        metas = jax.vmap(algorithm.learner.init_meta)(jax.random.split(jax.random.key(0), 2))
        traced.clear()
        return mc.evaluate(algorithm, metas, steps=2, count=3).mean

    before = evaluate(mc.Pretrain(inner_rate=0.01))
    assert traced
    after = evaluate(mc.RandomInitialisation(inner_rate=0.02))
    assert not traced
    assert not np.allclose(before[1:], after[1:])
