"""Small problems with known answers, on which every estimator is tried. Build them in double precision.

None of them is symmetric: no two parameters, states, arms or tasks are alike, so that a swapped index shows. But for the
bandit's, which draws its data, no learner here reads its key.
"""

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

import metaception as mc


class Problem(NamedTuple):
    """A learner, meta-parameters to differentiate at, and two tasks.

    Attributes:
        learner: what is meta-learned.
        meta: its meta-parameters.
        tasks: two tasks, stacked along a first axis.
        loss_at: where the outer loss of this problem is read, for estimators that can choose.
    """

    learner: Any
    meta: Any
    tasks: mc.Task
    loss_at: str = "last"

    @property
    def task(self) -> mc.Task:
        """The first of the tasks."""
        return jax.tree.map(lambda a: a[0], self.tasks)

    def with_steps(self, steps: int) -> "Problem":
        """The same problem with that many inner steps."""
        return self._replace(learner=replace(self.learner, steps=steps))


class Quadratic(NamedTuple):
    """The loss ½‖Wθ − y‖²: `w` [2, 2], `y` [2]."""

    w: Any
    y: Any


class UpdateRule(mc.Descending):
    """A small learned optimiser: each coordinate's step is a tiny network of its gradient and its momentum.

    The state is (θ [2], momentum [2]); `meta` is {"inner": [2, 3], "outer": [3]}.
    """

    steps: int = eqx.field(static=True, default=4)

    def init_meta(self, key):
        key_inner, key_outer = jax.random.split(key)
        return {
            "inner": 0.8 * jax.random.normal(key_inner, (2, 3)),
            "outer": 0.8 * jax.random.normal(key_outer, (3,)),
        }

    def init(self, key, meta, data):
        del key, meta, data
        return jnp.array([0.7, -1.1]), jnp.zeros(2)

    def parameters(self, state):
        return state[0]

    def inner_loss(self, key, meta, parameters, state, data):
        del key, meta, state
        return 0.5 * jnp.sum((data.w @ parameters - data.y) ** 2)

    def inner_update(self, meta, state, gradient):
        parameters, momentum = state
        features = jnp.stack([gradient, momentum], axis=-1)
        return parameters - 0.3 * jnp.tanh(features @ meta["inner"]) @ meta["outer"], 0.6 * momentum + gradient

    def output(self, meta, state):
        del meta
        return state[0]

    def loss(self, key, meta, adapted, task):
        return self.inner_loss(key, meta, adapted, None, task.query), {}

    def predict(self, adapted, inputs):
        return inputs @ adapted


class Trial(NamedTuple):
    """What happened in one trial of a bandit: `actions` and `rewards` [3], each 0 or 1."""

    actions: Any
    rewards: Any


class Recurrent(mc.Iterative, mc.Sampling):
    """A recurrent network that pulls the arms of a two-armed Bernoulli bandit three times; its state is the learner.

    h' = tanh(A h + B [is arm 0, is arm 1, reward]); log-odds of arm 1 are v·h + c. The outer loss is minus the mean reward
    of the trial (what was drawn) minus the expected reward of a fourth pull (a smooth function of the last state), so that
    the score term and the pathwise term both count. The query holds the arms' chances of a reward.
    """

    steps: int = eqx.field(static=True, default=3)

    def init_meta(self, key):
        keys = jax.random.split(key, 4)
        shapes = {"a": (2, 2), "b": (2, 3), "c": (), "v": (2,)}
        return {name: 0.8 * jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}

    def collect(self, key, meta, task):
        def pull(hidden, key):
            key_action, key_reward = jax.random.split(key)
            action = jax.random.bernoulli(key_action, self.arm_one(meta, hidden)).astype(jnp.int32)
            reward = jax.random.bernoulli(key_reward, task.query[action]).astype(jnp.int32)
            return self.hear(meta, hidden, action, reward), Trial(action, reward)

        return mc.Task(jax.lax.scan(pull, jnp.zeros(2), jax.random.split(key, self.steps))[1], task.query)

    def log_prob(self, meta, task):
        def pull(hidden, trial):
            one = self.arm_one(meta, hidden)
            said = jnp.where(trial.actions == 1, jnp.log(one), jnp.log1p(-one))
            return self.hear(meta, hidden, trial.actions, trial.rewards), said

        return jnp.sum(jax.lax.scan(pull, jnp.zeros(2), task.support)[1])

    def init(self, key, meta, data):
        del key, meta, data
        return jnp.zeros(2), jnp.zeros((), jnp.int32)

    def step(self, key, meta, state, data):
        del key
        hidden, time = state
        return self.hear(meta, hidden, data.actions[time], data.rewards[time]), time + 1

    def output(self, meta, state):
        del meta
        return state[0]

    def loss(self, key, meta, adapted, task):
        del key
        one = self.arm_one(meta, adapted)
        return -jnp.mean(task.support.rewards) - (1 - one) * task.query[0] - one * task.query[1], {}

    def predict(self, adapted, inputs):
        del inputs
        return adapted

    def arm_one(self, meta, hidden):
        return jax.nn.sigmoid(meta["v"] @ hidden + meta["c"])

    def hear(self, meta, hidden, action, reward):
        return jnp.tanh(meta["a"] @ hidden + meta["b"] @ jnp.stack([1 - action, action, reward]).astype(hidden.dtype))


class Chain(NamedTuple):
    """A Markov reward process: `transitions` [3, 3], rows sum to one; `rewards` [3] for leaving each state."""

    transitions: Any
    rewards: Any


