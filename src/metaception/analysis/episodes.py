"""Regression as reinforcement learning: tasks as episodes of observations and actions, policies as models.

A task is {L(x₁, a₁, …, x_H, a_H), q(x₁), q(x_{t+1} | x_t, a_t), H} (Finn et al. 2017, section 2.1). Regression is H = 1:
observe x₁, act a₁ = f(x₁) or a₁ ~ N(f(x₁), σ²), pay (a₁ − y(x₁))².
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import Adapted, Aux, Descending, Initialising, Meta, Sampling
from metaception.core.model import Model
from metaception.core.task import Task


class World(NamedTuple):
    """What K episodes of one task start from.

    Attributes:
        first: x₁ of each episode [K, d], drawn from q(x₁).
        setting: what makes this task different from others, for the cost and the transition; any pytree.
    """

    first: Float[Array, "K d"]
    setting: PyTree


class Trajectories(NamedTuple):
    """K episodes of H steps.

    Attributes:
        observations: x_t [K, H, d].
        actions: a_t [K, H, m].
        costs: L of each whole episode [K].
    """

    observations: Float[Array, "K H d"]
    actions: Float[Array, "K H m"]
    costs: Float[Array, " K"]


class Problem(eqx.Module):
    """What all tasks of a family share.

    Args:
        cost: `(setting, x [d], a [m]) -> scalar`, summed over an episode.
        transition: `(setting, x [d], a [m]) -> x [d]`, the mean of q(x_{t+1} | x_t, a_t), here without noise.
        horizon: H.
    """

    cost: Callable[[PyTree, Array, Array], Float[Array, ""]] = eqx.field(static=True)
    transition: Callable[[PyTree, Array, Array], Float[Array, " d"]] = eqx.field(static=True)
    horizon: int = eqx.field(static=True, default=1)

    def rollout(
        self, key: PRNGKeyArray, act: Callable[[PRNGKeyArray, Array], Float[Array, " m"]], world: World
    ) -> Trajectories:
        """Run `act` in each of the world's episodes."""

        def episode(key: PRNGKeyArray, first: Float[Array, " d"]) -> Trajectories:
            def tick(x: Array, key: PRNGKeyArray) -> tuple[Array, tuple[Array, Array, Array]]:
                a = act(key, x)
                return self.transition(world.setting, x, a), (x, a, self.cost(world.setting, x, a))

            _, (x, a, costs) = jax.lax.scan(tick, first, jax.random.split(key, self.horizon))
            return Trajectories(x, a, costs.sum())

        return jax.vmap(episode)(jax.random.split(key, world.first.shape[0]), world.first)


