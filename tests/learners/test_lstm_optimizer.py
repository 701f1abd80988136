"""The LSTM meta-learner: gradient descent where the LSTM is silent, a step by hand, and its meta-gradients."""

import dataclasses
import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.flatten_util import ravel_pytree
from problems import Problem, curves, network

import metaception as mc
from metaception.learners.lstm_optimizer import log_and_sign

KEY = jax.random.key(0)


def lstm(**changes):
    """On a tanh network of ten parameters; two steps, two hidden units."""
    settings = {"rate": jnp.asarray(0.15), "steps": 2, "forget": jnp.asarray(0.9), "hidden": 2} | changes
    return mc.LSTMOptimizer(model=network(), loss_function=mc.mean_squared_error, **settings)


def spread(meta, scale=0.7):
    """The meta-parameters with weights of the rule that are large, and no two alike; its biases stay."""
    flat, rebuild = ravel_pytree(meta.rule)
    large = rebuild(flat + scale * np.random.default_rng(0).standard_normal(flat.size))
    return meta._replace(
        rule=large._replace(
            input=large.input._replace(bias=meta.rule.input.bias),
            forget=large.forget._replace(bias=meta.rule.forget.bias),
        )
    )


def test_with_a_silent_lstm_it_is_gradient_descent(float64):
    """Weights of the gates at zero: steps of σ(b_I), decay of σ(b_F), which is one to the last bit at 50."""
    learner = lstm(rate=jnp.asarray(0.11), steps=7)
    meta = spread(learner.init_meta(KEY))  # the LSTM inside speaks, and the gates do not listen
    step, keep = (gate._replace(weights=jnp.zeros_like(gate.weights)) for gate in (meta.rule.input, meta.rule.forget))
    support = jax.tree.map(lambda a: a[0], curves()).support
    adapt = jax.jit(lambda meta: ravel_pytree(learner.adapt(KEY, meta, support))[0])

    never = keep._replace(bias=jnp.asarray(50.0))
    descent = mc.Initialisation(network(), mc.mean_squared_error, jnp.asarray(0.11), steps=7)
    expected = ravel_pytree(descent.adapt(KEY, meta.initialisation, support))[0]
    ours = adapt(meta._replace(rule=meta.rule._replace(input=step, forget=never)))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)

    start, rebuild = ravel_pytree(meta.initialisation)
    slopes = jax.jit(jax.grad(lambda flat: descent.fit_loss(rebuild(flat), support)))
    at = start
    for _ in range(7):
        at = 0.9 * at - 0.11 * slopes(at)
    ours = adapt(meta._replace(rule=meta.rule._replace(input=step, forget=keep)))
    np.testing.assert_allclose(ours, at, rtol=1e-12)
    assert np.abs(at - expected).max() > 0.1  # the decay does count


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def told(x):
    """Andrychowicz et al. 2016, appendix A, as it is printed there, with p = 10."""
    return [math.log(abs(x)) / 10, math.copysign(1.0, x)] if abs(x) >= math.exp(-10) else [-1.0, math.exp(10) * x]


@pytest.mark.parametrize("x", [3.0, -0.02, 1e-4, -2e-5, 3e-7, 0.0])
def test_numbers_are_told_as_the_paper_prints_it(float64, x):
    np.testing.assert_allclose(log_and_sign(jnp.asarray(x)), told(x), rtol=1e-12)


def test_two_steps_by_hand(float64):
    """A line through two points, slope and intercept, with plain numbers: one coordinate after the other."""
    model = mc.Model(
        lambda key: {"slope": jnp.asarray(0.7), "up": jnp.asarray(-0.4)}, lambda p, x: p["slope"] * x + p["up"]
    )
    learner = mc.LSTMOptimizer(
        model, mc.mean_squared_error, jnp.asarray(0.2), steps=2, forget=jnp.asarray(0.8), hidden=2
    )
    meta = spread(learner.init_meta(KEY))
    xs, ys = [1.0, -0.5], [2.0, 0.3]
    said = learner.adapt(KEY, meta, mc.Examples(jnp.array(xs)[:, None], jnp.array(ys)[:, None]))

    weights, bias = (np.asarray(a).tolist() for a in meta.rule[:2])
    gates = [(np.asarray(gate.weights).tolist(), float(gate.bias)) for gate in meta.rule[2:]]
    parameters = [0.7, -0.4]
    memories = [{"h": [0.0, 0.0], "c": [0.0, 0.0], "gates": [0.0, 0.0]} for _ in parameters]
    for _ in range(2):
        errors = [parameters[0] * x + parameters[1] - y for x, y in zip(xs, ys, strict=True)]
        loss = sum(e * e for e in errors) / 2
        gradient = [sum(e * x for e, x in zip(errors, xs, strict=True)), sum(errors)]
        for k, memory in enumerate(memories):
            seen = [*told(gradient[k]), *told(loss), *memory["h"]]
            sums = [sum(w * s for w, s in zip(weights[row], seen, strict=True)) + bias[row] for row in range(8)]
            for unit in range(2):
                write, keep, read = (sigmoid(sums[2 * part + unit]) for part in range(3))
                memory["c"][unit] = keep * memory["c"][unit] + write * math.tanh(sums[6 + unit])
                memory["h"][unit] = read * math.tanh(memory["c"][unit])
            step, keep = (
                sigmoid(w[0] * memory["h"][0] + w[1] * memory["h"][1] + w[2] * parameters[k] + w[3] * before + b)
                for (w, b), before in zip(gates, memory["gates"], strict=True)
            )
            memory["gates"] = [step, keep]
            parameters[k] = keep * parameters[k] - step * gradient[k]
    np.testing.assert_allclose([said["slope"], said["up"]], parameters, rtol=1e-12)


