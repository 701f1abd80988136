"""Implicit meta-gradients: differentiate the solution of the inner problem, not the way to it."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import Adapted, Learner, Meta, Sampling, Stationary
from metaception.core.metagradient import Estimate, MetaGradient
from metaception.core.task import Task
from metaception.metagrad._check import fill, refuse, unseen_leaves


class Implicit(MetaGradient):
    """The implicit function theorem at the inner solution.

    With F(meta, adapted) = 0 at the solution, d adapted/d meta = −(∂F/∂adapted)⁻¹ ∂F/∂meta, so that
    dL/dmeta = ∂L/∂meta − (∂F/∂meta)ᵀ v, with (∂F/∂adapted)ᵀ v = ∂L/∂adapted. The memory does not grow with inner steps.
    It is as right as the inner problem is solved: stop early, and the estimate is biased.
    Where ∂F/∂adapted turns out not to be positive definite (the inner loss curves down more than its regulariser curves up),
    conjugate gradients break down, the estimate is not a number, and the outer step is skipped and counted; `damping` is the
    remedy.

    Args:
        cg_steps: iterations of the linear solve at most; iMAML takes 5.
        damping: δ, solve with ∂F/∂adapted + δI instead, so that the solve does not break down. A bias: as δ grows,
            the direction turns to that of the first-order gradient at the solution, and the size shrinks.
            The authors' code has one too.
        tolerance: relative residual at which the solve stops earlier.
        symmetric: ∂F/∂adapted is symmetric and positive definite (the Hessian of a strongly convex inner loss), so that
            conjugate gradients apply. Where it is not, False takes GMRES.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> learner = mc.ProximalInitialisation(line, mc.mean_squared_error, jnp.array(0.125), strength=jnp.array(6.0), steps=1)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> estimate, _ = mc.Implicit().estimate(jax.random.key(0), learner, jnp.array(0.0), (), mc.Task(one, one))
        >>> round(float(estimate.gradient), 4)  # the solution is φ = (2 · 4 + 6 θ) / 8, so dφ/dθ = 3/4, times 2 (1 − 4)
        -4.5

    Rajeswaran et al. 2019, "Meta-Learning with Implicit Gradients", equation 6 and algorithm 2.
    """

    cg_steps: int = eqx.field(static=True, default=5)
    damping: float = eqx.field(static=True, default=0.0)
    tolerance: float = eqx.field(static=True, default=1e-6)
    symmetric: bool = eqx.field(static=True, default=True)

    def init(self, key: PRNGKeyArray, learner: Learner, meta: Meta, task: Task) -> PyTree:
        del key, learner, meta, task
        return ()

    def estimate(
        self, key: PRNGKeyArray, learner: Learner, meta: Meta, state: PyTree, task: Task
    ) -> tuple[Estimate, PyTree]:
        assert isinstance(learner, Stationary)
        key_adapt, key_loss = jax.random.split(key)
        adapted = learner.adapt(key_adapt, meta, task.support)

        def outer(meta: Meta, adapted: Adapted) -> tuple[Float[Array, ""], dict[str, Array]]:
            return learner.loss(key_loss, meta, adapted, task)

        (loss, aux), (direct, pull) = jax.value_and_grad(outer, argnums=(0, 1), has_aux=True)(meta, adapted)

        def transposed(vector: Adapted) -> Adapted:
            back = jax.vjp(lambda adapted: learner.optimality(meta, adapted, task.support), adapted)[1]
            return jax.tree.map(lambda a, v: a + self.damping * v, back(vector)[0], vector)

        structure = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), adapted)
        tags = frozenset({lx.positive_semidefinite_tag}) if self.symmetric else frozenset()
        operator = lx.FunctionLinearOperator(transposed, structure, tags)
        # Of length one, so that the tolerance is relative to all of it: entry by entry, a dead unit's exact zero in the right-
        # hand side would be compared with zero. (A right-hand side of zeros stays one.)
        squared = _dot(pull, pull)
        scale = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
        unit = jax.tree.map(lambda p: p / scale, pull)
        # A few steps are meant to stop short of the tolerance, so that is not an error.
        solution = lx.linear_solve(operator, unit, self._solver(adapted), throw=False)
        solved = jax.tree.map(lambda v: scale * v, solution.value)
        back = jax.vjp(lambda meta: learner.optimality(meta, adapted, task.support), meta)[1]
        gradient = jax.tree.map(lambda a, b: a - b, direct, back(solved)[0])
        return Estimate(gradient, loss, aux), state

    def check(self, learner: Learner, meta: Meta, task: Task) -> None:
        if self.cg_steps < 1:
            raise ValueError(f"Implicit: cg_steps={self.cg_steps}; the solve needs at least one step.")
        if not 0 <= self.damping < np.inf:
            raise ValueError(f"Implicit: damping={self.damping}; expected a finite number, 0 or more.")
        if not isinstance(learner, Stationary):
            raise refuse(
                self,
                learner,
                "its adapted parameters are not declared to solve an equation (metaception.Stationary), and only at a solution "
                "does the implicit function theorem hold.",
                "Use a learner with a proximal term, as iMAML does, or Unroll.",
            )
        if isinstance(learner, Sampling):
            raise refuse(self, learner, "the learner draws its own data.", "Use Unroll, which adds the score term.")

        def at_solution(meta: Meta, task: Task) -> tuple[PyTree, Float[Array, ""]]:
            key = jax.random.key(0)
            adapted = jax.lax.stop_gradient(learner.adapt(key, meta, task.support))
            return learner.optimality(meta, adapted, task.support), learner.loss(key, meta, adapted, task)[0]

        unseen = unseen_leaves(at_solution, meta, task)
        if unseen:
            raise refuse(
                self,
                learner,
                f"the inner solution does not depend on {', '.join(unseen)}, which only shapes the way to it.",
                "Use Unroll or EvolutionStrategies for it.",
            )
        if self.symmetric and not self._looks_symmetric(learner, meta, task):
            raise refuse(
                self,
                learner,
                "conjugate gradients need a symmetric ∂F/∂adapted, and this one is not.",
                "Use Implicit(symmetric=False), which takes GMRES.",
            )

    def _solver(self, adapted: Adapted) -> lx.AbstractLinearSolver:
        if self.symmetric:
            return lx.CG(rtol=self.tolerance, atol=self.tolerance, max_steps=self.cg_steps, stabilise_every=None)
        size = sum(leaf.size for leaf in jax.tree.leaves(adapted))
        return lx.GMRES(
            rtol=self.tolerance, atol=self.tolerance, max_steps=self.cg_steps, restart=min(size, max(1, self.cg_steps))
        )

    @staticmethod
    def _looks_symmetric(learner: Stationary, meta: Meta, task: Task) -> bool:
        """Whether uᵀ(Av) = vᵀ(Au) for A = ∂F/∂adapted at a random point, to single precision."""
        key = jax.random.key(0)

        def residuals(meta: Meta, task: Task, at: Adapted, u: Adapted, v: Adapted) -> tuple[Array, Array]:
            def times(vector: Adapted) -> Adapted:
                # Aᵀ does as well as A, and reverse mode takes models with a custom reverse rule.
                return jax.vjp(lambda a: learner.optimality(meta, a, task.support), at)[1](vector)[0]

            return _dot(u, times(v)), _dot(v, times(u))

        adapted = jax.eval_shape(lambda m, t: learner.adapt(key, m, t.support), meta, task)
        draw = np.random.default_rng(0)
        left, right = jax.jit(residuals)(*(fill(draw, tree) for tree in (meta, task, adapted, adapted, adapted)))
        return bool(jnp.allclose(left, right, rtol=1e-3, atol=1e-5))


def _dot(a: PyTree, b: PyTree) -> Array:
    return jnp.asarray(sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))
