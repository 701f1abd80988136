import jax
import numpy as np

import metaception as mc
from metaception.analysis.extrapolation import SupportElsewhere


def test_one_function_seen_in_one_half_and_judged_in_the_other():
    left, right = mc.Sinusoids(shots=8, inputs=(-5.0, 0.0)), mc.Sinusoids(queries=9, inputs=(0.0, 5.0), grid=True)
    keys = jax.random.split(jax.random.key(0), 50)
    tasks = jax.jit(jax.vmap(SupportElsewhere(left, right).sample))(keys)
    assert tasks.support.inputs.shape == (50, 8, 1)
    assert tasks.support.inputs.max() <= 0 <= tasks.query.inputs.min()
    assert tasks.query.inputs.max() == 5.0
    # The same keys told their task: both halves are A sin(x − φ) with that A and φ.
    said = jax.jit(jax.vmap(mc.Sinusoids(told=True).sample))(keys).support.inputs[:, 0]
    amplitude, phase = said[:, 1][:, None, None], said[:, 2][:, None, None]
    for half in tasks:
        np.testing.assert_allclose(half.targets, amplitude * np.sin(half.inputs - phase), atol=1e-5)
