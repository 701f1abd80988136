import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaception as mc
from metaception.analysis.sensitivity import loss_along_gradient, sensitivity


def setting():
    model = mc.mlp(1, 1, widths=(5,), activation="tanh", initialiser="he")
    learner = mc.Initialisation(model=model, loss_function=mc.mean_squared_error, rate=jnp.asarray(0.02), steps=1)
    return learner, model.init(jax.random.key(0)), mc.Sinusoids().sample(jax.random.key(1))


def test_slopes_are_derivatives_of_the_learners_own_step(float64):
    learner, meta, task = setting()
    found = jax.jit(lambda: sensitivity(learner.fit_loss, meta, task, 0.02))()

    @jax.jit
    def after(rate, examples):
        moved = mc.Initialisation(model=learner.model, loss_function=learner.loss_function, rate=rate, steps=1)
        return learner.fit_loss(moved.adapt(jax.random.key(0), meta, task.support), examples)

    # Central differences in α: their error is of the order of 1e-6² times the third derivative.
    for slope, examples in ((found.support_slope, task.support), (found.query_slope, task.query)):
        assert float(slope) == pytest.approx(float(after(-1e-6, examples) - after(1e-6, examples)) / 2e-6, rel=1e-6)
    assert float(found.before) == pytest.approx(float(after(0.0, task.query)))
    assert float(found.after) == pytest.approx(float(after(0.02, task.query)))
    assert float(found.drop_per_distance) == pytest.approx(float((found.before - found.after) / found.distance))


def test_curve_passes_through_the_step(float64):
    learner, meta, task = setting()
    found = jax.jit(lambda: sensitivity(learner.fit_loss, meta, task, 0.02))()
    distances = jnp.array([0.0, found.distance])
    curve = jax.jit(lambda: loss_along_gradient(learner.fit_loss, meta, task, distances))()
    np.testing.assert_allclose(curve, [found.before, found.after], rtol=1e-12)
