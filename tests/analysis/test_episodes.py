import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import metaception as mc
from metaception.analysis.episodes import (
    DeterministicPolicy,
    GaussianPolicy,
    Problem,
    Trajectories,
    World,
    expected_outer_loss,
)

MODEL = mc.mlp(1, 1, widths=(2,), activation="tanh", initialiser="he")


def pay(setting, x, a):
    amplitude, phase = setting
    return jnp.sum((a - amplitude * jnp.sin(x - phase)) ** 2)


def move(setting, x, a):
    return x + a


def worlds(shots, queries):
    """One sinusoid, as a regression task and as a task to act in."""
    arguments = {"shots": shots, "queries": queries, "amplitude": (0.5, 1.5)}
    plain, told = (jax.jit(mc.Sinusoids(**arguments, told=told).sample)(jax.random.key(3)) for told in (False, True))
    return plain, mc.Task(*(World(h.inputs[:, :1], (h.inputs[0, 1], h.inputs[0, 2])) for h in told))


def flat(estimate):
    return ravel_pytree(estimate.gradient)[0]


@pytest.mark.parametrize("steps", [1, 3])
def test_regression_is_an_episode_of_length_one(float64, steps):
    plain, acting = worlds(5, 4)
    meta, key, rate = MODEL.init(jax.random.key(1)), jax.random.key(0), jnp.asarray(0.05)
    supervised = mc.Initialisation(model=MODEL, loss_function=mc.mean_squared_error, rate=rate, steps=steps)
    policies = [DeterministicPolicy(MODEL, Problem(pay, move, horizon), rate, steps) for horizon in (1, 2)]

    @jax.jit
    def estimates():
        acted = [mc.Unroll().estimate(key, policy, meta, (), acting)[0] for policy in policies]
        return [flat(estimate) for estimate in (mc.Unroll().estimate(key, supervised, meta, (), plain)[0], *acted)]

    wanted, one, two = estimates()
    np.testing.assert_allclose(one, wanted, rtol=1e-10, atol=1e-12)
    # With a second step, whose observation depends on the action, it is another problem.
    assert np.linalg.norm(two - wanted) > 0.1 * np.linalg.norm(wanted)


def test_score_function_estimate_of_a_gaussian_policy(float64):
    _, acting = worlds(1, 4)
    meta, draws = MODEL.init(jax.random.key(1)), 20_000
    policy = GaussianPolicy(MODEL, Problem(pay, move), jnp.asarray(0.1), jnp.asarray(0.3), steps=1)
    mc.Unroll().check(policy, meta, acting)
    exact = ravel_pytree(jax.jit(jax.grad(lambda meta: expected_outer_loss(policy, meta, acting, 30)))(meta))[0]

    def away(score_term):
        """How many of its own standard errors each component of the sampled meta-gradient is from the exact one."""
        estimator = mc.Unroll(score_term=score_term)

        @jax.jit
        def sample(keys):
            return jax.vmap(lambda key: flat(estimator.estimate(key, policy, meta, (), acting)[0]))(keys)

        each = np.asarray(sample(jax.random.split(jax.random.key(0), draws)))
        return (each.mean(axis=0) - exact) * np.sqrt(draws) / each.std(axis=0)

    # Seven components; four standard errors are exceeded by one of them once in 2,000 seeds.
    assert np.abs(away(score_term=True)).max() < 4
    assert np.abs(away(score_term=False)).max() > 6


def test_expected_inner_gradient_is_regressions(float64):
    # REINFORCE's gradient averaged over a fine grid of actions, weighted by their density, is that of (f(x) − y)².
    plain, acting = worlds(1, 1)
    meta, scale = MODEL.init(jax.random.key(1)), 0.5
    policy = GaussianPolicy(MODEL, Problem(pay, move), jnp.asarray(0.05), jnp.asarray(scale), steps=1)
    supervised = mc.Initialisation(model=MODEL, loss_function=mc.mean_squared_error, rate=jnp.asarray(0.05), steps=1)
    noise = jnp.linspace(-8, 8, 401)
    weights = jnp.exp(-0.5 * noise**2) / jnp.exp(-0.5 * noise**2).sum()

    def inner(action_noise):
        actions = jax.lax.stop_gradient(MODEL.apply(meta, acting.support.first)) + scale * action_noise
        costs = jax.vmap(pay, in_axes=(None, 0, 0))(acting.support.setting, acting.support.first, actions)
        data = Trajectories(acting.support.first[:, None], actions[:, None], costs)
        return ravel_pytree(policy.inner_gradient(jax.random.key(0), meta, meta, data))[0]

    @jax.jit
    def regressions():
        state = supervised.init(jax.random.key(0), meta, plain.support)
        return ravel_pytree(supervised.inner_gradient(jax.random.key(0), meta, state, plain.support))[0]

    found, wanted = jax.jit(lambda: weights @ jax.vmap(inner)(noise))(), regressions()
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)
