"""The meta-gradient and the Jacobian of adaptation, written out with explicit Hessians.

For small models: a Hessian of n parameters takes n² numbers. Everything is a vector or matrix over the flattened
parameters, in the order of `jax.flatten_util.ravel_pytree`; gradients are rows, so a Jacobian stands to their right.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.analysis.alignment import Loss
from metaception.core.learner import Learner, Meta
from metaception.core.task import Examples, Task

Vector = Float[Array, " parameters"]
Matrix = Float[Array, "parameters parameters"]


def gradient(loss: Loss, parameters: PyTree, examples: Examples) -> Vector:
    """∇L(θ, examples), flattened."""
    flat, shape = ravel_pytree(parameters)
    return jax.grad(lambda p: loss(shape(p), examples))(flat)


def hessian(loss: Loss, parameters: PyTree, examples: Examples) -> Matrix:
    """∂²L/∂θ² on the examples, over the flattened parameters.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> from metaception.analysis.hessian import hessian
        >>> def loss(p, examples):
        ...     return examples.inputs.sum() * p["a"] * p["b"]
        >>> examples = mc.Examples(jnp.array([3.0]), None)
        >>> hessian(loss, {"a": jnp.array(1.0), "b": jnp.array(2.0)}, examples).tolist()
        [[0.0, 3.0], [3.0, 0.0]]
    """
    flat, shape = ravel_pytree(parameters)
    return jax.hessian(lambda p: loss(shape(p), examples))(flat)


def step(loss: Loss, parameters: PyTree, examples: Examples, rate: float) -> PyTree:
    """θ − α ∇L(θ, examples)."""
    flat, shape = ravel_pytree(parameters)
    return shape(flat - rate * gradient(loss, parameters, examples))


def factor(loss: Loss, parameters: PyTree, examples: Examples, rate: float) -> Matrix:
    """I − α H(θ): the Jacobian of one gradient step."""
    h = hessian(loss, parameters, examples)
    return jnp.eye(h.shape[0], dtype=h.dtype) - rate * h


def meta_gradient(loss: Loss, parameters: PyTree, task: Task, rate: float) -> Vector:
    """One task's share of the meta-gradient after one inner step: ∇L(θᵢ, query) (I − α Hᵢ(θ)).

    Summed over tasks it is the meta-gradient. The n_train-task equation of some lecture notes has the factor, which
    depends on the task, outside the sum over the tasks; it belongs inside.

    Args:
        loss: `(parameters, examples) -> scalar`; a supervised learner's `fit_loss`.
        parameters: θ.
        task: one task.
        rate: α.

    Finn et al. 2017, section 2.2, differentiated once.
    """
    adapted = step(loss, parameters, task.support, rate)
    return gradient(loss, adapted, task.query) @ factor(loss, parameters, task.support, rate)


def step_factors(loss: Loss, parameters: PyTree, examples: Examples, rate: float, steps: int) -> list[Matrix]:
    """I − α H(θ₀), I − α H(θ₁), …: the Jacobian of each of `steps` gradient steps, in the order they are taken.

    By the chain rule dθₙ/dθ₀ = (I − α H(θₙ₋₁)) ⋯ (I − α H(θ₀)): the first step's factor stands last.
    """
    factors = []
    for _ in range(steps):
        factors.append(factor(loss, parameters, examples, rate))
        parameters = step(loss, parameters, examples, rate)
    return factors


def adaptation_jacobian(learner: Learner, key: PRNGKeyArray, meta: Meta, examples: Examples) -> Matrix:
    """d adapted/d meta through the learner's own `adapt`, by automatic differentiation.

    Args:
        learner: one whose `adapted` and `meta` are both the model's parameters.
        key: PRNG key of the adaptation.
        meta: θ₀.
        examples: the support set.
    """
    flat, shape = ravel_pytree(meta)
    return jax.jacobian(lambda p: ravel_pytree(learner.adapt(key, shape(p), examples))[0])(flat)
