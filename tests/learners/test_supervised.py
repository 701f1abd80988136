"""Learners that fit a model: any inner optimiser, any loss, minibatches, and the part that adapts."""

import re
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from jax.flatten_util import ravel_pytree
from problems import network, problem

import metaception as mc
from metaception.learners.head import last_layer

KEY = jax.random.key(0)

OPTIMIZERS = {
    "sgd": optax.sgd(1.0),
    "momentum": optax.sgd(1.0, momentum=0.8),
    "nesterov": optax.sgd(1.0, momentum=0.8, nesterov=True),
    "adam": optax.adam(1.0, eps_root=1e-6),
    "adamw": optax.adamw(1.0, eps_root=1e-6, weight_decay=0.1),
    "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(1.0)),
}


@pytest.mark.parametrize("estimator", [mc.Unroll(), mc.Unroll(mode="mixed"), mc.FirstOrder()])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_any_inner_optimiser(float64, optimizer, estimator):
    """The meta-gradient through its state, against differences of the loss (first order: inner gradients held)."""
    given = problem("initialisation")
    given = given._replace(learner=replace(given.learner, optimizer=optimizer))
    estimator.check(given.learner, given.meta, given.task)
    said = jax.jit(lambda meta: estimator.estimate(KEY, given.learner, meta, (), given.task)[0].gradient)(given.meta)
    first_order = isinstance(estimator, mc.FirstOrder)
    oracle = oracles.of_the_loss_with_inner_gradients_held if first_order else oracles.of_the_loss
    expected = ravel_pytree(oracle(given, given.task))[0]
    np.testing.assert_allclose(ravel_pytree(said)[0], expected, rtol=1e-5, atol=1e-7)
    assert np.abs(expected).max() > 1e-2


@pytest.mark.parametrize(("eps_root", "finite"), [(0.0, False), (1e-8, True)])
def test_adam_without_eps_root_and_a_dead_unit(float64, eps_root, finite):
    """What Unroll.check refuses, shown: a hidden unit that is never active, and the meta-gradient is not a number."""
    start = {"in": jnp.array([[0.7, 0.4]]), "bias": jnp.array([2.0, -100.0]), "out": jnp.array([[0.5], [0.3]])}
    model = mc.Model(lambda key: start, lambda p, x: jax.nn.relu(x @ p["in"] + p["bias"]) @ p["out"])
    optimizer = optax.adam(1.0, eps_root=eps_root)
    given = problem("initialisation")
    learner = replace(given.learner, model=model, optimizer=optimizer)
    meta = learner.init_meta(KEY)
    said = mc.Unroll().estimate(KEY, learner, meta, (), given.task)[0].gradient
    assert bool(jnp.isfinite(ravel_pytree(said)[0]).all()) == finite
    if finite:
        mc.Unroll().check(learner, meta, given.task)
    else:
        with pytest.raises(mc.Unsuitable, match="Give the inner optimiser a positive eps_root"):
            mc.Unroll().check(learner, meta, given.task)


def huber(predictions, targets):
    return jnp.mean(optax.losses.huber_loss(predictions, targets, delta=0.5))


def bernoulli(predictions, targets):
    return jnp.mean(optax.losses.sigmoid_binary_cross_entropy(predictions, (targets > 0).astype(predictions.dtype)))


@pytest.mark.parametrize("loss", [huber, bernoulli])
def test_any_loss(float64, loss):
    given = problem("initialisation")
    given = given._replace(learner=replace(given.learner, loss_function=loss))
    said = mc.Unroll().estimate(KEY, given.learner, given.meta, (), given.task)[0].gradient
    expected = oracles.of_the_loss(given, given.task)
    np.testing.assert_allclose(ravel_pytree(said)[0], ravel_pytree(expected)[0], rtol=1e-5, atol=1e-7)


def test_minibatches_go_through_the_shuffled_support_set():
    """Six examples, two a step: three steps see each once, the next three in the same order, another key another."""
    learner = mc.Initialisation(
        model=network(), loss_function=mc.mean_squared_error, rate=jnp.asarray(0.1), steps=6, batch_size=2
    )
    x = jnp.arange(6.0)[:, None]
    data, meta = mc.Examples(x, 10 * x), learner.init_meta(KEY)

    def seen(key):
        state, batches = learner.init(key, meta, data), []
        for _ in range(6):
            batch = learner.batch(state, data)
            np.testing.assert_array_equal(batch.targets, 10 * batch.inputs)
            batches.append([int(value) for value in batch.inputs[:, 0]])
            state = learner.step(key, meta, state, data)
        return batches

    orders = [seen(jax.random.key(seed)) for seed in range(3)]
    for batches in orders:
        assert sorted(np.ravel(batches[:3])) == list(range(6))
        assert batches[3:] == batches[:3]
    assert orders[0] != orders[1] != orders[2]


