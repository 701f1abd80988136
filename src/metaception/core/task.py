"""Tasks, and the distributions they come from."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Shaped

from metaception.core.tracing import depends


class Examples(NamedTuple):
    """Labelled examples of one task: the rows of `inputs` and `targets` belong together.

    Attributes:
        inputs: array [n, ...], one example a row.
        targets: array [n, ...], what each example should be mapped to.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> examples = mc.Examples(inputs=x, targets=x**2)
        >>> examples.targets[2].tolist()  # what the third input should be mapped to
        [9.0]
    """

    inputs: Any
    targets: Any


class Task(NamedTuple):
    """One task: what an inner learner may learn from, and what it is judged by.

    Attributes:
        support: what the inner learner adapts on; for supervised tasks `Examples` of K shots.
        query: what the adapted learner is judged on; for supervised tasks `Examples`.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> task = mc.Task(support=mc.Examples(x[:2], 5 * x[:2]), query=mc.Examples(x[2:], 5 * x[2:]))
        >>> task.query.targets.tolist()  # what a learner of the two support points should predict for x = 3
        [[15.0]]
    """

    support: Any
    query: Any


class TaskDistribution(eqx.Module):
    """A distribution over tasks. One task at a time: a batch is a `jax.vmap` over keys."""

    finite: ClassVar[bool] = False
    """Whether the tasks are made of a finite set, which training will have seen: what is held out must be another set."""

    @abstractmethod
    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one task.

        Args:
            key: PRNG key; the same key gives the same task.
        """


def check_tasks(tasks: TaskDistribution) -> None:
    """Refuse tasks that ignore the key that they are drawn by.

    Raises:
        ValueError: where every key gives the same task, as with numpy's random numbers, which are drawn once, when JAX
            traces the function.
    """
    traced = jax.make_jaxpr(tasks.sample)(jax.random.key(0)).jaxpr
    if not depends(traced, traced.invars[0]):
        raise ValueError(
            f"{type(tasks).__name__}: what is sampled does not depend on the key, so every task would be the same one. Draw "
            "with jax.random and the key; numpy's random numbers are drawn once, when the function is compiled."
        )


class FunctionTasks(TaskDistribution):
    """Tasks from a function of your own.

    Args:
        function: `key -> Task`, written in JAX (it is compiled and vectorised), with the same shapes for every key.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> def line(key):
        ...     key_slope, key_x = jax.random.split(key)
        ...     x = jax.random.normal(key_x, (8, 1))
        ...     y = jax.random.normal(key_slope) * x
        ...     return mc.Task(mc.Examples(x[:4], y[:4]), mc.Examples(x[4:], y[4:]))
        >>> mc.FunctionTasks(line).sample(jax.random.key(0)).support.inputs.shape
        (4, 1)
    """

    function: Callable[[PRNGKeyArray], Task] = eqx.field(static=True)

    def sample(self, key: PRNGKeyArray) -> Task:
        task = self.function(key)
        if not isinstance(task, Task):
            raise TypeError(
                f"FunctionTasks: {getattr(self.function, '__name__', self.function)} returned a {type(task).__name__}; "
                "expected metaception.Task(support, query)."
            )
        return task


