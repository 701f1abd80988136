"""The exact meta-gradient: differentiate through the unrolled inner loop."""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import Descending, Iterative, Learner, Meta, Sampling, Step
from metaception.core.metagradient import Differentiating
from metaception.core.task import Task
from metaception.metagrad._check import refuse, refuse_kinks_at_zero, unseen_leaves
from metaception.metagrad._objective import LossAt, objective

Mode = Literal["reverse", "rematerialise", "mixed"]


class Unroll(Differentiating):
    """Differentiate the outer loss through every inner step.

    d/dmeta L(adapted(meta), query), by reverse mode through the inner loop, second order included.

    Args:
        mode: how the inner steps are differentiated. All three give the same gradient.
            `reverse`: plain reverse mode; keeps every inner step's intermediate values.
            `rematerialise`: keeps the inner states alone and computes each step again on the way back.
            `mixed`: as `rematerialise`, and the product with the inner Hessian by forward-over-reverse mode, so that
            one inner step's *second-order* intermediates are never stored either (MixFlow-MG, arXiv:2505.00793). For
            learners that descend a scalar loss. It cannot itself be differentiated in forward mode.
        loss_at: the outer loss after the `last` inner step, or its mean over `every` inner step.
        score_term: for learners that draw their own data, add the score-function term; without it the estimate is
            biased, so leaving it out is a named choice.

    Examples:
        >>> import metaception as mc
        >>> mc.Unroll(mode="mixed").mode
        'mixed'

    Finn et al. 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", algorithm 1.
    """

    mode: Mode = eqx.field(static=True, default="reverse")
    loss_at: LossAt = eqx.field(static=True, default="last")
    score_term: bool = eqx.field(static=True, default=True)

    def surrogate(
        self,
        key: PRNGKeyArray,
        learner: Learner,
        meta: Meta,
        task: Task,
        weights: Float[Array, " steps"] | None = None,
    ) -> tuple[Float[Array, ""], tuple[Float[Array, ""], dict[str, Any]]]:
        return objective(
            learner,
            key,
            meta,
            task,
            step=self._step(learner),
            loss_at=self.loss_at,
            weights=weights,
            score_term=self.score_term,
            loop=self.mode != "reverse",
        )

    def check(self, learner: Learner, meta: Meta, task: Task) -> None:
        if self.mode not in ("reverse", "rematerialise", "mixed"):
            raise ValueError(f"Unroll: mode={self.mode!r}; expected reverse, rematerialise or mixed.")
        if not isinstance(learner, Iterative) and (self.mode != "reverse" or self.loss_at != "last"):
            raise refuse(
                self,
                learner,
                f"mode={self.mode!r} with loss_at={self.loss_at!r} speaks of inner steps, and the learner adapts without any.",
                "Use Unroll().",
            )
        if self.mode == "mixed" and not isinstance(learner, Descending):
            raise refuse(
                self,
                learner,
                "mode='mixed' takes the inner signal for the gradient of a scalar, whose Jacobian is symmetric, and this "
                "learner does not declare one (metaception.Descending).",
                "Use mode='rematerialise', which saves most of the memory for any learner.",
            )

        def surrogate(meta: Meta, task: Task) -> Float[Array, ""]:
            key = jax.random.key(0)
            return objective(learner, key, meta, task, loss_at=self.loss_at, score_term=self.score_term)[0]

        unseen = unseen_leaves(surrogate, meta, task)
        if unseen:
            remedy = (
                "Leave score_term=True."
                if isinstance(learner, Sampling) and not self.score_term
                else "Take the leaf out of the meta-parameters, or let the learner's steps or its loss read it."
            )
            raise refuse(self, learner, f"the outer loss does not depend on {', '.join(unseen)}.", remedy)
        refuse_kinks_at_zero(self, learner, meta, task)
        if self.mode == "mixed":
            self._check_mixed(learner, meta, task)

    def _check_mixed(self, learner: Learner, meta: Meta, task: Task) -> None:
        def gradient(meta: Meta, task: Task) -> PyTree:
            return self.estimate(jax.random.key(0), learner, meta, (), task)[0].gradient

        try:
            jax.jit(gradient).lower(meta, task)
        except TypeError as error:
            if "custom_vjp" not in str(error):
                raise
            raise refuse(
                self,
                learner,
                "mode='mixed' differentiates the inner gradient in forward mode, and something in the inner loss has a "
                "reverse rule alone (jax.custom_vjp).",
                "Use mode='rematerialise', or give it a jax.custom_jvp rule.",
            ) from error

    def _step(self, learner: Learner) -> Step | None:
        if self.mode == "reverse" or not isinstance(learner, Iterative):
            return None
        # prevent_cse=False: the step is only ever run inside a scan (`loop`), where it guards nothing and costs speed.
        if self.mode == "mixed" and isinstance(learner, Descending):
            return jax.checkpoint(mixed_mode_step(learner), prevent_cse=False)

        # A function of its own: a bound method would be hashed with its learner, whose arrays have no hash.
        def step(key: PRNGKeyArray, meta: Meta, state: PyTree, data: Any) -> PyTree:
            return learner.step(key, meta, state, data)

        return jax.checkpoint(step, prevent_cse=False)


def mixed_mode_step(learner: Descending) -> Step:
    """The learner's step, its inner gradient differentiated in forward-over-reverse mode.

    With g = ∂l/∂φ (φ, meta), the cotangent u of g pulls back to (u·∂g/∂φ, u·∂g/∂meta). As the mixed second derivatives of
    l commute, that is the derivative of ∇l in the direction (u, 0): one forward sweep over the reverse sweep.
    """

    def step(key: PRNGKeyArray, meta: Meta, state: PyTree, data: Any) -> PyTree:
        # Everything that the loss reads is handed in as an argument: the backward rule runs after this trace is over.
        parameters = learner.parameters(state)
        surroundings = (learner, meta, jax.lax.stop_gradient(state), data, key)
        arrays, static = eqx.partition(surroundings, eqx.is_array)
        smooth, discrete = eqx.partition(arrays, eqx.is_inexact_array)

        def gradients(parameters: PyTree, smooth: PyTree, discrete: PyTree) -> tuple[PyTree, PyTree]:
            def loss(parameters: PyTree, smooth: PyTree) -> Float[Array, ""]:
                learner, meta, state, data, key = eqx.combine(smooth, discrete, static)
                return learner.inner_loss(key, meta, parameters, state, data)

            return jax.grad(loss, argnums=(0, 1))(parameters, smooth)

        @jax.custom_vjp
        def inner_gradient(parameters: PyTree, smooth: PyTree, discrete: PyTree) -> PyTree:
            return gradients(parameters, smooth, discrete)[0]

        def forward(*arguments: PyTree) -> tuple[PyTree, tuple[PyTree, ...]]:
            # Not by inner_gradient itself: differentiated twice inside a scan, a rule that calls itself gets its own
            # residuals in the wrong order (JAX 0.10 to 0.12).
            return gradients(*arguments)[0], arguments

        def backward(arguments: tuple[PyTree, ...], cotangent: PyTree) -> tuple[PyTree, ...]:
            parameters, smooth, discrete = arguments

            def along(parameters: PyTree) -> tuple[PyTree, PyTree]:
                return gradients(parameters, smooth, discrete)

            return *jax.jvp(along, (parameters,), (cotangent,))[1], None

        inner_gradient.defvjp(forward, backward)
        return learner.inner_update(meta, state, inner_gradient(parameters, smooth, discrete))

    return step
