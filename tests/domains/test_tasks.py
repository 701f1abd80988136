"""The task families: what is drawn, from where, and how it is refused."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import metaception as mc

MANY = 4000
# Kolmogorov-Smirnov: the distance that an honest sample of 4,000 exceeds once in 10,000 draws is 0.035 (its asymptotic law).
DISTANCE = float(stats.kstwobign.ppf(0.9999)) / np.sqrt(MANY)


def draw(tasks, count=MANY, seed=0):
    return jax.jit(jax.vmap(tasks.sample))(jax.random.split(jax.random.key(seed), count))


def is_uniform(sample, low, high):
    sample = np.asarray(sample, np.float64).ravel()
    assert sample.min() >= low - 1e-4
    assert sample.max() <= high + 1e-4
    return stats.kstest(sample, "uniform", args=(low, high - low)).statistic < DISTANCE


def amplitude_and_phase(task):
    """A and φ of noiseless sinusoids of frequency 1, by least squares on sin and cos of all points."""
    x = np.concatenate([task.support.inputs, task.query.inputs], axis=1)[..., 0].astype(np.float64)
    y = np.concatenate([task.support.targets, task.query.targets], axis=1)[..., 0].astype(np.float64)
    basis = np.stack([np.sin(x), -np.cos(x)], axis=-1)
    a, b = np.linalg.solve(np.einsum("tni,tnj->tij", basis, basis), np.einsum("tni,tn->ti", basis, y)[..., None])[
        ..., 0
    ].T
    return np.hypot(a, b), np.mod(np.arctan2(b, a), 2 * np.pi)


@pytest.mark.parametrize(("tasks", "highest"), [(mc.Sinusoids(), np.pi), (mc.Sinusoids.reptile(), 2 * np.pi)])
def test_amplitudes_and_phases_are_uniform_over_the_papers_ranges(tasks, highest):
    # Finn et al. 2017, section 5.1: A in [0.1, 5], φ in [0, π]; Nichol et al. 2018: φ to 2π.
    task = draw(tasks)
    amplitude, phase = amplitude_and_phase(task)
    assert is_uniform(amplitude, 0.1, 5.0)
    assert is_uniform(np.where(phase > 2 * np.pi - 1e-3, 0.0, phase), 0.0, highest)
    assert abs(np.corrcoef(amplitude, phase)[0, 1]) < 0.07  # 4.4 standard errors of 1/√4000


@pytest.mark.parametrize("tasks", [mc.Sinusoids(), mc.Lines(), mc.SinusoidsAndLines(), mc.Sinusoids.bayesian_maml()])
def test_inputs_are_uniform_and_the_query_is_not_the_support(tasks):
    task = draw(tasks)
    support, query = np.asarray(task.support.inputs), np.asarray(task.query.inputs)
    assert is_uniform(support[:, 0], -5, 5)
    assert is_uniform(query[:, 0], -5, 5)
    assert abs(np.corrcoef(support[:, 0, 0], query[:, 0, 0])[0, 1]) < 0.07
    assert not np.any(support[:, :, None] == query[:, None, :])


def test_equal_keys_give_equal_tasks_and_others_do_not():
    tasks = mc.SinusoidsAndLines()
    first, again, other = (tasks.sample(jax.random.key(seed)) for seed in (1, 1, 2))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, first, again))
    assert not np.array_equal(first.support.targets, other.support.targets)


def test_bayesian_mamls_frequencies_noise_and_clean_queries():
    # Yoon et al. 2018, section 5.1 and the authors' code: ω in [0.5, 2], φ to 2π, noise 0.01 A on the support alone.
    tasks = mc.Sinusoids.bayesian_maml(shots=50, queries=50)
    assert (tasks.frequency, tasks.amplitude) == ((0.5, 2.0), (0.1, 5.0))
    assert tasks.phase == pytest.approx((0.0, 2 * np.pi))
    pure = draw(mc.Sinusoids(50, 50, phase=tasks.phase, frequency=tasks.frequency))
    noisy = draw(tasks)
    # To the bit where nothing is compiled; two compiled programs may round the same sine differently.
    key = jax.random.key(5)
    queries = [
        t.sample(key).query.targets for t in (tasks, mc.Sinusoids(50, 50, phase=tasks.phase, frequency=tasks.frequency))
    ]
    np.testing.assert_array_equal(*queries)
    # Same keys, same curves: what is left is the noise, whose standard deviation is 1 % of the task's amplitude.
    residual = np.asarray(noisy.support.targets - pure.support.targets)[..., 0].std(axis=1)
    peak = np.abs(np.asarray(pure.query.targets)).max(axis=(1, 2))
    seen = peak > 1  # frequencies of 0.5 see a peak within [−5, 5] nearly always
    assert np.median(residual[seen] / peak[seen]) == pytest.approx(0.01, rel=0.05)


def test_noise_is_on_the_query_too_unless_it_is_clean():
    pure, noisy = draw(mc.Lines(shots=20, queries=20)), draw(mc.Lines(shots=20, queries=20, noise=0.3))
    for part in ("support", "query"):
        residual = getattr(noisy, part).targets - getattr(pure, part).targets
        assert float(jnp.std(residual)) == pytest.approx(0.3, rel=0.02)


def test_lines_have_the_ranges_of_platipus():
    task = draw(mc.Lines())
    x, y = np.asarray(task.query.inputs)[..., 0], np.asarray(task.query.targets)[..., 0]
    slope = (y[:, 1] - y[:, 0]) / (x[:, 1] - x[:, 0])
    far = np.abs(x[:, 1] - x[:, 0]) > 0.5
    assert np.abs(slope[far]).max() < 3.001
    assert is_uniform((y - slope[:, None] * x)[far].mean(axis=1)[:MANY], -3, 3)


def test_half_of_the_mixture_are_lines():
    task = draw(mc.SinusoidsAndLines(queries=50, noise=0.0, grid=True))
    x, y = np.asarray(task.query.inputs)[..., 0], np.asarray(task.query.targets)[..., 0]
    bend = np.abs(np.diff(y, n=2, axis=1)).max(axis=1) / np.diff(x, axis=1)[:, :1].max() ** 2
    lines = (bend < 0.01).mean()
    assert abs(lines - 0.5) < 4 * 0.5 / np.sqrt(MANY)


def test_a_grid_covers_the_range_with_both_ends():
    query = mc.Sinusoids(queries=11, grid=True).sample(jax.random.key(0)).query
    np.testing.assert_allclose(query.inputs[:, 0], np.linspace(-5, 5, 11), atol=1e-6)


def test_the_oracle_is_told_amplitude_and_phase():
    task = draw(mc.Sinusoids(told=True), 50)
    x, amplitude, phase = np.moveaxis(np.asarray(task.query.inputs, np.float64), -1, 0)
    np.testing.assert_allclose(amplitude * np.sin(x - phase), task.query.targets[..., 0], atol=1e-5)
    untold = draw(mc.Sinusoids(), 50)
    np.testing.assert_array_equal(untold.query.targets, task.query.targets)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mc.Sinusoids(shots=0), "Sinusoids: shots=0, queries=10; a task needs at least one of each."),
        (lambda: mc.Lines(queries=-1), "Lines: shots=5, queries=-1; a task needs at least one of each."),
        (
            lambda: mc.Sinusoids(amplitude=(5.0, 0.1)),
            r"Sinusoids: amplitude=\(5.0, 0.1\); expected \(low, high\), low first, both finite.",
        ),
        (lambda: mc.Sinusoids(phase=(float("nan"), 1.0)), r"phase=\(nan, 1.0\); expected"),
        (lambda: mc.Lines(noise=-1.0), "Lines: noise=-1.0; expected a finite standard deviation, 0 or more."),
    ],
)
def test_impossible_families_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_number_where_several_belong_is_named():
    # Past the checked signatures of a test run.
    with pytest.raises(
        ValueError, match=r"mlp: widths=40; expected a number for each hidden layer, for example \(40, 40\)\."
    ):
        inspect.unwrap(mc.mlp)(1, 1, widths=40)
    tasks = mc.Sinusoids()
    object.__setattr__(tasks, "amplitude", 1.0)
    with pytest.raises(ValueError, match=r"Sinusoids: amplitude=1\.0; expected \(low, high\)\."):
        tasks.__check_init__()
