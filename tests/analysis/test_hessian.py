import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import metaception as mc
from metaception.analysis import hessian

RATE = 0.03


@pytest.fixture(params=["relu", "tanh"])
def setting(request, float64):
    """A small network, three tasks, and learners of one and two steps."""
    model = mc.mlp(1, 1, widths=(4,), activation=request.param, initialiser="he")
    learners = [
        mc.Initialisation(model=model, loss_function=mc.mean_squared_error, rate=jnp.asarray(RATE), steps=steps)
        for steps in (1, 2)
    ]
    tasks = jax.jit(jax.vmap(mc.Sinusoids().sample))(jax.random.split(jax.random.key(1), 3))
    return learners, model.init(jax.random.key(0)), tasks


def distance(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def test_equation_10_with_its_factor_inside_the_sum(setting):
    (learner, _), meta, tasks = setting

    @jax.jit
    @jax.vmap
    def of_task(task):
        exact, first_order = (
            ravel_pytree(estimator.estimate(jax.random.key(0), learner, meta, (), task)[0].gradient)[0]
            for estimator in (mc.Unroll(), mc.FirstOrder())
        )
        inside = hessian.meta_gradient(learner.fit_loss, meta, task, RATE)
        return exact, first_order, inside, hessian.factor(learner.fit_loss, meta, task.support, RATE)

    exact, first_order, inside, factors = of_task(tasks)
    assert distance(inside.sum(axis=0), exact.sum(axis=0)) < 1e-12
    # As printed, with the factor outside, no task's Hessian and no mean of them gives it.
    for outside in (*factors, factors.mean(axis=0)):
        assert distance(first_order.sum(axis=0) @ outside, exact.sum(axis=0)) > 0.01


def test_two_steps_are_the_product_of_two_factors(setting):
    (_, learner), meta, tasks = setting
    support = jax.tree.map(lambda leaf: leaf[0], tasks.support)

    @jax.jit
    def measure():
        jacobian = hessian.adaptation_jacobian(learner, jax.random.key(0), meta, support)
        return jacobian, hessian.step_factors(learner.fit_loss, meta, support, RATE, 2)

    jacobian, (first, second) = measure()
    identity = jnp.eye(len(first))
    assert distance(second @ first, jacobian) < 1e-12
    # The misprinted last line of the derivation, and the factors in the wrong order.
    assert distance((first + second - identity) @ first, jacobian) > 0.01
    assert distance(first @ second, jacobian) > 1e-6


def test_step_is_the_learners_own(setting):
    (_, two), meta, tasks = setting
    support = jax.tree.map(lambda leaf: leaf[0], tasks.support)

    @jax.jit
    def both():
        once = hessian.step(two.fit_loss, meta, support, RATE)
        found = two.adapt(jax.random.key(0), meta, support)
        return [ravel_pytree(p)[0] for p in (found, hessian.step(two.fit_loss, once, support, RATE))]

    np.testing.assert_allclose(*both(), rtol=1e-12)
