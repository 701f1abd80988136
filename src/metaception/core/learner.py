"""WHAT is meta-learned: the learner, and the capabilities that it may declare by inheriting them.

A learner never knows how it is differentiated: an estimator (`metaception.metagrad`) is handed the learner and its loop.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.task import Task

# Pytrees of any structure; the names say which.
Meta: TypeAlias = Any
Adapted: TypeAlias = Any
Aux: TypeAlias = dict[str, Any]
FEW_STEPS = 5
"""Up to so many inner steps are compiled one by one: the first of them then knows that all tasks share its parameters,
and no inner state is stacked. More are compiled as a loop, so that compilation does not grow with them."""
Step: TypeAlias = Callable[[PRNGKeyArray, Meta, PyTree, Any], PyTree]


class Learner(eqx.Module):
    """An inner learner, something about which is the meta-parameter `meta`."""

    @abstractmethod
    def init_meta(self, key: PRNGKeyArray) -> Meta:
        """Fresh meta-parameters: any pytree of arrays."""

    @abstractmethod
    def adapt(self, key: PRNGKeyArray, meta: Meta, data: Any) -> Adapted:
        """Learn one task from its support data; what comes back is what `loss` and `predict` need."""

    @abstractmethod
    def loss(self, key: PRNGKeyArray, meta: Meta, adapted: Adapted, task: Task) -> tuple[Float[Array, ""], Aux]:
        """The outer loss of one task after adaptation, and named scalars that a reader wants."""

    @abstractmethod
    def predict(self, adapted: Adapted, inputs: Any) -> Any:
        """What the adapted learner does with new inputs."""


class Iterative(Learner):
    """A learner that adapts in `steps` equal steps; `adapt` is the one shared scan and is never overridden."""

    steps: eqx.AbstractVar[int]

    @abstractmethod
    def init(self, key: PRNGKeyArray, meta: Meta, data: Any) -> PyTree:
        """The inner state before the first step."""

    @abstractmethod
    def step(self, key: PRNGKeyArray, meta: Meta, state: PyTree, data: Any) -> PyTree:
        """One inner step."""

    @abstractmethod
    def output(self, meta: Meta, state: PyTree) -> Adapted:
        """What the learner is after the steps so far."""

    @final
    def adapt(self, key: PRNGKeyArray, meta: Meta, data: Any) -> Adapted:
        return self.output(meta, unroll(self, key, meta, data))


class GradientBased(Iterative):
    """An iterative learner whose step follows a gradient-like signal: `step` = `inner_update` of `inner_gradient`.

    The split is what lets an estimator stop, or differentiate in another mode, exactly the inner gradient.
    """

    @abstractmethod
    def inner_gradient(self, key: PRNGKeyArray, meta: Meta, state: PyTree, data: Any) -> PyTree:
        """The signal that the next inner step follows."""

    @abstractmethod
    def inner_update(self, meta: Meta, state: PyTree, gradient: PyTree) -> PyTree:
        """Take one inner step along `gradient`."""

    @final
    def step(self, key: PRNGKeyArray, meta: Meta, state: PyTree, data: Any) -> PyTree:
        return self.inner_update(meta, state, self.inner_gradient(key, meta, state, data))


class Descending(GradientBased):
    """A gradient-based learner whose signal is the gradient of a scalar, so that its Jacobian is a symmetric Hessian."""

    @abstractmethod
    def parameters(self, state: PyTree) -> PyTree:
        """The parameters in the inner state that the inner loss is a function of."""

    @abstractmethod
    def inner_loss(
        self, key: PRNGKeyArray, meta: Meta, parameters: PyTree, state: PyTree, data: Any
    ) -> Float[Array, ""]:
        """The loss that an inner step descends, as a function of `parameters`.

        What it reads of `state` beside (a counter, say) is data to it: no derivative passes through there.
        """

    @final
    def inner_gradient(self, key: PRNGKeyArray, meta: Meta, state: PyTree, data: Any) -> PyTree:
        fixed = jax.lax.stop_gradient(state)

        def loss(parameters: PyTree) -> Float[Array, ""]:
            return self.inner_loss(key, meta, parameters, fixed, data)

        return jax.grad(loss)(self.parameters(state))


class Initialising(Iterative):
    """A learner whose meta-parameters *are* the inner learner's first parameters: `adapted` has `meta`'s structure.

    Reptile, which moves the one towards the other, is defined for these alone.
    """


class Stationary(Learner):
    """A learner whose adapted parameters solve `optimality(meta, adapted, data) = 0` when it has converged."""

    @abstractmethod
    def optimality(self, meta: Meta, adapted: Adapted, data: Any) -> Adapted:
        """The residual of the inner problem, of `adapted`'s structure; zero at its solution."""


