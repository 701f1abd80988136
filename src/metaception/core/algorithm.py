"""A meta-learning algorithm, assembled: what a user, the command line and the common tests see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from metaception.core.learner import Adapted, Learner, Meta
from metaception.core.mapping import Mapping
from metaception.core.metagradient import Differentiating, Estimate, MetaGradient
from metaception.core.task import Task, TaskDistribution, check_tasks


class State(NamedTuple):
    """What the next outer step needs.

    Attributes:
        meta: the meta-parameters.
        outer: the outer optimiser's state.
        estimator: the estimator's state, one for each slot of the meta-batch.
        step: outer steps taken, skipped ones included.
        skipped: outer steps whose meta-gradient was not finite, and so never entered the parameters.
        skipped_in_a_row: how many of them were the latest steps without a good one between.
    """

    meta: Meta
    outer: PyTree
    estimator: PyTree
    step: Int[Array, ""]
    skipped: Int[Array, ""]
    skipped_in_a_row: Int[Array, ""]


class Info(NamedTuple):
    """What a reader wants to know of one outer step.

    Attributes:
        loss: the outer objective over the meta-batch.
        gradient_norm: the global norm of the meta-gradient.
        finite: whether the step was taken.
        aux: the learner's own named scalars, averaged over the meta-batch.
    """

    loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    finite: Bool[Array, ""]
    aux: dict[str, Float[Array, ""]]


def itself(learner: Learner) -> Learner:
    """The learner of training, where held-out tasks are learned by the same."""
    return learner


class MetaAlgorithm(eqx.Module):
    """WHAT (a learner), HOW (an estimator) and WHERE (tasks), with an outer update: one meta-learning algorithm.

    Args:
        learner: what is meta-learned.
        estimator: how the meta-gradient is estimated.
        tasks: the distribution that training draws from.
        outer: the outer update, any optax optimiser.
        meta_batch_size: tasks an outer step.
        mapping: how the estimator is mapped over the meta-batch.
        aggregate: per-task losses [tasks] -> the outer objective, a scalar; the mean for nearly all methods.
        at_test: the learner -> what learns held-out tasks with the same meta-parameters; itself for nearly all methods.

    Examples:
        >>> import equinox as eqx, jax, jax.numpy as jnp, metaception as mc, optax
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> learner = mc.Initialisation(line, mc.mean_squared_error, jnp.array(0.25), steps=1)
        >>> x, y = jnp.array([[[1.0]]]), jnp.array([[[4.0]]])  # a single task of one example
        >>> tasks = mc.ArrayTasks(x, y, x, y)
        >>> algorithm = mc.MetaAlgorithm(learner, mc.Unroll(), tasks, optax.sgd(0.5), 4, mc.Vectorised())
        >>> state = eqx.filter_jit(algorithm.init)(jax.random.key(0))
        >>> state, info = eqx.filter_jit(algorithm.step)(jax.random.key(1), state)
        >>> float(info.loss), float(info.gradient_norm), float(state.meta)  # 0 − 0.5 · (−2)
        (4.0, 2.0, 1.0)

    Every method is a pure function: it compiles, maps and shards like any other. An algorithm holds arrays, so compile its
    methods with `equinox.filter_jit(algorithm.step)`, or inside a function of your own that `jax.jit` takes.
    """

    learner: Learner
    estimator: MetaGradient
    tasks: TaskDistribution
    outer: optax.GradientTransformation = eqx.field(static=True)
    meta_batch_size: int = eqx.field(static=True)
    mapping: Mapping
    aggregate: Callable[[Float[Array, "tasks"]], Float[Array, ""]] = eqx.field(static=True, default=jnp.mean)
    at_test: Callable[[Learner], Learner] = eqx.field(static=True, default=itself)

    @property
    def test_learner(self) -> Learner:
        """What learns held-out tasks."""
        return self.at_test(self.learner)

    def check(self) -> None:
        """Refuse, before any work, what would be silently wrong or cannot run.

        Raises:
            ValueError: naming what was given, the reason and the remedy.
        """
        if self.meta_batch_size < 1:
            raise ValueError(f"meta_batch_size={self.meta_batch_size}; an outer step needs at least one task.")
        self.mapping.check(self.meta_batch_size)
        check_tasks(self.tasks)
        key_meta, key_task = jax.random.split(jax.random.key(0))
        # Shapes alone do for nearly all of it, so this costs milliseconds whatever the size of the model.
        meta = jax.eval_shape(self.learner.init_meta, key_meta)
        task = jax.eval_shape(self.tasks.sample, key_task)
        self.estimator.check(self.learner, meta, task)

    def init(self, key: PRNGKeyArray) -> State:
        """The state before the first outer step."""
        key_meta, key_estimator = jax.random.split(key)
        meta = self.learner.init_meta(key_meta)

        def start(key: PRNGKeyArray) -> PyTree:
            key_task, key_state = jax.random.split(key)
            return self.estimator.init(key_state, self.learner, meta, self.tasks.sample(key_task))

        zero = jnp.zeros((), jnp.int32)
        slots = jax.vmap(start)(jax.random.split(key_estimator, self.meta_batch_size))
        return State(meta, self.outer.init(meta), slots, zero, zero, zero)

    def step(self, key: PRNGKeyArray, state: State) -> tuple[State, Info]:
        """One outer step: sample tasks, estimate the meta-gradient on each, aggregate, update.

        A meta-gradient that is not finite never enters the parameters: the step is skipped and counted. An estimator's inner
        lives stay where they were then, but for those that gave it, which start anew.
        """
        keys = jax.random.split(key, self.meta_batch_size)
        if isinstance(self.estimator, Differentiating) and self.mapping.at_once:
            loss, gradient, aux = self._differentiate_at_once(self.estimator, keys, state.meta)
            after = kept = state.estimator
        else:
            loss, gradient, aux, after, kept = self._estimate_each(keys, state)

        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(norm)
        # Zeros instead of the bad gradient, so that not even 0 × nan can reach the parameters through the optimiser.
        clean = jax.tree.map(lambda g: jnp.where(finite, g, 0), gradient)
        updates, outer = self.outer.update(clean, state.outer, state.meta)
        taken = (optax.apply_updates(state.meta, updates), outer, after)
        meta, outer, slots = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), taken, (state.meta, state.outer, kept)
        )
        bad = (~finite).astype(jnp.int32)
        state = State(
            meta, outer, slots, state.step + 1, state.skipped + bad, jnp.where(finite, 0, state.skipped_in_a_row + 1)
        )
        return state, Info(loss, norm, finite, jax.tree.map(jnp.mean, aux))

    def _differentiate_at_once(
        self, estimator: Differentiating, keys: Shaped[Array, "tasks ..."], meta: Meta
    ) -> tuple[Float[Array, ""], Meta, dict[str, Any]]:
        """The outer objective, its meta-gradient and the aux [tasks]: one derivative of the whole meta-batch."""

        def one(shared: tuple[Learner, Meta], key: PRNGKeyArray) -> tuple[Float[Array, ""], tuple[Any, ...]]:
            learner, meta = shared
            key_task, key_estimate, _ = jax.random.split(key, 3)  # as in `_estimate_each`: the same tasks
            return estimator.surrogate(key_estimate, learner, meta, self.tasks.sample(key_task))

        def surrogates(meta: Meta) -> tuple[Float[Array, "tasks"], tuple[Any, ...]]:
            return self.mapping(one, (self.learner, meta), keys)

        values, pull_back, (losses, aux) = jax.vjp(surrogates, meta, has_aux=True)
        loss, weights = jax.value_and_grad(self.aggregate)(losses)
        return loss, pull_back(weights.astype(values.dtype))[0], aux

    def _estimate_each(
        self, keys: Shaped[Array, "tasks ..."], state: State
    ) -> tuple[Float[Array, ""], Meta, dict[str, Any], PyTree, PyTree]:
        """The outer objective, its meta-gradient and the aux [tasks] from an estimate a task; and the estimator's next
        states, where the step is taken and where it is skipped."""
        learner, estimator, tasks = self.learner, self.estimator, self.tasks

        def one(shared: tuple[Learner, Meta], mapped: tuple[PRNGKeyArray, PyTree]) -> tuple[Estimate, PyTree, PyTree]:
            (learner, meta), (key, slot) = shared, mapped
            key_task, key_estimate, key_state = jax.random.split(key, 3)
            task = tasks.sample(key_task)
            estimate, after = estimator.estimate(key_estimate, learner, meta, slot, task)
            # An inner life that broke would break every later step too: its slot starts anew.
            healthy = jnp.isfinite(optax.tree.norm(estimate.gradient))
            fresh = estimator.init(key_state, learner, meta, task)
            return estimate, after, jax.tree.map(lambda old, new: jnp.where(healthy, old, new), slot, fresh)

        estimates, after, kept = self.mapping(one, (learner, state.meta), (keys, state.estimator))
        loss, weights = jax.value_and_grad(self.aggregate)(estimates.loss)
        gradient = jax.tree.map(lambda g: jnp.tensordot(weights.astype(g.dtype), g, axes=1), estimates.gradient)
        return loss, gradient, estimates.aux, after, kept

    def adapt(self, key: PRNGKeyArray, meta: Meta, data: Any) -> Adapted:
        """Learn one new task from its support data."""
        return self.test_learner.adapt(key, meta, data)

    def predict(self, adapted: Adapted, inputs: Any) -> Any:
        """What the adapted learner does with new inputs."""
        return self.test_learner.predict(adapted, inputs)

    def meta_gradient(self, key: PRNGKeyArray, meta: Meta, task: Task) -> Estimate:
        """The estimator's word on one task from a fresh estimator state: for analyses and tests."""
        key_state, key_estimate = jax.random.split(key)
        state = self.estimator.init(key_state, self.learner, meta, task)
        return self.estimator.estimate(key_estimate, self.learner, meta, state, task)[0]
