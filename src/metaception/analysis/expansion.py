"""The Taylor expansion of MAML, FOMAML and Reptile in the inner step size α, measured on the estimators themselves."""

import itertools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from metaception.analysis.alignment import Loss
from metaception.core.learner import Iterative
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.core.task import Examples, Task


class Terms(NamedTuple):
    """The two terms of the expansion over the minibatches 1 … k of one task, as vectors [parameters].

    Attributes:
        average: AvgGrad = E[ḡ₁], with ḡᵢ the gradient on minibatch i at the meta-parameters.
        inner: AvgGradInner = E[H̄₂ ḡ₁] = ½ E[∂(ḡ₁ · ḡ₂)], over pairs of different minibatches.
    """

    average: Float[Array, " parameters"]
    inner: Float[Array, " parameters"]


class Coefficients(NamedTuple):
    """What a meta-gradient is in the two terms: average · AvgGrad + inner · AvgGradInner + residual.

    Attributes:
        average, inner: the coefficients.
        residual: the norm of what is left, relative to the meta-gradient.
    """

    average: Any
    inner: Any
    residual: Any = 0.0


def predicted(method: Literal["maml", "fomaml", "reptile"], gradients: int, rate: float) -> Coefficients:
    """The coefficients of the expansion up to O(α²).

    Args:
        method: whose meta-gradient; Reptile's is its displacement divided by α.
        gradients: k, the minibatch gradients that the method takes. MAML and FOMAML take the last one outside, so they
            make k − 1 inner steps; Reptile makes k.
        rate: α.

    Examples:
        >>> from metaception.analysis.expansion import predicted
        >>> predicted("maml", 3, 0.01).inner, predicted("fomaml", 3, 0.01).inner, predicted("reptile", 3, 0.01)[:2]
        (-0.04, -0.02, (3, -0.03))

    Nichol et al. 2018, section 5.1: AvgGrad − 2(k−1)α AvgGradInner, AvgGrad − (k−1)α AvgGradInner and
    k AvgGrad − ½k(k−1)α AvgGradInner.
    """
    k = gradients
    match method:
        case "maml":
            return Coefficients(1, -2 * (k - 1) * rate)
        case "fomaml":
            return Coefficients(1, -(k - 1) * rate)
        case "reptile":
            return Coefficients(k, -k * (k - 1) / 2 * rate)
    raise ValueError(f"predicted: method={method!r}; expected maml, fomaml or reptile.")


def terms(loss: Loss, parameters: PyTree, minibatches: Examples) -> Terms:
    """AvgGrad and AvgGradInner over the minibatches of one task.

    Args:
        loss: `(parameters, examples) -> scalar`; a supervised learner's `fit_loss`.
        parameters: the meta-parameters.
        minibatches: examples [k, n, ...], one minibatch a row; the loss is given [1, n, ...].
    """
    flat, shape = ravel_pytree(parameters)
    rows = jax.tree.map(lambda leaf: leaf[:, None], minibatches)

    def gradients(flat: Float[Array, " parameters"]) -> Float[Array, "k parameters"]:
        return jax.vmap(lambda batch: jax.grad(lambda p: loss(shape(p), batch))(flat))(rows)

    k = minibatches.inputs.shape[0]
    at = gradients(flat)
    # H̄ᵢ Σⱼ ḡⱼ for every i, and from each the pair with itself, which no shuffled order holds, taken away.
    of_all = jax.jvp(gradients, (flat,), (at.sum(0),))[1].sum(0)
    of_same = sum(jax.jvp(lambda p, i=i: gradients(p)[i], (flat,), (at[i],))[1] for i in range(k))
    return Terms(at.mean(0), (of_all - of_same) / (k * (k - 1)))


def orders(minibatches: Examples, *, held_out: bool) -> Task:
    """Every order of a task's minibatches, as tasks along a first axis of k!.

    Args:
        minibatches: examples [k, n, ...]: one minibatch a row.
        held_out: the last minibatch of each order becomes the query set (MAML, FOMAML) and the others the support set;
            else all are the support set (Reptile, which only reports a loss on the query set).

    Returns:
        Support sets [k!, k or k − 1, n, ...] and query sets [k!, 1, n, ...]. A learner with `batch_size=1` takes one row,
        a whole minibatch, each inner step. It shuffles the rows, the same way in each of the tasks if the key is the
        same, so that together they still run through every order exactly once.
    """
    k = minibatches.inputs.shape[0]
    order = np.array(list(itertools.permutations(range(k))))
    support = jax.tree.map(lambda a: a[order[:, : k - 1] if held_out else order], minibatches)
    return Task(support, jax.tree.map(lambda a: a[order[:, -1:]], minibatches))


def on_minibatches(model: Model) -> Model:
    """The model on rows that are whole minibatches: inputs [rows, n, ...] -> outputs [rows, n, ...].

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> from metaception.analysis.expansion import on_minibatches
        >>> model = on_minibatches(mc.mlp(1, 1))
        >>> model.apply(model.init(jax.random.key(0)), jnp.zeros((3, 5, 1))).shape
        (3, 5, 1)
    """
    return Model(model.init, jax.vmap(model.apply, in_axes=(None, 0)))


def expected_gradient(
    estimator: MetaGradient, learner: Iterative, parameters: PyTree, minibatches: Examples, *, held_out: bool
) -> Float[Array, " parameters"]:
    """The estimator's meta-gradient on one task, averaged over every order of its minibatches.

    Args:
        estimator: Unroll, FirstOrder or Reptile.
        learner: of a model `on_minibatches`, with `batch_size=1` and as many inner steps as `orders` leaves support rows.
        parameters: the meta-parameters.
        minibatches, held_out: as in `orders`.
    """
    tasks = orders(minibatches, held_out=held_out)
    key = jax.random.key(0)

    def one(task: Task) -> Float[Array, " parameters"]:
        state = estimator.init(key, learner, parameters, task)
        return ravel_pytree(estimator.estimate(key, learner, parameters, state, task)[0].gradient)[0]

    return jax.vmap(one)(tasks).mean(0)


def regress(gradient: Float[Array, " parameters"], on: Terms) -> Coefficients:
    """The least-squares coefficients of a meta-gradient in AvgGrad and AvgGradInner.

    Args:
        gradient: what `expected_gradient` gives, averaged over tasks; Reptile's divided by α.
        on: what `terms` gives, averaged over the same tasks.

    Examples:
        >>> import jax.numpy as jnp
        >>> from metaception.analysis.expansion import Terms, regress
        >>> on = Terms(jnp.array([1.0, 0.0, 0.0]), jnp.array([1.0, 1.0, 0.0]))
        >>> [round(float(c), 4) for c in regress(jnp.array([5.0, 3.0, 0.0]), on)]
        [2.0, 3.0, 0.0]
    """
    columns = jnp.stack(on, axis=1)
    # Columns of one size: the terms may differ by orders of magnitude.
    sizes = jnp.linalg.norm(columns, axis=0)
    solution = jnp.linalg.lstsq(columns / sizes, gradient)[0]
    left = jnp.linalg.norm(gradient - columns / sizes @ solution) / jnp.linalg.norm(gradient)
    average, inner = solution / sizes
    return Coefficients(average, inner, left)
