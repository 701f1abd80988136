import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import metaception as mc
from metaception.analysis.second_order import difference, split_hessian_product, straightened

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "softplus": jax.nn.softplus}


def network(activation):
    def apply(parameters, x):
        for layer in parameters[:-1]:
            x = activation(x @ layer["weight"] + layer["bias"])
        return x @ parameters[-1]["weight"] + parameters[-1]["bias"]

    return apply


def test_difference_by_hand():
    found = difference({"a": jnp.array(3.0), "b": jnp.array(4.0)}, {"a": jnp.array(3.0), "b": jnp.array(0.0)})
    assert float(found.relative_size) == pytest.approx(4 / 5)
    assert float(found.cosine) == pytest.approx(3 / 5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_parts_of_the_hessian(float64, name):
    model = mc.mlp(1, 1, widths=(4, 4), activation=name, initialiser="he")
    parameters, examples = model.init(jax.random.key(0)), mc.Sinusoids().sample(jax.random.key(1)).support
    flat, shape = ravel_pytree(parameters)
    vector = jnp.cos(jnp.arange(flat.size))
    straight = network(straightened(ACTIVATIONS[name]))

    def outputs(flat):
        return model.apply(shape(flat), examples.inputs)[:, 0]

    @jax.jit
    def measure():
        parts = split_hessian_product(
            model.apply, straight, mc.mean_squared_error, parameters, examples, vector=shape(vector)
        )
        explicit = jax.hessian(lambda flat: jnp.mean((outputs(flat) - examples.targets[:, 0]) ** 2))(flat)
        return [ravel_pytree(part)[0] for part in parts], explicit, jax.jacobian(outputs)(flat)

    (curvature, layers, activations), explicit, jacobian = jax.tree.map(np.asarray, measure())
    np.testing.assert_allclose(curvature + layers + activations, explicit @ vector, rtol=1e-10, atol=1e-12)
    # Gauss–Newton by its definition: the mean of 2 J Jᵀ over the ten points.
    np.testing.assert_allclose(curvature, 2 / 10 * jacobian.T @ (jacobian @ vector), rtol=1e-10, atol=1e-12)
    # Products of layers are there for every activation; φ″ is exactly zero for ReLU alone.
    assert np.linalg.norm(layers) > 0.01 * np.linalg.norm(curvature)
    if name == "relu":
        assert not activations.any()
    else:
        assert np.linalg.norm(activations) > 0.01 * np.linalg.norm(curvature)


def test_the_first_order_error_is_the_second_order_term(float64):
    # With one inner step MAML − FOMAML = −α H v, v the query gradient at the adapted parameters, which is FOMAML.
    model = mc.mlp(1, 1, widths=(4,), activation="tanh", initialiser="he")
    learner = mc.Initialisation(model=model, loss_function=mc.mean_squared_error, rate=jnp.asarray(0.05), steps=1)
    meta, task, key = model.init(jax.random.key(0)), mc.Sinusoids().sample(jax.random.key(1)), jax.random.key(2)

    @jax.jit
    def measure():
        exact, first = (
            estimator.estimate(key, learner, meta, (), task)[0].gradient for estimator in (mc.Unroll(), mc.FirstOrder())
        )
        straight = network(straightened(jnp.tanh))
        parts = split_hessian_product(model.apply, straight, mc.mean_squared_error, meta, task.support, vector=first)
        return [ravel_pytree(tree)[0] for tree in (exact, first, *parts)]

    exact, first, *parts = measure()
    np.testing.assert_allclose(exact - first, -0.05 * sum(parts), rtol=1e-9, atol=1e-12)
