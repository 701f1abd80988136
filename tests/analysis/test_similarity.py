import inspect
import itertools
import re

import jax
import numpy as np
import pytest
from scipy import linalg

from metaception.analysis import similarity
from metaception.analysis.similarity import as_rows, cca, linear_cka, mean_cca, permuted_baseline, pwcca, svcca

DEBIASED = {"estimator": "debiased"}


def debiased_cka(x, y):
    return linear_cka(x, y, **DEBIASED)


MEASURES = [linear_cka, debiased_cka, mean_cca, svcca, pwcca]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture
def related():
    """x [60, 5] and y [60, 3]: neurons of unequal scale and far from zero, y partly a function of x."""
    x = normal(0, 60, 5) * [1.0, 2.0, 0.5, 4.0, 1.5] + [9.0, -3.0, 0.0, 50.0, 1.0]
    return x, x[:, :3] @ normal(1, 3, 3) + normal(2, 60, 3) - 7.0


@pytest.fixture
def planes():
    """Orthogonal a, b, c, d of zero mean and length √8, and planes with ρ = 3/5 along a and 5/13 along b."""
    a, b, c, d = linalg.hadamard(8).T[1:5].astype(float)
    return np.stack([2 * a, a + b], axis=1), np.stack([3 * a + 4 * c, 5 * b + 12 * d], axis=1)


# Invariances.


def test_cka_is_blind_to_rotation_scale_and_shift_only(related):
    x, y = related
    rotation = np.linalg.qr(normal(3, 5, 5))[0]
    stretch = np.diag([9.0, 1.0, 1.0, 1.0, 1.0])
    for options in ({}, DEBIASED):
        for alike in (x @ rotation, -3e-90 * x, 2e90 * x, x - 100.0):
            assert linear_cka(x, alike, **options) == pytest.approx(1, abs=1e-12)
            assert linear_cka(alike, y, **options) == pytest.approx(linear_cka(x, y, **options), abs=1e-12)
        assert linear_cka(x, x @ stretch, **options) < 0.7
        assert abs(linear_cka(x @ stretch, y, **options) - linear_cka(x, y, **options)) > 0.05


def test_cca_is_blind_to_every_invertible_map(related):
    x, y = related
    mixed = x @ normal(4, 5, 5) + 30.0
    np.testing.assert_allclose(cca(x, mixed), np.ones(5), atol=1e-12)
    np.testing.assert_allclose(cca(mixed, y), cca(x, y), atol=1e-12)
    np.testing.assert_allclose(cca(x * [1.0, 1e-3, 1.0, 1.0, 1e-4], y), cca(x, y), atol=1e-9)  # faint, not dead
    assert pwcca(x, mixed) == pytest.approx(1, abs=1e-12)
    # Only y may be mixed: the neurons of x are what PWCCA weights by, and SVCCA reads variances on both sides.
    assert pwcca(x, y @ normal(5, 3, 3)) == pytest.approx(pwcca(x, y), abs=1e-12)
    assert abs(pwcca(mixed, y) - pwcca(x, y)) > 0.01


@pytest.mark.parametrize("measure", MEASURES)
def test_the_order_of_examples_and_of_neurons_does_not_matter(measure, related):
    x, y = related
    order = np.random.default_rng(6).permutation(60)
    assert measure(x[order], y[order]) == pytest.approx(measure(x, y), abs=1e-12)
    assert measure(x[:, ::-1], y) == pytest.approx(measure(x, y), abs=1e-12)
    assert abs(measure(x[order], y) - measure(x, y)) > 0.05  # the pairing of x with y does matter


@pytest.mark.parametrize("measure", MEASURES)
def test_dead_units_change_nothing(measure, related):
    """Constants that float64 cannot average exactly would leave 1e-17 of noise, a direction like any other to CCA."""
    x, y = related
    dead = np.broadcast_to([0.0, 0.1, 1e5 / 3], (60, 3))
    assert measure(np.hstack([x, dead]), np.hstack([dead, y])) == pytest.approx(measure(x, y), abs=1e-12)


def test_dependent_neurons_add_no_direction_even_when_summed_in_float32(related):
    x, y = (array.astype(np.float32) for array in related)
    dependent = x[:, :1] * np.float32(0.3) + x[:, 3:4] * np.float32(0.7)
    np.testing.assert_allclose(cca(np.hstack([x, x[:, :1], dependent]), y), cca(x, y), atol=1e-6)
    assert len(cca(np.hstack([x[:, :1], x[:, :1]]), y)) == 1


