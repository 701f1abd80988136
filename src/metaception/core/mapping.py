"""Mapping a function over the tasks of a meta-batch: in sequence, as one vector, in chunks, or over devices.

Which is fastest depends on the machine and the model: on a CPU one vectorised program wins for small perceptrons, and
a scan, whose working set stays in the cache, for convolutions. `docs/mapping.md` has the measurements.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree


class Mapping(eqx.Module):
    """How a function of one task is applied to a batch of tasks. Every mapping computes the same thing."""

    @abstractmethod
    def __call__(self, function: Callable[[Any, Any], Any], shared: PyTree, mapped: PyTree) -> PyTree:
        """Apply `function(shared, one)` to every task.

        Args:
            function: what to do for one task.
            shared: a pytree that every task sees whole (the meta-parameters).
            mapped: a pytree whose leaves have the tasks along their first axis.

        Returns:
            The results, stacked along a first axis.
        """

    @property
    @abstractmethod
    def at_once(self) -> bool:
        """Whether a derivative is best taken through the mapping as a whole: where tasks run together, yes; where they
        run one after the other, that would store every task's intermediate values."""

    @abstractmethod
    def check(self, tasks: int) -> None:
        """Refuse a batch of `tasks` tasks that cannot be mapped this way.

        Raises:
            ValueError: naming the numbers and the remedy.
        """


class Sequential(Mapping):
    """One task after the other, in one compiled loop: the least memory.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> mc.Sequential()(lambda shared, one: shared * one, 10, jnp.arange(3)).tolist()
        [0, 10, 20]
    """

    def __call__(self, function: Callable[[Any, Any], Any], shared: PyTree, mapped: PyTree) -> PyTree:
        return jax.lax.map(lambda one: function(shared, one), mapped)

    @property
    def at_once(self) -> bool:
        return False

    def check(self, tasks: int) -> None:
        del tasks


class Vectorised(Mapping):
    """All tasks as one vectorised program (`jax.vmap`).

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> mc.Vectorised()(lambda shared, one: shared * one, 10, jnp.arange(3)).tolist()
        [0, 10, 20]
    """

    def __call__(self, function: Callable[[Any, Any], Any], shared: PyTree, mapped: PyTree) -> PyTree:
        return jax.vmap(function, in_axes=(None, 0))(shared, mapped)

    @property
    def at_once(self) -> bool:
        return True

    def check(self, tasks: int) -> None:
        del tasks


class Chunked(Mapping):
    """Vectorised chunks of `size` tasks, one chunk after the other; the last chunk may be smaller.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> mc.Chunked(2)(lambda shared, one: shared * one, 10, jnp.arange(3)).tolist()  # two tasks, then one
        [0, 10, 20]
    """

    size: int = eqx.field(static=True)

    def __call__(self, function: Callable[[Any, Any], Any], shared: PyTree, mapped: PyTree) -> PyTree:
        return jax.lax.map(lambda one: function(shared, one), mapped, batch_size=self.size)

    @property
    def at_once(self) -> bool:
        return False

    def check(self, tasks: int) -> None:
        if self.size < 1:
            raise ValueError(f"mapping 'chunked:{self.size}' over {tasks} tasks: a chunk holds at least one task.")


class Sharded(Mapping):
    """The tasks split evenly over all devices, of all processes; each device maps its share with `within`.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> tasks = jnp.arange(2 * len(jax.devices()))  # two for each device
        >>> results = mc.Sharded(mc.Vectorised())(lambda shared, one: shared * one, 10, tasks)
        >>> bool((results == 10 * tasks).all())
        True
    """

    within: Mapping

    def __call__(self, function: Callable[[Any, Any], Any], shared: PyTree, mapped: PyTree) -> PyTree:
        def share(shared: PyTree, mapped: PyTree) -> PyTree:
            return self.within(function, shared, mapped)

        # check_vma=False: what is inside is the user's own code, which knows nothing of device axes.
        return jax.shard_map(
            share, mesh=task_mesh(), in_specs=(P(), P("tasks")), out_specs=P("tasks"), check_vma=False
        )(shared, mapped)

    @property
    def at_once(self) -> bool:
        return self.within.at_once

    def check(self, tasks: int) -> None:
        devices = len(jax.devices())
        if tasks % devices:
            raise ValueError(
                f"mapping 'sharded': {tasks} tasks a meta-batch do not split evenly over {devices} devices; "
                f"take a multiple of {devices}, for example --meta-batch-size {max(1, round(tasks / devices)) * devices}."
            )
        self.within.check(tasks // devices)


def on_one_device(mapping: Mapping) -> Mapping:
    """How one device maps its share of the tasks."""
    return mapping.within if isinstance(mapping, Sharded) else mapping


def for_evaluation(mapping: Mapping, tasks: int, meta_batch_size: int) -> Mapping:
    """How to map over held-out tasks: no more at once than training has, so that evaluation fits where training does."""
    mapping = on_one_device(mapping)
    return Chunked(min(tasks, max(meta_batch_size, 25))) if isinstance(mapping, Vectorised) else mapping


def task_mesh() -> Mesh:
    """All devices of all processes, in one axis named `tasks`."""
    return Mesh(np.array(jax.devices()), ("tasks",))


def as_mapping(name: str | Mapping, *, parameters: int = 0, convolutional: bool = False) -> Mapping:
    """The mapping of that name.

    Args:
        name: `auto`, `sequential`, `vectorised`, `chunked:SIZE`, or `sharded` (each device then maps its share as
            `auto` would); a `Mapping` is returned as it is.
        parameters: how many meta-parameters the model has, for `auto`.
        convolutional: whether the model has convolutions that tasks adapt, for `auto`.

    `auto` is vectorised on an accelerator; on a CPU it is sequential for convolutions that tasks adapt, and for models of
    more than 20,000 parameters, whose per-task copies leave the cache, and vectorised for others.

    Raises:
        ValueError: for any other name.

    Examples:
        >>> import metaception as mc
        >>> mc.as_mapping("chunked:8").size
        8
        >>> mc.as_mapping("sharded").within == mc.as_mapping("auto")
        True
    """
    if isinstance(name, Mapping):
        return name
    kind, _, size = name.partition(":")
    if kind == "auto" and not size:
        heavy = jax.default_backend() == "cpu" and (convolutional or parameters > 20_000)
        return Sequential() if heavy else Vectorised()
    if kind == "sequential" and not size:
        return Sequential()
    if kind == "vectorised" and not size:
        return Vectorised()
    if kind == "chunked" and size.isdigit() and int(size) > 0:
        return Chunked(int(size))
    if kind == "sharded" and not size:
        return Sharded(as_mapping("auto", parameters=parameters, convolutional=convolutional))
    raise ValueError(
        f"unknown mapping {name!r}; expected one of: auto, sequential, vectorised, chunked:SIZE (for example chunked:8), "
        "sharded."
    )
