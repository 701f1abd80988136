"""What the checks see, and what they say."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from problems import Quadratic, network, problem

import metaception as mc
from metaception.metagrad import _check
from metaception.metagrad._check import unseen_leaves
from metaception.metagrad.reptile import Reptile

pytestmark = pytest.mark.usefixtures("float64")


@jax.custom_vjp
def by_hand(x):
    """A sine with a reverse rule alone, as hand-written kernels have."""
    return jnp.sin(x)


by_hand.defvjp(lambda x: (jnp.sin(x), jnp.cos(x)), lambda cosine, cotangent: (cosine * cotangent,))


@jax.custom_vjp
def by_itself(x):
    """The same, with a rule that calls the function again: no forward-mode derivative passes through that."""
    return jnp.sin(x)


by_itself.defvjp(lambda x: (by_itself(x), x), lambda x, cotangent: (jnp.cos(x) * cotangent,))


def looped(meta):
    """Reads `a` through a scan; `b` goes into the scan and is stopped there; `c` only moves what nobody reads."""

    def body(carry, _):
        x, y = carry
        return (jnp.tanh(x + meta["a"]) + jax.lax.stop_gradient(meta["b"]), y * meta["c"]), None

    return jax.lax.scan(body, (jnp.ones(()), jnp.ones(())), None, length=3)[0][0]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda meta: meta["a"] * meta["b"] + meta["c"], []),
        (lambda meta: meta["a"] * jax.lax.stop_gradient(meta["b"]) + meta["c"], ["['b']"]),
        (lambda meta: meta["a"] + meta["b"], ["['c']"]),
        (lambda meta: jnp.round(meta["a"]) + meta["b"] + meta["c"], ["['a']"]),
        (looped, ["['b']", "['c']"]),
        (lambda meta: by_hand(meta["a"]) + by_hand(jax.lax.stop_gradient(meta["b"])), ["['b']", "['c']"]),
        (lambda meta: by_itself(meta["a"]) + by_itself(jax.lax.stop_gradient(meta["b"])), ["['b']", "['c']"]),
        (lambda meta: jax.grad(lambda x: by_itself(x) * meta["b"])(meta["a"]) + meta["c"], []),
        (lambda meta: jnp.stack([jax.lax.stop_gradient(meta["a"]) + meta["b"], meta["c"]]), ["['a']"]),
    ],
    ids=["read", "stopped", "never read", "rounded", "inside a scan", "by hand", "by itself", "its gradient", "partly"],
)
def test_unseen_leaves(function, expected):
    meta = dict.fromkeys("abc", jax.ShapeDtypeStruct((), jnp.float64))
    assert unseen_leaves(function, meta) == expected


def test_unseen_leaves_passes_over_integers():
    meta = {"count": jnp.zeros((), jnp.int32), "x": jnp.ones(())}
    assert unseen_leaves(lambda meta: meta["x"] + meta["count"], meta) == []


def initialisation(optimizer=None, model=None, steps=2):
    return mc.Initialisation(
        model=model or network(),
        loss_function=mc.mean_squared_error,
        rate=jnp.asarray(0.1),
        steps=steps,
        optimizer=optimizer or optax.sgd(1.0),
    )


def checked(estimator, learner):
    """Check on shapes alone, as MetaAlgorithm does."""
    meta = jax.eval_shape(learner.init_meta, jax.random.key(0))
    given = problem("initialisation")
    estimator.check(learner, meta, jax.eval_shape(lambda: given.task))


SAFE = {
    "sgd": optax.sgd(1.0),
    "momentum": optax.sgd(1.0, momentum=0.9, nesterov=True),
    "adam": optax.adam(1.0, eps_root=1e-8),
    "rmsprop": optax.rmsprop(1.0, eps=1e-8, eps_in_sqrt=True),
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)),
}
UNSAFE = {"adam": optax.adam(1.0), "rmsprop": optax.rmsprop(1.0, eps_in_sqrt=False)}


def test_nothing_is_computed_for_an_update_without_steep_operations(monkeypatch):
    """So that a check costs as little for the largest model as for the smallest."""
    monkeypatch.setattr(_check, "fill", None)
    checked(mc.Unroll(), initialisation(SAFE["momentum"]))
    with pytest.raises(TypeError):
        checked(mc.Unroll(), initialisation(SAFE["adam"]))


@pytest.mark.parametrize("optimizer", SAFE.values(), ids=SAFE)
def test_takes_inner_optimisers_that_are_smooth(optimizer):
    checked(mc.Unroll(), initialisation(optimizer))


@pytest.mark.parametrize("estimator", [mc.Unroll(), mc.Truncated(window=2, horizon=2)])
@pytest.mark.parametrize("optimizer", UNSAFE.values(), ids=UNSAFE)
def test_refuses_inner_optimisers_with_a_kink_at_zero(estimator, optimizer):
    message = (
        f"{type(estimator).__name__} cannot estimate the meta-gradient of Initialisation: the derivative of its inner update "
        "is not finite where an entry of the inner gradient is zero, so that one dead unit would make the whole "
        "meta-gradient not a number. Give the inner optimiser a positive eps_root (optax.adam(1.0, eps_root=1e-8)), or use "
        "FirstOrder."
    )
    with pytest.raises(mc.Unsuitable, match=re.escape(message)):
        checked(estimator, initialisation(optimizer))


@pytest.mark.parametrize("estimator", [mc.FirstOrder(), Reptile(), mc.EvolutionStrategies()])
def test_estimators_that_do_not_differentiate_the_update_take_adam(estimator):
    checked(estimator, initialisation(optax.adam(1.0)))


def test_mixed_mode_and_reverse_rules():
    """It takes a rule that can itself be differentiated forward, refuses one that cannot; the other modes take both."""
    layers = network().init

    def through(activation):
        return initialisation(
            model=mc.Model(
                lambda key: [layer["weight"] for layer in layers(key)], lambda p, x: activation(x @ p[0]) @ p[1]
            )
        )

    mixed = mc.Unroll(mode="mixed")
    checked(mixed, through(by_hand))
    checked(mc.Unroll(mode="rematerialise"), through(by_itself))
    with pytest.raises(mc.Unsuitable, match=r"reverse rule alone \(jax.custom_vjp\). Use mode='rematerialise'"):
        checked(mixed, through(by_itself))


class Closed(mc.Learner):
    """A learner without steps: θ* of a quadratic, scaled by a learned number; one leaf is read by nobody."""

    def init_meta(self, key):
        del key
        return {"idle": jnp.ones(()), "scale": jnp.ones(())}

    def adapt(self, key, meta, data):
        del key
        return meta["scale"] * jnp.linalg.solve(data.w, data.y)

    def loss(self, key, meta, adapted, task):
        del key, meta
        return jnp.sum((task.query.w @ adapted - task.query.y) ** 2), {}

    def predict(self, adapted, inputs):
        return inputs @ adapted


class Descent(mc.GradientBased, mc.Stationary):
    """Gradient descent on a quadratic with a learned step size, which its solution does not depend on."""

    steps: int = eqx.field(static=True, default=2)

    def init_meta(self, key):
        del key
        return {"centre": jnp.zeros(2), "rate": jnp.asarray(0.1)}

    def init(self, key, meta, data):
        del key, meta, data
        return jnp.zeros(2)

    def inner_gradient(self, key, meta, state, data):
        del key
        return self.optimality(meta, state, data)

    def inner_update(self, meta, state, gradient):
        return state - meta["rate"] * gradient

    def output(self, meta, state):
        del meta
        return state

    def optimality(self, meta, adapted, data):
        return data.w.T @ (data.w @ adapted - data.y) + adapted - meta["centre"]

    def loss(self, key, meta, adapted, task):
        del key, meta
        return jnp.sum((task.query.w @ adapted - task.query.y) ** 2), {}

    def predict(self, adapted, inputs):
        return inputs @ adapted


QUADRATIC = Quadratic(jnp.eye(2), jnp.ones(2))
BAD_SETTINGS = {
    "Implicit: cg_steps=0; the solve needs at least one step.": mc.Implicit(cg_steps=0),
    "Implicit: damping=-1.0; expected a finite number, 0 or more.": mc.Implicit(damping=-1.0),
    "EvolutionStrategies: sigma=0.0, pairs=8; expected sigma > 0 and at least one antithetic pair.": (
        mc.EvolutionStrategies(sigma=0.0)
    ),
    "EvolutionStrategies: sigma=0.01, pairs=0; expected": mc.EvolutionStrategies(pairs=0),
    "PersistentES: sigma=-1.0, pairs=8; expected": mc.PersistentES(window=1, horizon=1, sigma=-1.0),
    "PersistentES: window=2, horizon=3; expected a horizon that is a multiple of the window, both at least 1.": (
        mc.PersistentES(window=2, horizon=3)
    ),
    "Truncated: window=0, horizon=4; expected": mc.Truncated(window=0, horizon=4),
}


@pytest.mark.parametrize("message", BAD_SETTINGS)
def test_bad_settings(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        checked(BAD_SETTINGS[message], initialisation())


def test_an_unknown_mode():
    estimator = mc.Unroll()
    object.__setattr__(estimator, "mode", "backwards")  # the tests' own type checks would not let it be built
    with pytest.raises(ValueError, match=r"Unroll: mode='backwards'; expected reverse, rematerialise or mixed."):
        checked(estimator, initialisation())


REFUSALS = {
    "Unroll cannot estimate the meta-gradient of Closed: the outer loss does not depend on ['idle']. Take the leaf out": (
        mc.Unroll(),
        Closed(),
    ),
    "Unroll cannot estimate the meta-gradient of Closed: mode='mixed' with loss_at='last' speaks of inner steps": (
        mc.Unroll(mode="mixed"),
        Closed(),
    ),
    "Unroll cannot estimate the meta-gradient of Closed: mode='reverse' with loss_at='every' speaks of inner steps": (
        mc.Unroll(loss_at="every"),
        Closed(),
    ),
    "Truncated cannot estimate the meta-gradient of Closed: it adapts without steps, so there is nothing to truncate.": (
        mc.Truncated(window=1, horizon=1),
        Closed(),
    ),
    "Implicit cannot estimate the meta-gradient of Descent: the inner solution does not depend on ['rate'], which": (
        mc.Implicit(),
        Descent(),
    ),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_refusals(message):
    estimator, learner = REFUSALS[message]
    with pytest.raises(mc.Unsuitable, match=re.escape(message)):
        estimator.check(learner, learner.init_meta(jax.random.key(0)), mc.Task(QUADRATIC, QUADRATIC))


def test_reptile_needs_a_step_and_the_structure_of_its_meta_parameters():
    with pytest.raises(
        mc.Unsuitable, match=r"without an inner step nothing is displaced. Set inner_steps to at least 1"
    ):
        checked(Reptile(), initialisation(steps=0))