class _Policy(Descending, Initialising):
    """Gradient steps on the parameters of a policy from a learned initialisation: what both kinds below share."""

    model: eqx.AbstractVar[Model]
    problem: eqx.AbstractVar[Problem]
    rate: eqx.AbstractVar[Float[Array, ""]]

    @abstractmethod
    def inner_loss(self, key: PRNGKeyArray, meta: Meta, parameters: PyTree, state: PyTree, data: Any) -> Any: ...

    def init_meta(self, key: PRNGKeyArray) -> Meta:
        return self.model.init(key)

    def init(self, key: PRNGKeyArray, meta: Meta, data: Any) -> PyTree:
        del key, data
        return meta

    def parameters(self, state: PyTree) -> PyTree:
        return state

    def inner_update(self, meta: Meta, state: PyTree, gradient: PyTree) -> PyTree:
        del meta
        return optax.tree.add_scale(state, -self.rate, gradient)

    def output(self, meta: Meta, state: PyTree) -> Adapted:
        del meta
        return state

    def predict(self, adapted: Adapted, inputs: Any) -> Any:
        return self.model.apply(adapted, inputs)

    def mean_action(self, parameters: PyTree, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """f_θ(x)."""
        return self.model.apply(parameters, x[None])[0]


class DeterministicPolicy(_Policy):
    """a = f_θ(x), and the gradient of an episode's loss goes through the actions (and the transitions, for H > 1).

    Tasks have a `World` for support and for query.

    Args:
        model: f.
        problem: cost, transition, horizon.
        rate: α.
        steps: inner steps.
    """

    model: Model
    problem: Problem
    rate: Float[Array, ""]
    steps: int = eqx.field(static=True)

    def inner_loss(
        self, key: PRNGKeyArray, meta: Meta, parameters: PyTree, state: PyTree, data: World
    ) -> Float[Array, ""]:
        del key, meta, state
        return self._mean_cost(parameters, data)

    def loss(self, key: PRNGKeyArray, meta: Meta, adapted: Adapted, task: Task) -> tuple[Float[Array, ""], Aux]:
        del key, meta
        return self._mean_cost(adapted, task.query), {}

    def _mean_cost(self, parameters: PyTree, world: World) -> Float[Array, ""]:
        unused = jax.random.key(0)
        return self.problem.rollout(unused, lambda _, x: self.mean_action(parameters, x), world).costs.mean()


class GaussianPolicy(_Policy, Sampling):
    """a ~ N(f_θ(x), σ²), and every gradient is REINFORCE's, inside and outside: costs are only seen, never differentiated.

    Inner gradient: (1/K) Σⱼ (Σ_t ∇ log f_θ(a_t | x_t)) L_j on K episodes that θ itself drew; outer loss: the mean cost of
    episodes that the adapted policy draws. How the support episodes depend on θ is the score term, which the estimator
    adds (`Sampling`).

    Args:
        model, problem, rate, steps: as in `DeterministicPolicy`.
        scale: σ.

    Williams 1992; Finn et al. 2017, algorithm 3.
    """

    model: Model
    problem: Problem
    rate: Float[Array, ""]
    scale: Float[Array, ""]
    steps: int = eqx.field(static=True)

    def collect(self, key: PRNGKeyArray, meta: Meta, task: Task) -> Task:
        return Task(self._act(key, meta, task.support), task.query)

    def log_prob(self, meta: Meta, task: Task) -> Float[Array, ""]:
        return self._log_probs(meta, task.support).sum()

    def inner_loss(
        self, key: PRNGKeyArray, meta: Meta, parameters: PyTree, state: PyTree, data: Trajectories
    ) -> Float[Array, ""]:
        del key, meta, state
        return jnp.mean(self._log_probs(parameters, data) * data.costs)

    def loss(self, key: PRNGKeyArray, meta: Meta, adapted: Adapted, task: Task) -> tuple[Float[Array, ""], Aux]:
        del meta
        drawn = self._act(key, adapted, task.query)
        score = self._log_probs(adapted, drawn)
        # Its value is the mean cost, its derivative REINFORCE's.
        return jnp.mean(drawn.costs * (1 + score - jax.lax.stop_gradient(score))), {}

    def _act(self, key: PRNGKeyArray, parameters: PyTree, world: World) -> Trajectories:
        def act(key: PRNGKeyArray, x: Float[Array, " d"]) -> Float[Array, " m"]:
            mean = self.mean_action(parameters, x)
            return mean + self.scale * jax.random.normal(key, mean.shape, mean.dtype)

        return jax.lax.stop_gradient(self.problem.rollout(key, act, world))

    def _log_probs(self, parameters: PyTree, episodes: Trajectories) -> Float[Array, " K"]:
        """log f_θ of each episode's actions, without the constant."""

        def one(x: Float[Array, " d"], a: Float[Array, " m"]) -> Float[Array, ""]:
            return -0.5 * jnp.sum(((a - self.mean_action(parameters, x)) / self.scale) ** 2)

        return jax.vmap(jax.vmap(one))(episodes.observations, episodes.actions).sum(axis=1)


def expected_outer_loss(learner: GaussianPolicy, meta: Meta, task: Task, nodes: int = 40) -> Float[Array, ""]:
    """The expected outer loss of a Gaussian policy that takes one inner step, by quadrature instead of by sampling.

    E over a₁ … a_K of J(θ − α ĝ(a)), with J(θ) = mean (f_θ(x) − y(x))² + σ² the expected query cost. A Gauss–Hermite rule
    stands for each support action, so nothing is random and the derivative in `meta` is the exact meta-gradient.

    Args:
        learner: with horizon 1, one inner step, one-dimensional actions and a squared-error cost.
        meta: θ.
        task: a `World` for support and for query, with few support episodes: `nodes`^K inner steps are taken.
        nodes: points of each rule.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    world = task.support
    episodes = world.first.shape[0]
    grid = np.stack(np.meshgrid(*[points] * episodes), axis=-1).reshape(-1, episodes, 1)
    shares = np.stack(np.meshgrid(*[weights / weights.sum()] * episodes), axis=-1).reshape(-1, episodes).prod(axis=1)

    def after(noise: Float[Array, "K 1"]) -> Float[Array, ""]:
        actions = learner.model.apply(meta, world.first) + learner.scale * noise
        costs = jax.vmap(learner.problem.cost, in_axes=(None, 0, 0))(world.setting, world.first, actions)
        data = Trajectories(world.first[:, None], actions[:, None], costs)
        adapted = learner.adapt(jax.random.key(0), meta, data)
        wanted = learner.model.apply(adapted, task.query.first)
        paid = jax.vmap(learner.problem.cost, in_axes=(None, 0, 0))(task.query.setting, task.query.first, wanted)
        return paid.mean() + learner.scale**2

    return jnp.asarray(shares) @ jax.vmap(after)(jnp.asarray(grid))
