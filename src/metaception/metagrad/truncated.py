"""Truncated unrolls: one window of an inner life that goes on between outer steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from metaception.core.learner import Iterative, Learner, Meta, Sampling
from metaception.core.metagradient import Estimate, MetaGradient
from metaception.core.task import Task
from metaception.metagrad._check import refuse, refuse_kinks_at_zero, unseen_leaves
from metaception.metagrad._objective import LossAt, window


class Life(NamedTuple):
    """One inner life that goes on between outer steps.

    Attributes:
        task: the task being learned.
        inner: the inner state so far.
        age: inner steps taken so far.
    """

    task: Task
    inner: PyTree
    age: Int[Array, ""]


def select(condition: Array, yes: PyTree, no: PyTree) -> PyTree:
    """`yes` where `condition` (a scalar) holds, else `no`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def check_windows(estimator: Any, learner: Learner) -> None:
    """What every estimator that advances an inner life by windows needs."""
    if estimator.window < 1 or estimator.horizon < 1 or estimator.horizon % estimator.window:
        raise ValueError(
            f"{type(estimator).__name__}: window={estimator.window}, horizon={estimator.horizon}; expected a horizon that is "
            "a multiple of the window, both at least 1."
        )
    if not isinstance(learner, Iterative):
        raise refuse(estimator, learner, "it adapts without steps, so there is nothing to truncate.", "Use Unroll.")
    if isinstance(learner, Sampling):
        raise refuse(
            estimator,
            learner,
            "it draws its data as a whole before it adapts, under the meta-parameters of that moment, and a life that "
            "goes on would learn from data that older meta-parameters drew.",
            "Use Unroll, which adds the score term, or EvolutionStrategies, over the whole life.",
        )


class Truncated(MetaGradient):
    """Differentiate through the latest `window` inner steps of a life of `horizon` steps, then carry its state on.

    Biased towards what pays within a window; each window's start is held fixed. After `horizon` steps the life ends and
    the slot takes a new task.

    Args:
        window: inner steps an outer step.
        horizon: inner steps a life, a multiple of `window`.
        loss_at: the outer loss after the `last` step of the window, or its mean over `every` step.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> learner = mc.ProximalInitialisation(line, mc.mean_squared_error, jnp.array(0.125), strength=jnp.array(2.0), steps=2)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> key, meta, task = jax.random.key(0), jnp.array(0.0), mc.Task(one, one)
        >>> estimator = mc.Truncated(window=1, horizon=2)
        >>> life = estimator.init(key, learner, meta, task)
        >>> for _ in range(2):  # the second window takes what the first one led to as given
        ...     estimate, life = estimator.estimate(key, learner, meta, life, task)
        ...     print(life.age, estimate.gradient)
        1 -4.5
        2 -1.25

    Werbos 1990, "Backpropagation through time"; Andrychowicz et al. 2016 train their optimiser with a window of 20 in
    lives of 100.
    """

    window: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    loss_at: LossAt = eqx.field(static=True, default="every")

    def init(self, key: PRNGKeyArray, learner: Learner, meta: Meta, task: Task) -> Life:
        assert isinstance(learner, Iterative)
        return Life(task, learner.init(key, meta, task.support), jnp.zeros((), jnp.int32))

    def estimate(
        self, key: PRNGKeyArray, learner: Learner, meta: Meta, state: Life, task: Task
    ) -> tuple[Estimate, Life]:
        assert isinstance(learner, Iterative)
        key_init, key_steps, key_loss = jax.random.split(key, 3)
        new = state.age >= self.horizon
        task = select(new, task, state.task)
        carried = jax.lax.stop_gradient(state.inner)

        def surrogate(meta: Meta) -> tuple[Float[Array, ""], tuple[PyTree, dict[str, Any]]]:
            # A life's first window starts inside the derivative, so that a learned start is not forgotten there.
            first = new | (state.age == 0)
            start = select(first, learner.init(key_init, meta, task.support), carried)
            inner, loss, aux = window(
                learner, (key_steps, key_loss), meta, start, task, length=self.window, loss_at=self.loss_at
            )
            return loss, (inner, aux)

        (loss, (inner, aux)), gradient = jax.value_and_grad(surrogate, has_aux=True)(meta)
        age = jnp.where(new, 0, state.age) + self.window
        return Estimate(gradient, loss, aux), Life(task, jax.lax.stop_gradient(inner), age)

    def check(self, learner: Learner, meta: Meta, task: Task) -> None:
        check_windows(self, learner)
        assert isinstance(learner, Iterative)

        def later_window(meta: Meta, task: Task) -> Float[Array, ""]:
            key = jax.random.key(0)
            carried = jax.lax.stop_gradient(learner.init(key, meta, task.support))
            return window(learner, (key, key), meta, carried, task, length=self.window, loss_at=self.loss_at)[1]

        unseen = unseen_leaves(later_window, meta, task)
        if unseen and self.window < self.horizon:
            raise refuse(
                self,
                learner,
                f"in every window but the first the meta-gradient of {', '.join(unseen)} is exactly zero, because it acts "
                "only where a life starts.",
                "Use Unroll, or PersistentES, which sees a whole life.",
            )
        refuse_kinks_at_zero(self, learner, meta, task)
