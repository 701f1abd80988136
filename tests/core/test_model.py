"""Model-agnostic in fact: every kind of model, and any pytree of parameters, trains in MAML."""

import re
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

import metaception as mc

KEY = jax.random.key(2)
EXAMPLE = jnp.zeros((1, 1))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.tanh(nn.Dense(8)(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.inner, self.outer = nnx.Linear(1, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.outer(jnp.tanh(self.inner(x)))


class Normalised(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(1, rngs=rngs)

    def __call__(self, x):
        return self.norm(x)


class Recurrent(eqx.Module):
    """Reads the input again and again through a gated recurrent cell, then out of its state."""

    cell: eqx.nn.GRUCell
    out: eqx.nn.Linear

    def __init__(self, key):
        key_cell, key_out = jax.random.split(key)
        self.cell, self.out = eqx.nn.GRUCell(1, 6, key=key_cell), eqx.nn.Linear(6, 1, key=key_out)

    def __call__(self, x):
        sequence = jnp.stack([x, x**2, x])
        state, _ = jax.lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(6), sequence)
        return self.out(state)


class Odd(NamedTuple):
    """Parameters of a structure that nobody would choose: tuples, dictionaries, an empty one, a scalar, a list."""

    layers: Any
    nothing: Any
    scale: Any


def odd():
    def init(key):
        keys = jax.random.split(key, 2)
        first, second = jax.random.normal(keys[0], (1, 8)), 0.4 * jax.random.normal(keys[1], (8, 1))
        return Odd(({"w": first, "deep": [(jnp.zeros(8),)]}, (second,)), {}, jnp.ones(()))

    def apply(p, x):
        first, (second,) = p.layers
        return p.scale * jnp.tanh(x @ first["w"] + first["deep"][0][0]) @ second

    return init, apply


MODELS = {
    "ours": mc.mlp(1, 1, widths=(8,), activation="tanh", initialiser="he"),
    "equinox module": eqx.nn.MLP(1, 1, 8, 1, activation=jnp.tanh, key=jax.random.key(0)),
    "equinox maker": lambda key: eqx.nn.MLP(1, 1, 8, 1, activation=jnp.tanh, key=key),
    "linen": Linen(),
    "nnx maker": lambda rngs: nnx.Sequential(nnx.Linear(1, 8, rngs=rngs), jnp.tanh, nnx.Linear(8, 1, rngs=rngs)),
    "nnx class": Nnx,
    "pair": (lambda key: 0.5 * jax.random.normal(key, (2,)), lambda p, x: p[0] * jnp.sin(p[1] * x)),
    "recurrent": Recurrent,
    "odd pytree": odd(),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_trains_in_maml(model):
    """Sixty outer steps on lines bring the loss after adaptation well down."""
    tasks = mc.Lines(shots=5, slope=(0.5, 1.0), intercept=(0.0, 0.0), inputs=(-1.0, 1.0))
    method = mc.MAML(meta_batch_size=8, inner_rate=0.1, outer_rate=0.03)
    algorithm = method.build(model, tasks)

    @jax.jit
    def train(state):
        return jax.lax.scan(lambda s, key: algorithm.step(key, s), state, jax.random.split(KEY, 60))

    state, info = train(algorithm.init(jax.random.key(1)))
    assert bool(info.finite.all())
    assert float(info.loss[-10:].mean()) < 0.5 * float(info.loss[:5].mean())
    assert jax.tree.structure(state.meta) == jax.tree.structure(algorithm.learner.init_meta(KEY))
    adapted = algorithm.adapt(KEY, state.meta, tasks.sample(KEY).support)
    assert algorithm.predict(adapted, jnp.zeros((3, 1))).shape == (3, 1)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_parameters_are_what_the_model_computes_with(model):
    """Every number in them matters for some output, and there are as many as `count_parameters` says."""
    made = mc.as_model(model, EXAMPLE)
    flat, rebuild = ravel_pytree(made.init(KEY))
    assert flat.size == mc.count_parameters(model, EXAMPLE)
    x = jnp.linspace(-1.5, 2.0, 40)[:, None]
    slopes = jax.jacobian(lambda flat: made.apply(rebuild(flat), x))(flat + 0.01)
    assert bool((jnp.abs(slopes).max(axis=(0, 1)) > 0).all())


@pytest.mark.parametrize(
    ("name", "fresh"), [("equinox module", False), ("equinox maker", True), ("linen", True), ("nnx maker", True)]
)
def test_seeds(name, fresh):
    """A maker draws new weights for each key; a module that was given as it is keeps its own."""
    model = mc.as_model(MODELS[name], EXAMPLE)
    a, b = (ravel_pytree(model.init(jax.random.key(seed)))[0] for seed in (0, 1))
    assert (not np.array_equal(a, b)) == fresh


def test_what_the_libraries_compute():
    """The same outputs as calling Equinox's and Flax's own modules."""
    x = jax.random.normal(KEY, (5, 1))
    module = MODELS["equinox module"]
    model = mc.as_model(module)
    np.testing.assert_allclose(model.apply(model.init(KEY), x), jax.vmap(module)(x), rtol=1e-6)
    model = mc.as_model(Linen(), EXAMPLE)
    np.testing.assert_allclose(model.apply(model.init(KEY), x), Linen().apply(Linen().init(KEY, EXAMPLE), x), rtol=1e-6)
    model = mc.as_model(Nnx)
    np.testing.assert_allclose(model.apply(model.init(KEY), x), Nnx(nnx.Rngs(KEY))(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (3, "as_model: cannot use a int; expected a pair (init, apply), an Equinox module or a function key -> module"),
        (Linen(), "as_model: Linen is a Flax linen module, which finds its shapes from data; pass a batch of inputs"),
        (lambda key: jnp.zeros(3), "expected an Equinox module (or, for rngs, a Flax NNX module)."),
        (Normalised, "as_model: Normalised holds state beside its parameters (batch statistics, dropout keys)"),
    ],
    ids=["a number", "linen without an example", "a function to an array", "batch statistics"],
)
def test_what_is_refused(model, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        mc.as_model(model)


def test_a_makers_own_error_is_what_is_told():
    """A forgotten argument is not taken for a wish for Flax."""
    with pytest.raises(TypeError, match="depth"):
        mc.as_model(lambda key: eqx.nn.MLP(1, 1, 16, key=key))


def test_linen_layers_with_state_are_refused():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False)(nn.Dense(1)(x))

    with pytest.raises(TypeError, match="Normalised has batch_stats beside its parameters"):
        mc.as_model(Normalised(), EXAMPLE)
