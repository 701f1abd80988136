"""Convolution against XLA's own and against sums written out: values, derivatives of every kind and order, mapping."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaception as mc
from metaception.domains.classification import convolution

# height, width, rows, columns, stride: odd and even sizes, windows that are not square, strides that skip places.
SHAPES = [(7, 6, 3, 3, 2), (5, 8, 3, 3, 1), (9, 9, 5, 2, 3), (4, 4, 3, 3, 2), (6, 7, 1, 1, 2)]


def arrays(height, width, rows, columns, *, channels=3, n=2):
    key_images, key_kernel = jax.random.split(jax.random.key(0))
    images = jax.random.normal(key_images, (n, height, width, channels), jnp.float64)
    return images, jax.random.normal(key_kernel, (rows, columns, channels, 4), jnp.float64)


def loss(algorithm, stride, images, kernel):
    return jnp.sum(jnp.tanh(mc.convolve(images, kernel, stride=stride, algorithm=algorithm)))


def first(algorithm, stride, images, kernel):
    return jax.grad(partial(loss, algorithm, stride), (0, 1))(images, kernel)


def second(algorithm, stride, images, kernel):
    """Reverse over reverse, as an unrolled inner loop has it; through both arguments."""

    def squared(images, kernel):
        return sum(jnp.sum(g**3) for g in first(algorithm, stride, images, kernel))

    return jax.grad(squared, (0, 1))(images, kernel)


def forward_over_reverse(algorithm, stride, images, kernel):
    """As mixed mode has it."""
    return jax.jvp(partial(first, algorithm, stride), (images, kernel), (images**2, kernel + 1))


def mapped_kernels(algorithm, stride, images, kernel):
    """Each task its own kernel, as after an inner step."""
    return jax.vmap(partial(second, algorithm, stride), (None, 0))(images, jnp.stack([kernel, 2 * kernel]))


def mapped_images(algorithm, stride, images, kernel):
    return jax.vmap(partial(second, algorithm, stride), (1, None), 1)(jnp.stack([images, images**2], 1), kernel)


@pytest.mark.parametrize(
    ("what", "shape"),
    [
        *((second, shape) for shape in SHAPES),
        *((what, SHAPES[0]) for what in (forward_over_reverse, mapped_kernels, mapped_images)),
    ],
)
def test_all_derivatives_are_those_of_xlas_convolution(float64, what, shape):
    *sizes, stride = shape
    given = arrays(*sizes)
    ours, theirs = (jax.tree.leaves(jax.jit(partial(what, name, stride))(*given)) for name in ("split", "xla"))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [1, 3, convolution.FEW])
@pytest.mark.parametrize("at_once", [1, 2, 6])
def test_patches_for_a_few_images_at_a_time_add_up(float64, monkeypatch, stride, channels, at_once):
    places = {1: 30, 2: 9}[stride]
    # Room for one more than two and not for three: of six images, two at a time.
    monkeypatch.setattr(convolution, "PATCHES", 8 * (at_once * places * 9 * channels + 1))
    given = arrays(5, 6, 3, 3, channels=channels, n=6)
    program = jax.jit(partial(second, "split", stride)).lower(*given)
    loops = program.as_text().count("stablehlo.while")
    assert (loops == 0) == (at_once == 6)
    ours, theirs = program.compile()(*given), jax.jit(partial(second, "xla", stride))(*given)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("algorithm", ["split", "xla"])
def test_values_are_the_sums_that_a_convolution_is(float64, algorithm):
    """Padding by hand, TensorFlow's SAME: with an even size and stride 2, none before and one after."""
    images, kernel = arrays(6, 4, 3, 3)
    padded = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)))
    expected = np.zeros((2, 3, 2, 4))
    for row in range(3):
        for column in range(2):
            window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            expected[:, row, column] = np.einsum("nijc,ijcf->nf", window, kernel)
    np.testing.assert_allclose(mc.convolve(images, kernel, stride=2, algorithm=algorithm), expected, rtol=1e-9)


def test_uncompiled_and_in_single_precision_it_is_the_same():
    images, kernel = (
        jax.random.normal(jax.random.key(0), (1, 5, 5, 2)),
        jax.random.normal(jax.random.key(1), (3, 3, 2, 1)),
    )
    np.testing.assert_allclose(
        mc.convolve(images, kernel, algorithm="split"),
        mc.convolve(images, kernel, algorithm="xla"),
        rtol=1e-4,
        atol=1e-4,
    )