def as_tasks(tasks: Any) -> TaskDistribution:
    """A distribution as it is, or a function `key -> Task` as `FunctionTasks`.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(tasks, TaskDistribution):
        return tasks
    if callable(tasks) and not isinstance(tasks, type):
        _check_takes_a_key(tasks)
        return FunctionTasks(tasks)
    what = tasks.__name__ if isinstance(tasks, type) else f"a {type(tasks).__name__}"
    raise TypeError(
        f"tasks: cannot draw from {what}; expected a metaception.TaskDistribution (Sinusoids(), ArrayTasks(...)) or a function "
        "key -> Task."
    )


def _check_takes_a_key(function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some compiled functions do not tell
        return
    try:
        signature.bind(None)
    except TypeError as error:
        name = getattr(function, "__name__", function)
        raise TypeError(
            f"tasks: {name}{signature} cannot be called with a key alone; expected a function key -> Task."
        ) from error


class ArrayTasks(TaskDistribution):
    """A finite set of tasks held in arrays; sampling picks one task uniformly.

    What is drawn for validation or testing is disjoint from training only if it comes from other tasks: `split` them first.

    Args:
        support_inputs: array [tasks, shots, ...].
        support_targets: array [tasks, shots, ...].
        query_inputs: array [tasks, queries, ...].
        query_targets: array [tasks, queries, ...].

    Raises:
        ValueError: where the arrays do not agree on the number of tasks, or inputs and targets on the number of rows, or an
            entry is not finite.

    Examples:
        >>> import numpy as np, jax, metaception as mc
        >>> x, y = np.zeros((7, 5, 2)), np.zeros((7, 5, 1))
        >>> mc.ArrayTasks(x, y, x, y).sample(jax.random.key(0)).query.targets.shape
        (5, 1)
    """

    tasks: Task
    finite: ClassVar[bool] = True

    def __init__(self, support_inputs: Any, support_targets: Any, query_inputs: Any, query_targets: Any):
        def examples(name: str, inputs: Any, targets: Any) -> Examples:
            inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
            for what, array in ((f"{name}_inputs", inputs), (f"{name}_targets", targets)):
                if array.ndim < 2 or 0 in array.shape[:2]:
                    raise ValueError(
                        f"ArrayTasks: {what} has shape {array.shape}; expected [tasks, examples, ...] with at least one "
                        "of each. Stack the tasks along a new first axis."
                    )
                if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
                    raise ValueError(f"ArrayTasks: {what} has entries that are not finite; take those examples out.")
            if inputs.shape[:2] != targets.shape[:2]:
                raise ValueError(
                    f"ArrayTasks: {name}_inputs {inputs.shape} and {name}_targets {targets.shape} disagree on "
                    "[tasks, examples]; every input row needs its target."
                )
            return Examples(inputs, targets)

        self.tasks = Task(
            examples("support", support_inputs, support_targets), examples("query", query_inputs, query_targets)
        )
        supports, queries = self.tasks.support.inputs.shape[0], self.tasks.query.inputs.shape[0]
        if supports != queries:
            raise ValueError(
                f"ArrayTasks: {supports} support sets but {queries} query sets; give one of each for every task."
            )

    def sample(self, key: PRNGKeyArray) -> Task:
        index = jax.random.randint(key, (), 0, self.tasks.support.inputs.shape[0])

        def pick(array: Shaped[Array, "tasks ..."]) -> Shaped[Array, "..."]:
            return array[index]

        return jax.tree.map(pick, self.tasks)

    def split(self, *counts: int, seed: int = 0) -> tuple[ArrayTasks, ...]:
        """Disjoint sets of `counts` tasks each, shuffled by `seed`.

        Raises:
            ValueError: where the counts are not positive or are more than the tasks.

        Examples:
            >>> import numpy as np, metaception as mc
            >>> x = np.arange(10.0).reshape(10, 1, 1)
            >>> train, validation, test = mc.ArrayTasks(x, x, x, x).split(6, 2, 2)
            >>> len(set(train.tasks.query.inputs.ravel().tolist()) & set(test.tasks.query.inputs.ravel().tolist()))
            0
        """
        total = self.tasks.support.inputs.shape[0]
        if not counts or min(counts) < 1 or sum(counts) > total:
            raise ValueError(
                f"ArrayTasks.split{counts}: expected positive numbers whose sum is at most the {total} tasks there are."
            )
        order, ends = np.random.default_rng(seed).permutation(total), np.cumsum(counts)

        def take(start: int, end: int) -> ArrayTasks:
            support, query = jax.tree.map(lambda a: a[order[start:end]], self.tasks)
            return ArrayTasks(support.inputs, support.targets, query.inputs, query.targets)

        return tuple(take(end - count, end) for count, end in zip(counts, ends.tolist(), strict=True))


def sample_batch(tasks: TaskDistribution, key: PRNGKeyArray, count: int) -> Task:
    """Draw `count` tasks, stacked along a new first axis."""
    return jax.vmap(tasks.sample)(jax.random.split(key, count))