def solve(matrix, right):
    """The solution of a 3 × 3 system by Cramer's rule.

    Not by `jnp.linalg.solve`: on two cores, two independent batches of LAPACK calls in one program, as an antithetic pair
    has them, wait for each other for ever (JAX 0.10.2).
    """
    a, b, c = matrix
    columns = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=-1)
    return columns @ right / (a @ columns[:, 0])


class Returns(mc.GradientBased, mc.Stationary):
    """Values learned from λ-returns, whose γ and λ (through sigmoids) are the meta-parameters.

    v ← v + ½ (T v − v), T v = v + (I − γλP)⁻¹ (r + γPv − v), a semi-gradient and no gradient of anything. The fixed point
    is (I − γP)⁻¹ r whatever λ is. The query holds the values that are wanted.
    """

    steps: int = eqx.field(static=True, default=4)

    def init_meta(self, key):
        del key
        return {"gamma": jnp.asarray(0.6), "lambda_": jnp.asarray(-0.4)}

    def init(self, key, meta, data):
        del key, meta
        return jnp.zeros_like(data.rewards)

    def inner_gradient(self, key, meta, state, data):
        del key
        return self.optimality(meta, state, data)

    def inner_update(self, meta, state, gradient):
        del meta
        return state - 0.5 * gradient

    def output(self, meta, state):
        del meta
        return state

    def optimality(self, meta, adapted, data):
        gamma, lambda_ = jax.nn.sigmoid(meta["gamma"]), jax.nn.sigmoid(meta["lambda_"])
        error = data.rewards + gamma * data.transitions @ adapted - adapted
        return -solve(jnp.eye(3) - gamma * lambda_ * data.transitions, error)

    def loss(self, key, meta, adapted, task):
        del key, meta
        return jnp.sum((adapted - task.query) ** 2), {}

    def predict(self, adapted, inputs):
        return adapted[inputs]


def network() -> mc.Model:
    """A tanh network 1-3-1: ten parameters."""
    return mc.mlp(1, 1, widths=(3,), activation="tanh", initialiser="he")


def curves() -> mc.Task:
    """Two regression tasks of four support and three query points."""
    x = jnp.array([[[-1.3], [-0.2], [0.4], [1.7]], [[-0.9], [0.1], [0.8], [1.1]]])
    z = jnp.array([[[-0.7], [0.9], [1.4]], [[-1.6], [-0.3], [0.5]]])
    height, phase = jnp.array([1.5, 0.8])[:, None, None], jnp.array([0.3, 1.2])[:, None, None]
    return mc.Task(mc.Examples(x, height * jnp.sin(2 * x - phase)), mc.Examples(z, height * jnp.sin(2 * z - phase)))


def _initialisation() -> Problem:
    learner = mc.Initialisation(model=network(), loss_function=mc.mean_squared_error, rate=jnp.asarray(0.15), steps=3)
    return Problem(learner, learner.init_meta(jax.random.key(1)), curves())


def _proximal() -> Problem:
    learner = mc.ProximalInitialisation(
        model=network(), loss_function=mc.mean_squared_error, rate=jnp.asarray(0.15), strength=jnp.asarray(1.5), steps=4
    )
    return Problem(learner, learner.init_meta(jax.random.key(2)), curves())


def _rates() -> Problem:
    learner = mc.LearnedRates(model=network(), loss_function=mc.mean_squared_error, rate=jnp.asarray(0.1), steps=3)
    meta = learner.init_meta(jax.random.key(3))
    # Rates that differ, one of them negative.
    rates = jax.tree.map(lambda r: r + 0.1 * jnp.cos(3.0 * jnp.arange(r.size)).reshape(r.shape), meta.rates)
    return Problem(learner, meta._replace(rates=rates), curves())


def _rule() -> Problem:
    learner = UpdateRule()
    key_w, key_y = jax.random.split(jax.random.key(4))
    data = Quadratic(jax.random.normal(key_w, (2, 2, 2)), jax.random.normal(key_y, (2, 2)))
    return Problem(learner, learner.init_meta(jax.random.key(5)), mc.Task(data, data), loss_at="every")


def _bandit() -> Problem:
    learner = Recurrent()
    chances = jnp.array([[0.3, 0.8], [0.9, 0.4]])
    return Problem(learner, learner.init_meta(jax.random.key(6)), mc.Task(None, chances))


WANTED_DISCOUNT = 0.9


def _returns() -> Problem:
    learner = Returns()
    transitions = jnp.array(
        [[[0.1, 0.7, 0.2], [0.3, 0.0, 0.7], [0.6, 0.3, 0.1]], [[0.0, 0.2, 0.8], [0.5, 0.4, 0.1], [0.1, 0.7, 0.2]]]
    )
    rewards = jnp.array([[1.0, -0.5, 0.2], [0.3, 0.8, -1.0]])
    wanted = jnp.linalg.solve(jnp.eye(3) - WANTED_DISCOUNT * transitions, rewards[..., None])[..., 0]
    tasks = mc.Task(Chain(transitions, rewards), wanted)
    return Problem(learner, learner.init_meta(jax.random.key(0)), tasks)


_BUILDERS = {
    "initialisation": _initialisation,
    "proximal": _proximal,
    "rates": _rates,
    "rule": _rule,
    "bandit": _bandit,
    "returns": _returns,
}
PROBLEMS = tuple(_BUILDERS)
"""The names that `problem` knows."""


@cache
def problem(name: str) -> Problem:
    """The problem of that name; call it in double precision."""
    assert jax.config.jax_enable_x64, "use the float64 fixture"
    return _BUILDERS[name]()
