"""Cross-entropy and accuracy by hand, absent rows included."""

import jax
import jax.numpy as jnp
import numpy as np

import metaception as mc

LOGITS = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]]))
LABELS = jnp.array([0, 2, 1, -1])


def test_the_loss_is_the_mean_over_the_rows_that_are_there():
    expected = -(np.log(0.7) + np.log(0.3) + np.log(0.4)) / 3
    np.testing.assert_allclose(mc.cross_entropy(LOGITS, LABELS), expected, rtol=1e-6)
    np.testing.assert_allclose(mc.cross_entropy(LOGITS[:3], LABELS[:3]), expected, rtol=1e-6)


def test_the_accuracy_counts_the_same_rows():
    np.testing.assert_allclose(mc.cross_entropy.measures(LOGITS, LABELS)["accuracy"], 1 / 3, rtol=1e-6)


def test_absent_rows_have_no_gradient_and_a_shift_of_the_logits_changes_nothing():
    gradient = jax.grad(mc.cross_entropy)(LOGITS, LABELS)
    np.testing.assert_array_equal(gradient[3], 0)
    np.testing.assert_allclose(gradient[0], (np.array([0.7, 0.2, 0.1]) - [1, 0, 0]) / 3, rtol=1e-5)
    np.testing.assert_allclose(mc.cross_entropy(LOGITS + 100.0, LABELS), mc.cross_entropy(LOGITS, LABELS), rtol=1e-4)


def test_no_row_at_all_is_a_loss_of_zero_and_not_of_nan():
    assert float(mc.cross_entropy(LOGITS, jnp.full(4, -1))) == 0.0