class Sampling(Learner):
    """A learner that draws its own data, so that the data's distribution depends on `meta`.

    The gradient of an expectation over such data has a score term beside the pathwise one:
    ∇E[loss] = E[∇loss + loss ∇log p(data; meta)] (Williams 1992, REINFORCE).
    """

    @abstractmethod
    def collect(self, key: PRNGKeyArray, meta: Meta, task: Task) -> Task:
        """Draw the data of one task; a gradient never flows through what was drawn."""

    @abstractmethod
    def log_prob(self, meta: Meta, task: Task) -> Float[Array, ""]:
        """The log-probability, under `meta`, of the data that `collect` drew."""


def unroll(
    learner: Iterative,
    key: PRNGKeyArray,
    meta: Meta,
    data: Any,
    *,
    length: int | None = None,
    step: Step | None = None,
) -> PyTree:
    """Run an iterative learner from its start.

    Args:
        key: PRNG key; each step gets its own, the same one whatever `length` is.
        meta: the meta-parameters.
        data: the support data.
        length: how many steps; the learner's own `steps` unless given.
        step: the step to take; the learner's own unless an estimator hands in its version of it.

    Returns:
        The inner state after the last step.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> learner = mc.Initialisation(line, mc.mean_squared_error, jnp.array(0.25), steps=2)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> key, meta = jax.random.key(0), jnp.array(0.0)
        >>> [float(mc.unroll(learner, key, meta, one, length=length).parameters) for length in (0, 1, None)]  # None: steps=2
        [0.0, 2.0, 3.0]
    """
    key_init, key_steps = jax.random.split(key)
    state = learner.init(key_init, meta, data)
    return advance(learner, key_steps, meta, state, data, length=length, step=step)[0]


def advance(
    learner: Iterative,
    key: PRNGKeyArray,
    meta: Meta,
    state: PyTree,
    data: Any,
    *,
    length: int | None = None,
    step: Step | None = None,
    read: Callable[[PyTree], Any] | None = None,
    loop: bool = False,
) -> tuple[PyTree, Any]:
    """Run an iterative learner on from `state`.

    Args:
        key, meta, data, length, step: as in `unroll`.
        state: the inner state to go on from.
        read: what to note of the inner state after each step.
        loop: compile one step and loop over it, even for a few steps, as rematerialisation needs.

    Returns:
        The inner state after the last step, and what `read` noted, stacked along a first axis of `length`
        (None without `read`).

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> learner = mc.Initialisation(line, mc.mean_squared_error, jnp.array(0.25), steps=3)
        >>> key, meta, one = jax.random.key(0), jnp.array(0.0), mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> start = learner.init(key, meta, one)
        >>> state, noted = mc.advance(learner, key, meta, start, one, read=lambda state: state.parameters)
        >>> noted.tolist()  # every step goes half of the way to 4
        [2.0, 3.0, 3.5]
    """
    length = learner.steps if length is None else length
    take = learner.step if step is None else step

    def body(carry: PyTree, key_step: PRNGKeyArray) -> tuple[PyTree, Any]:
        carry = take(key_step, meta, carry, data)
        return carry, None if read is None else read(carry)

    if length == 0 and read is None:
        return state, None
    keys = jax.random.split(key, length)
    if loop or not 0 < length <= FEW_STEPS:
        return jax.lax.scan(body, state, keys)
    noted = []
    for key_step in keys:
        state, note = body(state, key_step)
        noted.append(note)
    return state, None if read is None else jax.tree.map(lambda *notes: jnp.stack(notes), *noted)