def test_jax_arrays_are_computed_in_float64(related):
    x, y = (array.astype(np.float32) for array in related)
    assert linear_cka(jax.numpy.asarray(x), jax.numpy.asarray(y)) == linear_cka(
        x.astype(np.float64), y.astype(np.float64)
    )


# Values.


def test_two_planes_by_hand(planes):
    """αᵢ ∝ Σⱼ |⟨hᵢ, neuronⱼ⟩|: of x 2 + 1 along a and 1 along b; of y 5 and 13, the lengths of its neurons."""
    x, y = planes
    np.testing.assert_allclose(cca(x, y), [3 / 5, 5 / 13], atol=1e-12)
    assert mean_cca(x, y) == pytest.approx((3 / 5 + 5 / 13) / 2, abs=1e-12)
    assert pwcca(x, y) == pytest.approx((3 * 3 / 5 + 1 * 5 / 13) / 4, abs=1e-12)
    assert pwcca(y, x) == pytest.approx((5 * 3 / 5 + 13 * 5 / 13) / 18, abs=1e-12)
    # XᵀY/8 = [[6, 0], [3, 5]], XᵀX/8 = [[4, 2], [2, 2]], YᵀY/8 = diag(25, 169).
    assert linear_cka(x, y) == pytest.approx(70 / np.sqrt(28 * (25**2 + 169**2)), abs=1e-12)


def test_svcca_keeps_the_fewest_directions_that_reach_the_share(planes):
    """Variances 96 : 3 : 1 along a, b, c; a y of b and d, or of c and d, has ρ = 1 with one of them, once it is kept."""
    a, b, c, d = linalg.hadamard(8).T[1:5].astype(float)
    x = np.stack([np.sqrt(96) * a, np.sqrt(3) * b, c], axis=1)
    for variance, expected in ((0.9, 0.0), (0.98, 1 / 2), (1.0, 1 / 2)):
        assert svcca(x, np.stack([b, d], axis=1), variance=variance) == pytest.approx(expected, abs=1e-12)
    assert svcca(x, np.stack([c, d], axis=1), variance=0.98) == pytest.approx(0, abs=1e-12)
    assert svcca(x, np.stack([c, d], axis=1), variance=1.0) == pytest.approx(1 / 2, abs=1e-12)
    # The default is 99 %: 1000 : 9 keeps one direction, 1000 : 11 two.
    for weight, expected in ((9, 0.0), (11, 1 / 2)):
        weighted = np.stack([np.sqrt(1000) * a, np.sqrt(weight) * b], axis=1)
        assert svcca(weighted, np.stack([b, d], axis=1)) == pytest.approx(expected, abs=1e-12)


def test_cca_is_a_generalised_eigenvalue_problem(related):
    """[[0, Sxy], [Syx, 0]] v = ρ [[Sxx, 0], [0, Syy]] v, by scipy.linalg.eigh."""
    x, y = related
    s = np.cov(x, y, rowvar=False)
    within = linalg.block_diag(s[:5, :5], s[5:, 5:])
    values = linalg.eigh(s - within, within, eigvals_only=True)
    np.testing.assert_allclose(cca(x, y), values[::-1][:3], atol=1e-12)
    np.testing.assert_allclose(cca(y, x), values[::-1][:3], atol=1e-12)


def test_debiased_cka_is_song_et_als_estimator_with_its_matrices_written_out(related):
    def hsic(k, el):
        n, one = len(k), np.ones(len(k))
        k, el = (m - np.diag(np.diag(m)) for m in (k, el))
        last = one @ k @ one * (one @ el @ one) / ((n - 1) * (n - 2))
        return (np.trace(k @ el) + last - 2 / (n - 2) * (one @ k @ el @ one)) / (n * (n - 3))

    x, y = related
    k, el = x @ x.T, y @ y.T  # not centred: the estimator is blind to a shift
    assert linear_cka(x, y, **DEBIASED) == pytest.approx(hsic(k, el) / np.sqrt(hsic(k, k) * hsic(el, el)), abs=1e-10)


def test_a_single_neuron_each_gives_the_correlation_and_its_square():
    x, y = normal(0, 30), normal(1, 30)
    correlation = np.corrcoef(x, y)[0, 1]
    assert linear_cka(x[:, None], y[:, None]) == pytest.approx(correlation**2, abs=1e-12)
    assert cca(x[:, None], y[:, None]) == pytest.approx([abs(correlation)], abs=1e-12)