def flat_gradient(estimator, given):
    run = jax.jit(lambda meta: estimator.estimate(KEY, given.learner, meta, (), given.task)[0].gradient)
    return ravel_pytree(run(given.meta))[0]


def test_meta_gradients_are_those_of_finite_differences(float64):
    """Of the loss, and first order along recorded gradients *and losses*: those are what the paper holds fixed."""
    learner = lstm()
    given = Problem(learner, spread(learner.init_meta(KEY)), curves())
    held = oracles.of_the_loss_with_inner_gradients_held(given, given.task)
    full = oracles.of_the_loss(given, given.task)
    # The problem must be able to tell: every part of the rule counts, and the stopped terms do.
    assert all(np.abs(leaf).max() > 1e-5 for leaf in jax.tree.leaves(held))
    held, full = ravel_pytree(held)[0], ravel_pytree(full)[0]
    assert np.abs(held - full).max() > 1e-2
    for estimator, expected in ((mc.FirstOrder(), held), (mc.Unroll(), full), (mc.Unroll(mode="mixed"), full)):
        np.testing.assert_allclose(flat_gradient(estimator, given), expected, rtol=1e-5, atol=1e-7)


def test_first_order_is_exact_where_gradients_and_what_is_told_of_the_loss_are_constant(float64):
    """An inner loss that is linear in the parameters: its gradient is constant, and its value is not."""
    model = mc.Model(lambda key: jax.random.normal(key, (2, 1)), lambda p, x: jnp.concatenate([x, x**2], 1) @ p)
    learner = dataclasses.replace(lstm(), model=model, loss_function=lambda predictions, y: jnp.mean(predictions * y))
    meta = spread(learner.init_meta(KEY))
    unheard = meta._replace(rule=meta.rule._replace(weights=meta.rule.weights.at[:, 2:4].set(0.0)))
    for at, exact in ((unheard, True), (meta, False)):
        given = Problem(learner, at, curves())
        gradients = [flat_gradient(estimator, given) for estimator in (mc.Unroll(), mc.FirstOrder())]
        gap = np.abs(gradients[0] - gradients[1]).max()
        assert gap < 1e-12 if exact else gap > 1e-4
        assert np.abs(gradients[0]).max() > 1e-2


def test_a_coordinate_without_a_gradient_has_finite_derivatives(float64):
    """Where the logarithm of its size would be infinite: a hidden unit that is never active."""
    start = {"in": jnp.array([[0.7, 0.4]]), "bias": jnp.array([2.0, -100.0]), "out": jnp.array([[0.5], [0.3]])}
    model = mc.Model(lambda key: start, lambda p, x: jax.nn.relu(x @ p["in"] + p["bias"]) @ p["out"])
    learner = dataclasses.replace(lstm(), model=model)
    given = Problem(learner, learner.init_meta(KEY), curves())
    mc.Unroll().check(learner, given.meta, given.task)
    assert np.isfinite(flat_gradient(mc.Unroll(), given)).all()


def test_training_learns_the_rule():
    """With the initialisation held where it is, the update rule alone: from the same start it comes closer in three steps."""
    tasks = mc.Sinusoids(shots=10, amplitude=(1.0, 2.0), phase=(0.0, 0.5))
    method = mc.MetaLSTM(inner_steps=3, hidden=2, meta_batch_size=4, outer_rate=0.03)
    algorithm = method.build(mc.mlp(1, 1, widths=(16,), initialiser="he"), tasks)
    state = eqx.filter_jit(algorithm.init)(KEY)
    start = state.meta

    @jax.jit
    def train(state, keys):
        def step(state, key):
            state, _ = algorithm.step(key, state)
            return state._replace(meta=state.meta._replace(initialisation=start.initialisation)), None

        return jax.lax.scan(step, state, keys)[0]

    trained = train(state, jax.random.split(jax.random.key(1), 200)).meta
    seeds = jax.tree.map(lambda *leaves: jnp.stack(leaves), start, trained)
    losses = mc.evaluate(algorithm, seeds, tasks, steps=3, count=100).losses.mean(axis=1)
    assert losses[0, 0] == losses[1, 0]
    assert losses[1, -1] < 0.75 * losses[0, -1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_rate": 0.0}, "meta_lstm: inner_rate=0.0; a gate starts between 0 and 1."),
        ({"forget": 1.0}, "meta_lstm: forget=1.0; a gate starts between 0 and 1."),
        ({"hidden": 0}, "meta_lstm: hidden=0; the LSTM needs at least one unit."),
    ],
)
def test_settings_that_no_gate_can_start_from_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        mc.MetaLSTM(**settings)
