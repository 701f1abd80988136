"""The compiled part of a run: stretches of outer steps, and validation, for all seeds in one program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, PyTree

from metaception.core.algorithm import MetaAlgorithm, State
from metaception.core.learner import Iterative
from metaception.core.mapping import Sharded, for_evaluation, task_mesh
from metaception.core.streams import stream_key
from metaception.core.task import TaskDistribution
from metaception.evaluation.curves import adaptation_curve


class Best(NamedTuple):
    """The meta-parameters with the lowest validation loss so far, for each seed.

    Attributes:
        meta: the meta-parameters, [seeds, ...].
        loss: their validation loss after adaptation, [seeds]; infinite before the first validation.
        step: the outer steps that they had.
    """

    meta: PyTree
    loss: Float[Array, " seeds"]
    step: Int[Array, " seeds"]


class Snapshot(NamedTuple):
    """All that a run needs to go on: what a checkpoint holds. Every leaf has the seeds along its first axis.

    Attributes:
        state: the algorithm's.
        sums: named scalars of the outer steps taken since the last row of metrics, added up.
        taken: how many steps that were.
        best: the best on validation.
    """

    state: State
    sums: dict[str, Float[Array, " seeds"]]
    taken: Int[Array, " seeds"]
    best: Best

    @property
    def step(self) -> int:
        """Outer steps done."""
        return int(np.asarray(self.state.step)[0])


class Loop:
    """An algorithm's training, compiled.

    The key of outer step t is a pure function of the seed and t, and sums are added up one step after the other: wherever
    stretches are cut, the bits are the same.

    Args:
        algorithm: what to train.
        seeds: one independent training each.
        validation: what validation tasks are drawn from; they are the same ones every time, whatever the seeds.
        validation_tasks: how many.
        patience: stop a stretch once so many steps in a row had a meta-gradient that was not finite.
    """

    def __init__(
        self,
        algorithm: MetaAlgorithm,
        seeds: Sequence[int],
        *,
        validation: TaskDistribution,
        validation_tasks: int,
        patience: int,
    ):
        # Arrays are handed in as arguments: as constants of the program, a data set would be compiled into it.
        arrays, static = eqx.partition((algorithm, validation), eqx.is_array)
        self._shared = isinstance(algorithm.mapping, Sharded)
        self._constants = self.place((arrays, np.asarray(seeds, np.uint32)))
        # On a CPU one seed after the other is faster than a vector of them, and each has the bits of its own single run.
        each = _one_by_one if jax.default_backend() == "cpu" else jax.vmap
        few = for_evaluation(algorithm.mapping, validation_tasks, algorithm.meta_batch_size)

        def start(constants: Any) -> Snapshot:
            arrays, seeds = constants
            algorithm: MetaAlgorithm = eqx.combine(arrays, static)[0]
            state = each(lambda seed: algorithm.init(stream_key(seed, "initialise")))(seeds)
            info = jax.eval_shape(jax.vmap(algorithm.step), jax.vmap(jax.random.key)(seeds), state)[1]
            zeros = {name: jnp.zeros(seeds.shape, jnp.float32) for name in ("loss", "gradient_norm", *info.aux)}
            taken = jnp.zeros(seeds.shape, jnp.int32)
            best = Best(state.meta, jnp.full(seeds.shape, jnp.inf, jnp.float32), taken)
            return jax.tree.map(_strong, Snapshot(state, zeros, taken, best))

        def advance(state: State, sums: dict[str, Any], taken: Any, constants: Any, stop: Any) -> Any:
            arrays, seeds = constants
            algorithm: MetaAlgorithm = eqx.combine(arrays, static)[0]
            keys = jax.vmap(lambda seed: stream_key(seed, "train"))(seeds)

            def more(carry: tuple[State, Any, Any]) -> Bool[Array, ""]:
                state = carry[0]
                return (state.step[0] < stop) & ~jnp.any(state.skipped_in_a_row >= patience)

            def one(given: tuple[Any, State, Any, Any]) -> tuple[State, Any, Any]:
                key, state, sums, taken = given
                state, info = algorithm.step(jax.random.fold_in(key, state.step), state)
                noted = {"loss": info.loss, "gradient_norm": info.gradient_norm, **info.aux}
                # A step that was skipped has no figures worth averaging.
                sums = {name: sums[name] + jnp.where(info.finite, value, 0.0) for name, value in noted.items()}
                return state, sums, taken + info.finite

            def body(carry: tuple[State, Any, Any]) -> tuple[State, Any, Any]:
                return each(one)((keys, *carry))

            return jax.lax.while_loop(more, body, (state, sums, taken))

        def validate(state: State, best: Best, constants: Any) -> tuple[Best, dict[str, Any]]:
            validation: TaskDistribution
            algorithm, validation = eqx.combine(constants[0], static)
            keys = jax.random.split(stream_key(0, "validation"), validation_tasks)

            def one(given: tuple[Any, Best, Any]) -> tuple[Best, dict[str, Any]]:
                meta, best, step = given

                def judge(shared: Any, key: Any) -> Any:
                    learner, tasks, meta = shared
                    key_task, key_adapt = jax.random.split(key)
                    steps = learner.steps if isinstance(learner, Iterative) else 0
                    curves = adaptation_curve(learner, key_adapt, meta, tasks.sample(key_task), steps)
                    loss = curves.pop("loss")
                    # Not a number is as bad as infinity, and unlike it would be averaged into a comparison that is false.
                    loss = jnp.where(jnp.isnan(loss), jnp.inf, loss)
                    measures = {f"validation_{name}": curve[-1] for name, curve in curves.items()}
                    return {"validation_before": loss[0], "validation_after": loss[-1], **measures}

                figures = jax.tree.map(jnp.mean, few(judge, (algorithm.test_learner, validation, meta), keys))
                after = figures["validation_after"]
                new = Best(meta, after.astype(best.loss.dtype), step)
                best = jax.tree.map(lambda n, b: jnp.where(after < best.loss, n, b), new, best)
                return best, figures

            return each(one)((state.meta, best, state.step))

        where = NamedSharding(task_mesh(), P()) if self._shared else None
        self._start = jax.jit(start, out_shardings=where)
        self._advance = jax.jit(advance, donate_argnums=(0, 1, 2), out_shardings=where)
        self._validate = jax.jit(validate, out_shardings=where)

    def start(self) -> Snapshot:
        """The snapshot before the first outer step."""
        return self._start(self._constants)

    def shapes(self) -> Snapshot:
        """The shapes and types of a snapshot; nothing is computed."""
        return jax.eval_shape(self._start, self._constants)

    def advance(self, snapshot: Snapshot, stop: int) -> Snapshot:
        """Take outer steps until `stop` of them are done, or patience is at its end; `snapshot` is used up."""
        state, sums, taken, best = snapshot
        state, sums, taken = self._advance(state, sums, taken, self._constants, np.int32(stop))
        return Snapshot(state, sums, taken, best)

    def validate(self, snapshot: Snapshot) -> tuple[Snapshot, dict[str, np.ndarray]]:
        """The snapshot with the best brought up to date, and what validation tasks say, each [seeds].

        `validation_before` and `validation_after`: the mean losses before and after adaptation; `validation_NAME`: what the
        loss measures beside itself, after adaptation.
        """
        best, figures = self._validate(snapshot.state, snapshot.best, self._constants)
        return snapshot._replace(best=best), jax.tree.map(np.asarray, figures)

    def place(self, tree: PyTree) -> PyTree:
        """Put host arrays where the program wants them: on the device, or a copy on every device of every process."""
        return jax.device_put(tree, NamedSharding(task_mesh(), P())) if self._shared else jax.device_put(tree)


def _strong(leaf: Array) -> Array:
    """Without JAX's weak type, which would be lost on the way and make every program compile twice."""
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(leaf, leaf.dtype)


def _one_by_one(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda mapped: jax.lax.map(function, mapped)