# The finite-sample floor.


def test_means_over_all_permutations_are_exact():
    """All orders of five examples: E_π[P L Pᵀ] = tr L / (n − 1) (I − 11ᵀ/n), which CKA and Σ ρ² are linear in."""
    x, y = normal(0, 5, 2) * [1.0, 3.0], normal(1, 5, 2)
    orders = [list(order) for order in itertools.permutations(range(5))]
    k, el = ((array - array.mean(axis=0)) @ (array - array.mean(axis=0)).T for array in (x, y))
    floor = np.trace(k) * np.trace(el) / (4 * np.linalg.norm(k) * np.linalg.norm(el))
    assert np.mean([linear_cka(x, y[order]) for order in orders]) == pytest.approx(floor, abs=1e-12)
    assert np.mean([linear_cka(x, y[order], **DEBIASED) for order in orders]) == pytest.approx(0, abs=1e-12)
    assert np.mean([(cca(x, y[order]) ** 2).sum() for order in orders]) == pytest.approx(2 * 2 / 4, abs=1e-12)


@pytest.fixture(scope="module")
def independent():
    """Mean CCA, CKA and debiased CKA of 30 pairs of independent Gaussians, n = 1000, d = 50: [30, 3]."""
    draw = np.random.default_rng(0)
    pairs = (draw.normal(size=(2, 1000, 50)) for _ in range(30))
    return np.array([[mean_cca(x, y), linear_cka(x, y), linear_cka(x, y, **DEBIASED)] for x, y in pairs])


def test_independent_gaussians_as_measured(independent):
    """0.187 and 0.046: shared/protocols.md, section 15, one draw there; within three deviations of a draw, and rounding."""
    for values, measured in zip(independent.T[:2], (0.187, 0.046), strict=True):
        assert abs(values.mean() - measured) < 3 * values.std(ddof=1) + 0.0005
        assert values.mean() > 20 * values.std(ddof=1)  # far from zero, which is the point


def test_closed_forms_of_independent_gaussians(independent):
    error = independent.std(axis=0, ddof=1) / np.sqrt(len(independent))
    cca_mean, cka_mean, debiased_mean = independent.mean(axis=0)
    # Wachter's law is the limit of many neurons: 0.4 % too large here.
    expected = similarity.expected_cca_of_independent(1000, 50, 50)
    assert abs(cca_mean - expected) < 3 * error[0] + 0.005 * expected
    assert abs(cka_mean - similarity.expected_cka_of_independent(1000, 50, 50)) < 3 * error[1]
    assert abs(debiased_mean) < 3 * error[2]


@pytest.mark.parametrize(("n", "p", "q"), [(200, 10, 30), (200, 30, 10), (100, 40, 59), (100, 49, 50)])
def test_closed_forms_at_unequal_widths_up_to_the_fewest_examples(n, p, q):
    draw = np.random.default_rng(1)
    pairs = [(draw.normal(size=(n, p)), draw.normal(size=(n, q))) for _ in range(60)]
    cca_expected, cka_expected = (
        similarity.expected_cca_of_independent(n, p, q),
        similarity.expected_cka_of_independent(n, p, q),
    )
    for measure, expected in ((mean_cca, cca_expected), (linear_cka, cka_expected)):
        values = np.array([measure(x, y) for x, y in pairs])
        assert abs(values.mean() - expected) < 3 * values.std(ddof=1) / np.sqrt(60) + 0.006 * expected


def test_shuffling_finds_the_floor_of_related_activations():
    x = normal(0, 1000, 20)
    for measure, expected in (
        (mean_cca, similarity.expected_cca_of_independent(1000, 20, 20)),
        (linear_cka, similarity.expected_cka_of_independent(1000, 20, 20)),
        (debiased_cka, 0.0),
    ):
        values = permuted_baseline(measure, x, x, jax.random.key(0), 40)
        assert abs(values.mean() - expected) < 3 * values.std(ddof=1) / np.sqrt(40) + 0.01 * expected
        assert len(set(values)) == 40
        assert permuted_baseline(measure, x, x, jax.random.key(0), 2).tolist() == values[:2].tolist()
        assert permuted_baseline(measure, x, x, jax.random.key(1), 1)[0] != values[0]


