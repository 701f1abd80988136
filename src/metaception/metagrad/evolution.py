"""Evolution strategies: the gradient of the smoothed objective, from function values alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from metaception.core.learner import Iterative, Learner, Meta
from metaception.core.metagradient import Estimate, MetaGradient
from metaception.core.task import Task
from metaception.metagrad._objective import LossAt, objective, window
from metaception.metagrad.truncated import check_windows, select


def perturbation(key: PRNGKeyArray, meta: Meta, sigma: float) -> Meta:
    """Gaussian noise of standard deviation `sigma`, of `meta`'s structure."""
    # One draw for all leaves: a draw for each takes seconds to compile.
    flat, rebuild = ravel_pytree(meta)
    return rebuild(sigma * jax.random.normal(key, flat.shape, flat.dtype))


def _add(a: PyTree, b: PyTree, scale: float = 1.0) -> PyTree:
    return jax.tree.map(lambda x, y: x + scale * y, a, b)


def _weighted_mean(noise: PyTree, weights: Float[Array, "pairs"]) -> PyTree:
    """The mean over pairs of weight × noise; the leaves of `noise` have the pairs along their first axis."""
    return jax.tree.map(lambda n: jnp.tensordot(weights.astype(n.dtype), n, axes=1) / weights.shape[0], noise)


def _check_noise(estimator: Any) -> None:
    if not estimator.sigma > 0 or estimator.pairs < 1:
        raise ValueError(
            f"{type(estimator).__name__}: sigma={estimator.sigma}, pairs={estimator.pairs}; expected sigma > 0 and at least "
            "one antithetic pair."
        )


class EvolutionStrategies(MetaGradient):
    """The gradient of the smoothed loss E[L(meta + σε)], ε ~ N(0, I), from antithetic pairs.

    (1/pairs) Σ ε (L(meta + σε) − L(meta − σε)) / 2σ. Both members of a pair see the same key and the same data. Needs no
    derivative of anything, so it takes every learner; its variance grows with the number of meta-parameters.

    Args:
        sigma: standard deviation of the smoothing.
        pairs: antithetic pairs a task.
        loss_at: the outer loss after the `last` inner step, or its mean over `every` inner step.

    Examples:
        >>> import equinox as eqx, jax, jax.numpy as jnp, metaception as mc
        >>> staircase = mc.Model(lambda key: jnp.array(0.0), lambda w, x: jnp.round(w * x))  # its derivative is zero
        >>> learner = mc.Initialisation(staircase, mc.mean_squared_error, jnp.array(0.25), steps=0)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> estimate = eqx.filter_jit(mc.EvolutionStrategies(sigma=1.0, pairs=10_000).estimate)
        >>> gradient = estimate(jax.random.key(0), learner, jnp.array(0.0), (), mc.Task(one, one))[0].gradient
        >>> round(float(gradient))  # the smoothed loss E[(round(w + ε) − 4)²] slopes nearly as (w − 4)² does
        -8

    Salimans et al. 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement Learning", section 2.
    """

    sigma: float = eqx.field(static=True, default=0.01)
    pairs: int = eqx.field(static=True, default=8)
    loss_at: LossAt = eqx.field(static=True, default="last")

    def init(self, key: PRNGKeyArray, learner: Learner, meta: Meta, task: Task) -> PyTree:
        del key, learner, meta, task
        return ()

    def estimate(
        self, key: PRNGKeyArray, learner: Learner, meta: Meta, state: PyTree, task: Task
    ) -> tuple[Estimate, PyTree]:
        key_noise, key_loss = jax.random.split(key)

        def loss(meta: Meta) -> tuple[Float[Array, ""], dict[str, Any]]:
            return objective(learner, key_loss, meta, task, loss_at=self.loss_at)[1]

        def pair(key: PRNGKeyArray) -> tuple[Meta, Float[Array, ""], Float[Array, ""], dict[str, Any]]:
            noise = perturbation(key, meta, self.sigma)
            (above, aux), (below, _) = loss(_add(meta, noise)), loss(_add(meta, noise, -1.0))
            return noise, (above - below) / (2 * self.sigma**2), (above + below) / 2, aux

        noise, weights, losses, aux = jax.vmap(pair)(jax.random.split(key_noise, self.pairs))
        gradient = _weighted_mean(noise, weights)
        return Estimate(gradient, jnp.mean(losses), jax.tree.map(lambda a: jnp.mean(a, axis=0), aux)), state

    def check(self, learner: Learner, meta: Meta, task: Task) -> None:
        del learner, meta, task
        _check_noise(self)


