"""Sensitivity: how much loss a step along a task's own gradient takes away, per unit of the step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, Float, PyTree

from metaception.core.task import Examples, Task

FitLoss = Callable[[PyTree, Examples], Float[Array, ""]]


class Sensitivity(NamedTuple):
    """What one inner step θ′ = θ − α ∇L(θ, support) does on one task; all scalars.

    Attributes:
        support_slope: −dL(θ′, support)/dα at α = 0, which is ‖∇L(θ, support)‖².
        query_slope: −dL(θ′, query)/dα at α = 0, which is ∇L(θ, query) · ∇L(θ, support).
        before: L(θ, query).
        after: L(θ′, query).
        distance: ‖θ′ − θ‖ = α ‖∇L(θ, support)‖.
    """

    support_slope: Float[Array, ""]
    query_slope: Float[Array, ""]
    before: Float[Array, ""]
    after: Float[Array, ""]
    distance: Float[Array, ""]

    @property
    def drop(self) -> Float[Array, ""]:
        """The query loss that the step takes away."""
        return self.before - self.after

    @property
    def drop_per_distance(self) -> Float[Array, ""]:
        """The query loss that the step takes away, per unit of parameter distance."""
        return self.drop / self.distance


def sensitivity(loss: FitLoss, parameters: PyTree, task: Task, rate: float | Float[Array, ""]) -> Sensitivity:
    """Measure one inner step from `parameters` on one task.

    Args:
        loss: `(parameters, examples) -> scalar`; a supervised learner's `fit_loss`.
        parameters: θ.
        task: its support set gives the step, its query set is what the step is judged by.
        rate: α.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> from metaception.analysis.sensitivity import sensitivity
        >>> def loss(parameters, examples):
        ...     return jnp.mean((parameters - examples.targets) ** 2)
        >>> one = mc.Examples(None, jnp.array([3.0]))
        >>> measured = sensitivity(loss, jnp.array(0.0), mc.Task(one, one), 0.5)
        >>> [float(value) for value in (measured.support_slope, measured.drop, measured.drop_per_distance)]
        [36.0, 9.0, 3.0]

    Finn et al. 2017, section 3: "maximizing the sensitivity of the loss functions of new tasks with respect to the
    parameters".
    """
    before = loss(parameters, task.query)
    on_support, on_query = (jax.grad(loss)(parameters, examples) for examples in task)
    after = loss(optax.tree.add_scale(parameters, -rate, on_support), task.query)
    slope = optax.tree.vdot(on_support, on_support)
    return Sensitivity(slope, optax.tree.vdot(on_query, on_support), before, after, rate * slope**0.5)


def loss_along_gradient(
    loss: FitLoss, parameters: PyTree, task: Task, distances: Float[Array, " n"]
) -> Float[Array, " n"]:
    """The query loss at θ − t ĝ for each distance t, with ĝ the unit vector along the support gradient.

    Args:
        loss, parameters, task: as in `sensitivity`.
        distances: t, in units of parameter distance.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> from metaception.analysis.sensitivity import loss_along_gradient
        >>> def loss(parameters, examples):
        ...     return jnp.mean((parameters - examples.targets) ** 2)
        >>> one = mc.Examples(None, jnp.array([3.0]))
        >>> loss_along_gradient(loss, jnp.array(0.0), mc.Task(one, one), jnp.array([0.0, 1.0, 3.0])).tolist()
        [9.0, 4.0, 0.0]
    """
    gradient = jax.grad(loss)(parameters, task.support)
    size = optax.tree.norm(gradient)
    return jax.vmap(lambda t: loss(optax.tree.add_scale(parameters, -t / size, gradient), task.query))(distances)