def test_a_step_on_a_minibatch(float64):
    """By hand: the parameters move along the gradient of the loss on that minibatch alone."""
    given = problem("initialisation")
    learner = replace(given.learner, batch_size=3)
    state = learner.init(KEY, given.meta, given.task.support)
    rows = np.asarray(state.order[:3])
    assert sorted(np.asarray(state.order)) == [0, 1, 2, 3]

    def loss(parameters):
        x, y = (array[rows] for array in given.task.support)
        return jnp.mean((learner.model.apply(parameters, x) - y) ** 2)

    expected = jax.tree.map(lambda p, g: p - 0.15 * g, given.meta, jax.grad(loss)(given.meta))
    after = learner.step(KEY, given.meta, state, given.task.support).parameters
    np.testing.assert_allclose(ravel_pytree(after)[0], ravel_pytree(expected)[0], rtol=1e-12)


def test_mean_squared_error_refuses_shapes_that_broadcast():
    message = (
        "mean_squared_error: predictions (5, 1) and targets (5,) differ in shape; give the targets the shape of the model's "
        "outputs, for example y[:, None]."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        mc.mean_squared_error(jnp.zeros((5, 1)), jnp.zeros(5))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ([{"bias": 1, "weight": 2}, {"bias": 3, "weight": 4}], [{"bias": 0, "weight": 0}, {"bias": 1, "weight": 1}]),
        ({"Dense_0": {"kernel": 1}, "Dense_1": {"bias": 2, "kernel": 3}}, {"Dense_0": 0, "Dense_1": 1}),
        ([(1, 2)], [(1, 1)]),  # one layer, and it is the last
        (1, 1),
    ],
)
def test_the_last_layer_is_the_last_leaf_and_its_siblings(parameters, expected):
    mask = last_layer(parameters)
    assert jax.tree.structure(mask) == jax.tree.structure(parameters)
    assert jax.tree.leaves(mask) == jax.tree.leaves(jax.tree.map(bool, jax.tree.broadcast(expected, parameters)))


@pytest.mark.parametrize("parameters", [(1, 2, 3, 4), {"w1": 1, "w2": 2}])
def test_parameters_without_layers_have_no_last_one(parameters):
    with pytest.raises(ValueError, match=r"parameters are not grouped into layers.*metaception\.Head\(…, part=…\)"):
        last_layer(parameters)


def test_the_last_layer_of_an_equinox_network():
    parameters = eqx.filter(eqx.nn.MLP(1, 1, 4, 2, key=KEY), eqx.is_inexact_array)
    mask = last_layer(parameters)
    assert [bool(leaf) for leaf in jax.tree.leaves(mask)] == [False] * 4 + [True] * 2
    assert (mask.layers[-1].weight, mask.layers[-1].bias) == (True, True)


def test_a_head_adapts_the_part_that_the_mask_names(float64):
    """Differences of a plain loop in which the rest stays put; and `part` may name any other part."""
    given = problem("initialisation")

    def first_bias(parameters):
        mask = jax.tree.map(lambda _: False, parameters)
        mask[0]["bias"] = True
        return mask

    for part, moves in ((last_layer, ((1, "bias"), (1, "weight"))), (first_bias, ((0, "bias"),))):
        learner = mc.Head(
            model=network(), loss_function=mc.mean_squared_error, rate=jnp.asarray(0.15), steps=3, part=part
        )

        def outer(meta, moves=moves):
            def fit(parameters, examples):
                return jnp.mean((given.learner.model.apply(parameters, examples.inputs) - examples.targets) ** 2)

            parameters = meta
            for _ in range(3):
                slopes = jax.grad(fit)(parameters, given.task.support)
                parameters = [
                    {name: p - 0.15 * slopes[i][name] * ((i, name) in moves) for name, p in layer.items()}
                    for i, layer in enumerate(parameters)
                ]
            return fit(parameters, given.task.query)

        said = mc.Unroll().estimate(KEY, learner, given.meta, (), given.task)[0].gradient
        expected = oracles.central_differences(outer, given.meta)
        np.testing.assert_allclose(ravel_pytree(said)[0], ravel_pytree(expected)[0], rtol=1e-6, atol=1e-8)


def test_first_order_is_exact_where_the_inner_hessian_is_zero(float64):
    """An inner loss that is linear in the parameters has no second derivative for FirstOrder to leave out."""

    def linear_inside(predictions, targets):
        return jnp.mean(predictions * targets)

    model = mc.Model(lambda key: jax.random.normal(key, (2, 1)), lambda p, x: jnp.concatenate([x, x**2], 1) @ p)
    given = problem("initialisation")
    learner = replace(given.learner, model=model, loss_function=linear_inside)
    meta = learner.init_meta(KEY)
    task = given.task._replace(query=given.task.query._replace(targets=given.task.query.targets + 1.0))
    exact, first = (e.estimate(KEY, learner, meta, (), task)[0].gradient for e in (mc.Unroll(), mc.FirstOrder()))
    np.testing.assert_allclose(first, exact, rtol=1e-12)
    assert float(jnp.abs(exact).max()) > 1e-2
