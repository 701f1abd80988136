"""HOW the meta-gradient is estimated: the seam that every estimator in `metaception.metagrad` fills."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import Learner, Meta
from metaception.core.task import Task


class Estimate(NamedTuple):
    """What an estimator says of one task.

    Attributes:
        gradient: the estimated meta-gradient, of the meta-parameters' structure.
        loss: the outer loss, a scalar.
        aux: named scalars beside it.
    """

    gradient: PyTree
    loss: Float[Array, ""]
    aux: dict[str, Any]


class Unsuitable(ValueError):
    """An estimator and a learner that would silently give a wrong meta-gradient together."""


class MetaGradient(eqx.Module):
    """An estimator of the meta-gradient for one task; a batch is mapped over at the edge.

    It carries a state of its own, because truncation, persistent evolution strategies and online meta-gradients keep
    inner lives running between outer steps. Stateless estimators carry `()`.
    """

    @abstractmethod
    def init(self, key: PRNGKeyArray, learner: Learner, meta: Meta, task: Task) -> PyTree:
        """The estimator's state for one slot of the meta-batch."""

    @abstractmethod
    def estimate(
        self, key: PRNGKeyArray, learner: Learner, meta: Meta, state: PyTree, task: Task
    ) -> tuple[Estimate, PyTree]:
        """The meta-gradient on one task, and the estimator's next state."""

    @abstractmethod
    def check(self, learner: Learner, meta: Meta, task: Task) -> None:
        """Refuse, before any training, what would be silently wrong.

        Raises:
            Unsuitable: naming both parties, the reason and the remedy.
        """


class Differentiating(MetaGradient):
    """An estimator whose estimate is the derivative of a surrogate loss, and that carries no state.

    A mapping that runs tasks together may then differentiate the surrogates of a whole meta-batch at once, so that the
    tasks' gradients are never stored side by side and the first inner step's, which share their parameters, are summed
    inside one matrix product.
    """

    @abstractmethod
    def surrogate(
        self, key: PRNGKeyArray, learner: Learner, meta: Meta, task: Task
    ) -> tuple[Float[Array, ""], tuple[Float[Array, ""], dict[str, Any]]]:
        """A function whose derivative in `meta` is the meta-gradient on one task.

        Returns:
            The scalar to differentiate, and (the outer loss itself, named scalars beside it).
        """

    @final
    def init(self, key: PRNGKeyArray, learner: Learner, meta: Meta, task: Task) -> PyTree:
        del key, learner, meta, task
        return ()

    @final
    def estimate(
        self, key: PRNGKeyArray, learner: Learner, meta: Meta, state: PyTree, task: Task
    ) -> tuple[Estimate, PyTree]:
        def surrogate(meta: Meta) -> tuple[Float[Array, ""], tuple[Float[Array, ""], dict[str, Any]]]:
            return self.surrogate(key, learner, meta, task)

        gradient, (loss, aux) = jax.grad(surrogate, has_aux=True)(meta)
        return Estimate(gradient, loss, aux), state