def test_images_are_shuffled_whole():
    """Sixteen equal positions an image: the floor is that of the 40 images, not of 640 independent rows."""
    images = np.broadcast_to(normal(0, 40, 1, 1, 3), (40, 4, 4, 3))
    floors = [
        permuted_baseline(lambda x, y: linear_cka(as_rows(x), as_rows(y)), images, images, jax.random.key(0), 50),
        permuted_baseline(linear_cka, images[:, 0, 0], images[:, 0, 0], jax.random.key(0), 50),
        permuted_baseline(linear_cka, as_rows(images), as_rows(images), jax.random.key(0), 50),
    ]
    np.testing.assert_allclose(floors[0], floors[1], atol=1e-12)
    assert floors[0].mean() > 10 * floors[2].mean()


def test_rows_are_positions_and_columns_channels():
    images = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(as_rows(images)[1 * 12 + 2 * 4 + 3], images[1, 2, 3])
    np.testing.assert_array_equal(as_rows(images[:, 0, 0]), images[:, 0, 0])


# Refusals.

FINE = normal(0, 20, 3)
SPOILT = np.where(np.arange(60).reshape(20, 3) == 7, np.nan, FINE)


@pytest.mark.parametrize("measure", [*MEASURES, cca])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            FINE,
            FINE[:19],
            "x (20, 3) and y (19, 3) differ in their number of examples; give both the same ones, in the same",
        ),
        (
            FINE.reshape(5, 2, 2, 3),
            FINE,
            "x (5, 2, 2, 3) and y (20, 3); expected matrices [examples, neurons]. For convolu",
        ),
        (FINE[:2], FINE[:2], "x (2, 3) and y (2, 3) have too few examples; give at least"),
        (FINE, SPOILT, "x (20, 3) and y (20, 3): 1 of 60 entries of y are not finite; if adaptation"),
        (
            np.full((20, 2), 0.1),
            FINE,
            "x (20, 2) and y (20, 3): x is constant over the examples, so that nothing can corre",
        ),
    ],
    ids=["unequal", "images", "few", "not-finite", "constant"],
)
def test_bad_activations_are_refused(measure, x, y, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        measure(x, y)


def test_too_few_examples_for_cca_are_refused():
    """With n ≤ p all correlations are 1; between p and p + q the spans must still meet."""
    x, y = normal(0, 7, 3), normal(1, 7, 4)
    message = "cca: x (7, 3) and y (7, 4) span 3 and 4 of 6 dimensions, so that at least 1 canonical correlations are 1"
    with pytest.raises(ValueError, match=re.escape(message) + r".*give more than 7 examples.* or use linear_cka\.$"):
        cca(x, y)
    for measure in (mean_cca, svcca, pwcca):
        with pytest.raises(ValueError, match=f"{measure.__name__}: .*canonical correlations are 1"):
            measure(x[:3], y[:3])
    assert len(cca(normal(0, 8, 3), normal(1, 8, 4))) == 3
    assert cca(np.hstack([x, np.ones((7, 9))]), y[:, :3]).max() < 1  # dead units do not count


def test_a_lone_active_example_has_no_debiased_alignment():
    lone = np.zeros((20, 1))
    lone[4] = 3.0
    with pytest.raises(ValueError, match=r"differs in one example only.*use estimator='biased'"):
        linear_cka(lone, FINE, **DEBIASED)
    assert 0 < linear_cka(lone, FINE) < 1


def test_bad_options_are_refused():
    with pytest.raises(
        ValueError, match=r"linear_cka: estimator='unbiased'; expected one of \['biased', 'debiased'\]\."
    ):
        inspect.unwrap(linear_cka)(FINE, FINE, estimator="unbiased")
    with pytest.raises(ValueError, match=r"at least 4"):
        linear_cka(FINE[:3], FINE[:3], **DEBIASED)
    with pytest.raises(ValueError, match=r"svcca: variance=99\.0; expected a share in \(0, 1\]"):
        svcca(FINE, FINE, variance=99.0)
    with pytest.raises(ValueError, match=r"as_rows: activations \(3,\) have no axis of neurons"):
        as_rows(np.zeros(3))
    with pytest.raises(ValueError, match="permuted_baseline: draws=0; expected at least one"):
        permuted_baseline(linear_cka, FINE, FINE, jax.random.key(0), 0)
    for expected, sizes in (
        (similarity.expected_cca_of_independent, (20, 10, 10)),
        (similarity.expected_cca_of_independent, (20, 0, 10)),
        (similarity.expected_cka_of_independent, (2, 1, 1)),
    ):
        with pytest.raises(ValueError, match=r"expected at least one neuron each and n >= \d+ examples"):
            expected(*sizes)
