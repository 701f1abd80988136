"""The outer objective of one task, and its gradient: what the differentiating estimators share."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaception.core.learner import Iterative, Learner, Meta, Sampling, Step, advance
from metaception.core.task import Task

LossAt = Literal["last", "every"]


def draw(learner: Learner, key: PRNGKeyArray, meta: Meta, task: Task) -> Task:
    """The task with its data: as it came, or as a sampling learner drew it, with no gradient through the draw."""
    if isinstance(learner, Sampling):
        return jax.lax.stop_gradient(learner.collect(key, meta, task))
    return task


def objective(
    learner: Learner,
    key: PRNGKeyArray,
    meta: Meta,
    task: Task,
    *,
    step: Step | None = None,
    loss_at: LossAt = "last",
    weights: Float[Array, " steps"] | None = None,
    score_term: bool = False,
    loop: bool = False,
) -> tuple[Float[Array, ""], tuple[Float[Array, ""], dict[str, Any]]]:
    """The outer loss of one task, as a function whose derivative in `meta` is the meta-gradient.

    Args:
        step: the inner step, where an estimator hands in its own version of it.
        loss_at: after the `last` inner step, or the mean over `every` inner step.
        weights: with `every`, what each step's loss counts, instead of equally.
        loop: as in `advance`.
        score_term: weigh the loss with the likelihood ratio of a sampling learner's own data to itself. Its value is one, and
            its derivatives, of every order, are those through which the draw depends on `meta` (Foerster et al. 2018,
            "DiCE: The Infinitely Differentiable Monte Carlo Estimator", the operator they call MagicBox).

    Returns:
        A surrogate to differentiate, and (the loss itself, the learner's aux).
    """
    key_draw, key_adapt, key_loss = jax.random.split(key, 3)
    task = draw(learner, key_draw, meta, task)
    if isinstance(learner, Iterative):
        key_init, key_steps = jax.random.split(key_adapt)
        state = learner.init(key_init, meta, task.support)
        keys = (key_steps, key_loss)
        _, loss, aux = window(
            learner,
            keys,
            meta,
            state,
            task,
            length=learner.steps,
            step=step,
            loss_at=loss_at,
            weights=weights,
            loop=loop,
        )
    else:
        loss, aux = learner.loss(key_loss, meta, learner.adapt(key_adapt, meta, task.support), task)
    surrogate = loss
    if score_term and isinstance(learner, Sampling):
        log_prob = learner.log_prob(meta, task)
        surrogate = loss * jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))
    return surrogate, (loss, aux)


def window(
    learner: Iterative,
    keys: tuple[PRNGKeyArray, PRNGKeyArray],
    meta: Meta,
    state: Any,
    task: Task,
    *,
    length: int,
    step: Step | None = None,
    loss_at: LossAt = "last",
    weights: Float[Array, " steps"] | None = None,
    loop: bool = False,
) -> tuple[Any, Float[Array, ""], dict[str, Any]]:
    """`length` inner steps from `state`, and the outer loss after the last of them or averaged over all, by `weights` if given.

    `keys` are those of the steps and of the loss.
    """
    key_steps, key_loss = keys

    def judge(state: Any) -> tuple[Float[Array, ""], dict[str, Any]]:
        return learner.loss(key_loss, meta, learner.output(meta, state), task)

    if loss_at == "every":
        state, noted = advance(
            learner, key_steps, meta, state, task.support, length=length, step=step, read=judge, loop=loop
        )
        loss, aux = jax.tree.map(lambda a: jnp.average(a, axis=0, weights=weights), noted)
    else:
        state, _ = advance(learner, key_steps, meta, state, task.support, length=length, step=step, loop=loop)
        loss, aux = judge(state)
    return state, loss, aux
