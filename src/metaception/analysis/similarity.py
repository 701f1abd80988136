"""How alike two representations of the same examples are: linear CKA and the CCA family, and what chance alone gives.

Activations are matrices [examples, neurons] of the same examples in the same order, and every neuron's mean over the
examples is taken off first. Everything is computed on the host, in float64. With finitely many examples none of the
measures but the debiased CKA is zero for unrelated representations, so show each beside its floor: `permuted_baseline`.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

Estimator = Literal["biased", "debiased"]
Activations = Float[Array | np.ndarray, "..."]
Rows = Float[np.ndarray, "_ _"]
Measure = Callable[[Any, Any], float]

RANK_THRESHOLD = 1e-6
"""CCA drops directions whose singular value is at most this times the largest: dead, repeated and summed neurons.

Above what float32 rounding leaves of such a direction, about 1e-7.
"""


def as_rows(activations: Activations) -> Rows:
    """Activations as a matrix with channels as neurons: every position of every image is an example of its own.

    Args:
        activations: [n, height, width, channels]; or any other axes between the first and the last, or none.

    Returns:
        [n · height · width, channels].

    Raises:
        ValueError: for fewer than two axes.

    Examples:
        >>> import numpy as np
        >>> from metaception.analysis.similarity import as_rows
        >>> as_rows(np.zeros((8, 14, 14, 3))).shape
        (1568, 3)

    Raghu et al. 2017, "SVCCA: Singular Vector Canonical Correlation Analysis for Deep Learning Dynamics and
    Interpretability", and the authors' tutorial. Layers of different height or width give different numbers of rows
    and cannot be compared in this way; average both over positions first.
    """
    array = np.asarray(activations)
    if array.ndim < 2:
        raise ValueError(
            f"as_rows: activations {array.shape} have no axis of neurons; expected [examples, …, neurons]."
        )
    return array.reshape(-1, array.shape[-1])


def linear_cka(x: Activations, y: Activations, *, estimator: Estimator = "biased") -> float:
    """Linear centred kernel alignment: do two representations find the same examples similar?

    With centred columns ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖), Frobenius norms. One for Y = cXQ with Q orthogonal; not for Y = XA.

    Args:
        x: [n, p], n ≥ 3 (4 if debiased).
        y: [n, q].
        estimator: `biased` is the formula above. `debiased` puts the unbiased HSIC₁ in place of each squared norm: with
            kᵢ = ‖xᵢ‖² and lᵢ = ‖yᵢ‖² of centred rows, ‖XᵀY‖² − n/(n−2) Σ kᵢlᵢ + Σ kᵢ Σ lᵢ / ((n−1)(n−2)). It can fall
            below zero, and its mean over shuffled examples is exactly zero.

    Returns:
        The alignment. Both estimators take O(n (p + q)²) time and no n x n matrix.

    Raises:
        ValueError: for unequal or too few examples, entries that are not finite, activations that are constant, or, if
            debiased, differ in one example only.

    Examples:
        >>> import numpy as np
        >>> from metaception.analysis.similarity import linear_cka
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
        >>> round(linear_cka(x, 5 * x @ rotation), 6), round(linear_cka(x, x * np.array([1.0, 1.0, 9.0])), 2)
        (1.0, 0.53)

    Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", table 1. HSIC₁: Song et al. 2012,
    "Feature Selection via Dependence Maximization"; in CKA: Nguyen et al. 2021, "Do Wide and Deep Networks Learn the
    Same Things?", who average it over minibatches, while all examples are one batch here.
    """
    if estimator not in get_args(Estimator):
        raise ValueError(f"linear_cka: estimator={estimator!r}; expected one of {list(get_args(Estimator))}.")
    debiased = estimator == "debiased"
    x, y = _centred("linear_cka", x, y, least=4 if debiased else 3)
    hsic = _debiased_hsic if debiased else _hsic
    own = [hsic(rows, rows) for rows in (x, y)]
    if any(value <= 1e-12 * _hsic(rows, rows) for value, rows in zip(own, (x, y), strict=True)):
        raise ValueError(
            f"linear_cka: x {x.shape} or y {y.shape} differs in one example only, which leaves the debiased estimator "
            "0 / 0; give more examples or use estimator='biased'."
        )
    return float(hsic(x, y) / np.sqrt(own[0] * own[1]))


def cca(x: Activations, y: Activations) -> Float[np.ndarray, " k"]:
    """The canonical correlations of two representations, largest first.

    ρᵢ = max corr(Xa, Yb) over a and b uncorrelated with those before: the singular values of UₓᵀUᵧ, with U an
    orthonormal basis of the centred columns (by SVD). The same for x and xA with any invertible A.

    Args:
        x: [n, p].
        y: [n, q]. Many more examples than p + q, or chance alone correlates them (`permuted_baseline`).

    Returns:
        [k], k = min(rank x, rank y): min(p, q) unless there are dead, repeated or otherwise dependent neurons, which add
        no direction and change nothing (`RANK_THRESHOLD`).

    Raises:
        ValueError: for unequal numbers of examples, entries that are not finite, constant activations, or
            n − 1 < rank x + rank y: the two spans must then intersect, so that some ρ are 1 whatever the activations
            (all of them for n ≤ p).

    Examples:
        >>> import numpy as np
        >>> from metaception.analysis.similarity import cca
        >>> x = np.random.default_rng(0).normal(size=(100, 2))
        >>> cca(x, x @ np.array([[1.0, 2.0], [0.0, 3.0]])).round(6).tolist()
        [1.0, 1.0]

    Hotelling 1936, "Relations Between Two Sets of Variates"; by way of orthonormal bases: Björck and Golub 1973,
    "Numerical Methods for Computing Angles Between Linear Subspaces".
    """
    return _canonical("cca", *_centred("cca", x, y))[1]


def mean_cca(x: Activations, y: Activations) -> float:
    """The mean canonical correlation, Σ ρᵢ / k; arguments and errors as in `cca`.

    Examples:
        >>> import numpy as np
        >>> from metaception.analysis.similarity import mean_cca
        >>> x = np.random.default_rng(0).normal(size=(100, 2))
        >>> round(mean_cca(x, x[:, ::-1]), 6)
        1.0

    Kornblith et al. 2019, table 1. Its k is min(p, q); here dead neurons do not count.
    """
    return float(_canonical("mean_cca", *_centred("mean_cca", x, y))[1].mean())


def svcca(x: Activations, y: Activations, *, variance: float = 0.99) -> float:
    """The mean canonical correlation of the principal directions that explain most of each representation's variance.

    Args:
        x: [n, p].
        y: [n, q].
        variance: the share to keep, in (0, 1]; each side keeps the fewest directions that reach it.

    Returns:
        Σ ρᵢ / k over the k = min(kept in x, kept in y) correlations.

    Raises:
        ValueError: as `cca`, with the kept directions in place of the ranks, or for a share outside (0, 1].

    Examples:
        >>> import numpy as np
        >>> from metaception.analysis.similarity import mean_cca, svcca
        >>> draw = np.random.default_rng(0)
        >>> x, noise = draw.normal(size=(500, 2)), 0.01 * draw.normal(size=(2, 500, 2))
        >>> x, y = (np.hstack([x, each]) for each in noise)  # the same signal, each with faint neurons of its own
        >>> round(mean_cca(x, y), 1), round(svcca(x, y), 6)
        (0.5, 1.0)

    Raghu et al. 2017, "SVCCA: Singular Vector Canonical Correlation Analysis for Deep Learning Dynamics and
    Interpretability", section 2.
    """
    if not 0 < variance <= 1:
        raise ValueError(f"svcca: variance={variance}; expected a share in (0, 1], for example 0.99.")
    return float(_canonical("svcca", *_centred("svcca", x, y), variance=variance)[1].mean())


def pwcca(x: Activations, y: Activations) -> float:
    """The mean canonical correlation, each direction weighted by how much of `x` it accounts for.

    Σ αᵢ ρᵢ / Σ αᵢ with αᵢ = Σⱼ |⟨hᵢ, xⱼ⟩|, over the centred neurons xⱼ and the canonical directions hᵢ = Xaᵢ of x,
    ‖hᵢ‖ = 1.

    Args:
        x: [n, p], the representation that gives the weights; `pwcca(x, y)` and `pwcca(y, x)` differ.
        y: [n, q].

    Returns:
        The weighted mean. Where several ρ below 1 are equal their directions, and so the weights, are not unique.

    Raises:
        ValueError: as `cca`.

    Examples:
        >>> import numpy as np
        >>> from metaception.analysis.similarity import pwcca
        >>> draw = np.random.default_rng(0)
        >>> x, y = draw.normal(size=(2, 500, 2))
        >>> y[:, 0] = x[:, 0]
        >>> [round(pwcca(x * np.array([scale, 1.0]), y), 1) for scale in (1.0, 100.0)]
        [0.5, 1.0]

    Morcos et al. 2018, "Insights on Representational Similarity in Neural Networks with Canonical Correlation". The
    authors' code takes the weights from the side of lower rank; here they are always the first argument's.
    """
    centred = _centred("pwcca", x, y)
    directions, correlations = _canonical("pwcca", *centred)
    return float(np.average(correlations, weights=np.abs(directions.T @ centred[0]).sum(axis=1)))


def expected_cca_of_independent(n: int, p: int, q: int) -> float:
    """What `mean_cca` gives for independent Gaussian activations: its bias with n examples.

    ∫ √λ f(λ) dλ over Wachter's law of λ = ρ², f(λ) ∝ √((λ − λ₋)(λ₊ − λ)) / (λ (1 − λ)) on
    λ± = (√(a (1 − b)) ± √(b (1 − a)))², with a = p / (n − 1), b = q / (n − 1). Its mean of ρ² is exactly
    max(p, q) / (n − 1).

    Args:
        n: examples, more than p + q.
        p, q: neurons that are not dead (ranks).

    Returns:
        The limit for many neurons: too large by 0.4 % at p = q = 50, by 3 % at 3, by 6 % at 1.

    Raises:
        ValueError: for sizes below one or n − 1 < p + q.

    Examples:
        >>> from metaception.analysis.similarity import expected_cca_of_independent
        >>> round(expected_cca_of_independent(1000, 50, 50), 3)
        0.191

    Wachter 1980, "The Limiting Empirical Measure of Multiple Discriminant Ratios"; E[Σ ρ²] = pq / (n − 1): Pillai's
    trace.
    """
    _check_sizes("expected_cca_of_independent", n, p, q, least=p + q + 1)
    a, b = p / (n - 1), q / (n - 1)
    low, high = ((np.sqrt(a * (1 - b)) + sign * np.sqrt(b * (1 - a))) ** 2 for sign in (-1, 1))
    # λ = middle − half cos t takes the roots at both ends out of the integrand; midpoints avoid 0 / 0 there.
    t = (np.arange(2000) + 0.5) * np.pi / 2000
    squares = (low + high) / 2 - (high - low) / 2 * np.cos(t)
    return float(np.average(np.sqrt(squares), weights=np.sin(t) ** 2 / (squares * (1 - squares))))


def expected_cka_of_independent(n: int, p: int, q: int) -> float:
    """What the biased `linear_cka` gives for independent isotropic Gaussian activations: its bias with n examples.

    √(pq / ((n + p) (n + q))), from E‖XᵀY‖² = (n − 1) pq and E‖XᵀX‖² = (n − 1) p (n + p), Wishart's second moment.

    Args:
        n: examples, at least 3.
        p, q: neurons. Correlated neurons, or neurons of unequal scale, count as fewer: see `permuted_baseline`.

    Returns:
        The expected numerator over the root of the expected squared denominators; too small by 4 % at n = 50, p = q = 1.

    Raises:
        ValueError: for sizes below one or n < 3.

    Examples:
        >>> from metaception.analysis.similarity import expected_cka_of_independent
        >>> round(expected_cka_of_independent(1000, 50, 50), 4)
        0.0476
    """
    _check_sizes("expected_cka_of_independent", n, p, q, least=3)
    return float(np.sqrt(p * q / ((n + p) * (n + q))))


def permuted_baseline(
    measure: Measure, x: Activations, y: Activations, key: PRNGKeyArray, draws: int
) -> Float[np.ndarray, " draws"]:
    """A measure's finite-sample floor: its values when the examples of y are shuffled, so that none meets its own.

    Args:
        measure: `(x, y) -> number`.
        x, y: [n, …], the examples first. Shuffle images, not their positions, which are not independent of each other:
            give [n, height, width, channels] and a measure that calls `as_rows`.
        key: PRNG key; it seeds NumPy's generator.
        draws: number of shuffles.

    Returns:
        [draws]; their mean is the floor. For matrices that mean tends to tr K tr L / ((n − 1) ‖K‖ ‖L‖) for the biased
        CKA, K = XXᵀ and L = YYᵀ centred, and to zero for the debiased.

    Raises:
        ValueError: for fewer than one draw, and what the measure raises.

    Examples:
        >>> import jax, numpy as np
        >>> from metaception.analysis.similarity import linear_cka, permuted_baseline
        >>> x = np.random.default_rng(0).normal(size=(50, 10))
        >>> floor = permuted_baseline(linear_cka, x, x, jax.random.key(0), draws=20).mean()
        >>> round(linear_cka(x, x), 6), round(float(floor), 1)
        (1.0, 0.2)
    """
    if draws < 1:
        raise ValueError(f"permuted_baseline: draws={draws}; expected at least one.")
    draw, y = np.random.default_rng(np.asarray(jax.random.key_data(key))), np.asarray(y)
    return np.array([measure(x, y[draw.permutation(len(y))]) for _ in range(draws)], np.float64)


def _centred(measure: str, x: Activations, y: Activations, least: int = 3) -> tuple[Rows, Rows]:
    """Both as float64, each neuron's mean off and the largest entry 1 (the measures are free of scale), or a refusal."""
    shapes = f"{measure}: x {np.shape(x)} and y {np.shape(y)}"
    if np.ndim(x) != 2 or np.ndim(y) != 2:
        raise ValueError(f"{shapes}; expected matrices [examples, neurons]. For convolutions call as_rows on both.")
    if len(x) != len(y):
        raise ValueError(f"{shapes} differ in their number of examples; give both the same ones, in the same order.")
    if len(x) < least:
        raise ValueError(f"{shapes} have too few examples; give at least {least}.")
    both = []
    for name, array in (("x", x), ("y", y)):
        rows = np.asarray(array, np.float64)
        bad = int(np.sum(~np.isfinite(rows)))
        if bad:
            raise ValueError(
                f"{shapes}: {bad} of {rows.size} entries of {name} are not finite; if adaptation diverged, leave the task out "
                "or lower the inner rate."
            )
        rows = rows - rows[0]  # makes a constant column exactly zero, which its mean, being rounded, would not
        rows -= rows.mean(axis=0)
        if not rows.any():
            raise ValueError(
                f"{shapes}: {name} is constant over the examples, so that nothing can correlate with it; leave the layer out "
                "or look for dead units."
            )
        both.append(rows / np.abs(rows).max())
    return both[0], both[1]