class Pairs(NamedTuple):
    """The inner lives of antithetic pairs; leaves have the pairs along their first axis, `task` and `age` aside.

    Attributes:
        task: the task that all of them learn.
        above, below: the inner states under meta + noise and meta − noise.
        noise: each pair's noise, summed over its windows so far.
        age: inner steps taken so far.
    """

    task: Task
    above: PyTree
    below: PyTree
    noise: PyTree
    age: Int[Array, ""]


class PersistentES(MetaGradient):
    """Evolution strategies over windows of a life that goes on, without the truncation's bias.

    Each antithetic pair carries its own inner states and the sum ξ of its perturbations so far; a window's estimate is
    (1/pairs) Σ ξ (L₊ − L₋) / 2σ². Summed over a life, the estimates are unbiased for the smoothed gradient of the sum of
    the window losses, because ξ remembers how earlier perturbations led here.

    Args:
        sigma: standard deviation of the noise a window.
        pairs: antithetic pairs a task.
        window: inner steps an outer step.
        horizon: inner steps a life, a multiple of `window`; then the slot takes a new task.
        loss_at: the outer loss after the `last` step of the window, or its mean over `every` step.

    Examples:
        >>> import equinox as eqx, jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> learner = mc.Initialisation(line, mc.mean_squared_error, jnp.array(0.01), steps=20)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> key, meta, task = jax.random.key(0), jnp.array(0.0), mc.Task(one, one)
        >>> estimator = mc.PersistentES(window=5, horizon=20)
        >>> lives = estimator.init(key, learner, meta, task)
        >>> estimate, lives = eqx.filter_jit(estimator.estimate)(key, learner, meta, lives, task)
        >>> int(lives.age)  # 5 of 20 inner steps are taken; the next estimate goes on from here
        5

    Vicol et al. 2021, "Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent Evolution Strategies",
    algorithm 2.
    """

    window: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    sigma: float = eqx.field(static=True, default=0.01)
    pairs: int = eqx.field(static=True, default=8)
    loss_at: LossAt = eqx.field(static=True, default="every")

    def init(self, key: PRNGKeyArray, learner: Learner, meta: Meta, task: Task) -> Pairs:
        return self._start(key, learner, meta, task)

    def estimate(
        self, key: PRNGKeyArray, learner: Learner, meta: Meta, state: Pairs, task: Task
    ) -> tuple[Estimate, Pairs]:
        assert isinstance(learner, Iterative)
        key_start, key_noise, key_steps, key_loss = jax.random.split(key, 4)
        state = select(state.age >= self.horizon, self._start(key_start, learner, meta, task), state)

        def live(meta: Meta, inner: PyTree) -> tuple[PyTree, Float[Array, ""], dict[str, Any]]:
            return window(
                learner, (key_steps, key_loss), meta, inner, state.task, length=self.window, loss_at=self.loss_at
            )

        def pair(key: PRNGKeyArray, above: PyTree, below: PyTree, total: Meta) -> tuple[Any, ...]:
            noise = perturbation(key, meta, self.sigma)
            up, down = _add(meta, noise), _add(meta, noise, -1.0)
            # A life's first window starts under its own perturbed meta-parameters, so that a learned start counts.
            above = select(state.age == 0, learner.init(key_start, up, state.task.support), above)
            below = select(state.age == 0, learner.init(key_start, down, state.task.support), below)
            above, loss_above, aux = live(up, above)
            below, loss_below, _ = live(down, below)
            slope = (loss_above - loss_below) / (2 * self.sigma**2)
            return above, below, _add(total, noise), slope, (loss_above + loss_below) / 2, aux

        keys = jax.random.split(key_noise, self.pairs)
        above, below, noise, slopes, losses, aux = jax.vmap(pair)(keys, state.above, state.below, state.noise)
        estimate = Estimate(
            _weighted_mean(noise, slopes), jnp.mean(losses), jax.tree.map(lambda a: jnp.mean(a, axis=0), aux)
        )
        return estimate, Pairs(state.task, above, below, noise, state.age + self.window)

    def check(self, learner: Learner, meta: Meta, task: Task) -> None:
        del meta, task
        _check_noise(self)
        check_windows(self, learner)

    def _start(self, key: PRNGKeyArray, learner: Learner, meta: Meta, task: Task) -> Pairs:
        assert isinstance(learner, Iterative)
        inner = learner.init(key, meta, task.support)

        def copies(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda a: jnp.broadcast_to(a, (self.pairs, *jnp.shape(a))), tree)

        zeros = jax.tree.map(jnp.zeros_like, meta)
        return Pairs(task, copies(inner), copies(inner), copies(zeros), jnp.zeros((), jnp.int32))
