"""The one inner loop: whatever its form, it takes the same steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import problem

import metaception as mc
from metaception.core.learner import FEW_STEPS

KEY = jax.random.key(5)


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, FEW_STEPS, FEW_STEPS + 1])
def test_advance_takes_the_steps_one_by_one(float64, length, loop):
    """Written out or as a loop, with and without notes: what a plain loop over `learner.step` gives."""
    given = problem("initialisation")
    task = jax.tree.map(lambda a: a[0], given.tasks)
    start = given.learner.init(KEY, given.meta, task.support)

    def size(state):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(state.parameters))

    expected, sizes = start, []
    for key in jax.random.split(KEY, length):
        expected = given.learner.step(key, given.meta, expected, task.support)
        sizes.append(size(expected))

    def run(read):
        return mc.advance(given.learner, KEY, given.meta, start, task.support, length=length, read=read, loop=loop)

    (silent, nothing), (state, noted) = run(None), run(size)
    assert nothing is None
    np.testing.assert_allclose(noted, np.array(sizes), rtol=1e-12)
    for found in (silent, state):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