def _hsic(x: Rows, y: Rows) -> float:
    return float(np.sum((x.T @ y) ** 2))


def _debiased_hsic(x: Rows, y: Rows) -> float:
    """n (n − 3) HSIC₁ of centred rows.

    With K̃ = K − diag(k) and K1 = 0, the three terms of Song et al. reduce to tr K̃L̃ = ‖XᵀY‖² − k · l,
    1ᵀK̃1 1ᵀL̃1 = Σk Σl and 1ᵀK̃L̃1 = k · l.
    """
    n, k, l_ = len(x), np.sum(x**2, axis=1), np.sum(y**2, axis=1)
    return float(_hsic(x, y) - n / (n - 2) * (k @ l_) + k.sum() * l_.sum() / ((n - 1) * (n - 2)))


def _canonical(measure: str, x: Rows, y: Rows, variance: float = 1.0) -> tuple[Rows, Float[np.ndarray, " k"]]:
    """The canonical directions of x, orthonormal columns [n, k], and the correlations [k]."""
    a, b = _basis(x, variance), _basis(y, variance)
    n, ranks = len(x), (a.shape[1], b.shape[1])
    if n - 1 < sum(ranks):
        raise ValueError(
            f"{measure}: x {x.shape} and y {y.shape} span {ranks[0]} and {ranks[1]} of {n - 1} dimensions, so that at least "
            f"{sum(ranks) - n + 1} canonical correlations are 1 whatever the activations; give more than {sum(ranks)} "
            "examples, better five to ten times as many as neurons, or use linear_cka."
        )
    left, correlations, _ = np.linalg.svd(a.T @ b, full_matrices=False)
    return a @ left, np.clip(correlations, 0.0, 1.0)


def _basis(rows: Rows, variance: float) -> Rows:
    """Orthonormal columns: the fewest principal directions that explain the share `variance`."""
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    rank = int(np.sum(values > RANK_THRESHOLD * values[0]))
    explained = np.cumsum(values**2) / np.sum(values**2)
    return left[:, : min(rank, int(np.searchsorted(explained, variance)) + 1)]


def _check_sizes(function: str, n: int, p: int, q: int, least: int) -> None:
    if min(p, q) < 1 or n < least:
        raise ValueError(
            f"{function}: n={n}, p={p}, q={q}; expected at least one neuron each and n >= {least} examples."
        )
