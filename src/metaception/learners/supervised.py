"""Learners that fit a model to a support set by steps along a gradient: what they share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from metaception.core.learner import Adapted, Aux, Descending, Meta
from metaception.core.model import Model
from metaception.core.task import Examples, Task

Loss = Callable[[Any, Any], Float[Array, ""]]


class InnerState(NamedTuple):
    """The inner state of a gradient-fitted model.

    Attributes:
        parameters: what the inner loop adapts.
        optimizer: the inner optimiser's state.
        taken: inner steps taken.
        order: the order [shots] in which minibatches go through the support set; None where every step sees all of it.
    """

    parameters: PyTree
    optimizer: PyTree
    taken: Int[Array, ""]
    order: Int[Array, "shots"] | None


class Supervised(Descending):
    """A model fitted to labelled examples: the inner loss on the support set, the outer loss on the query set.

    Attributes:
        model: the model.
        loss_function: `(predictions, targets) -> scalar`, for the inner and the outer loss.
        optimizer: the inner optimiser, any of optax's. One that takes roots of squared gradients (Adam, RMSProp) needs a
            positive `eps_root`, or `eps_in_sqrt`, where an estimator differentiates through its update: a dead unit's zero
            gradient otherwise makes the whole meta-gradient not a number, and `check` refuses it.
        rate: what the inner optimiser's updates are multiplied with; the step size where the optimiser is `optax.sgd(1.0)`.
        steps: inner steps.
        batch_size: examples an inner step, in turn through the shuffled support set; None for all of it.
    """

    model: eqx.AbstractVar[Model]
    loss_function: eqx.AbstractVar[Loss]
    rate: eqx.AbstractVar[Float[Array, ""]]
    optimizer: eqx.AbstractVar[optax.GradientTransformation]
    batch_size: eqx.AbstractVar[int | None]

    def loss(self, key: PRNGKeyArray, meta: Meta, adapted: Adapted, task: Task) -> tuple[Float[Array, ""], Aux]:
        del key, meta
        predictions = self.model.apply(adapted, task.query.inputs)
        measures = getattr(self.loss_function, "measures", None)
        aux = {} if measures is None else measures(predictions, task.query.targets)
        return self.loss_function(predictions, task.query.targets), aux

    def predict(self, adapted: Adapted, inputs: Any) -> Any:
        return self.model.apply(adapted, inputs)

    def parameters(self, state: InnerState) -> PyTree:
        return state.parameters

    def fit_loss(self, parameters: PyTree, examples: Examples) -> Float[Array, ""]:
        """The loss of the model with these parameters on these examples."""
        return self.loss_function(self.model.apply(parameters, examples.inputs), examples.targets)

    def start(self, key: PRNGKeyArray, parameters: PyTree, data: Examples) -> InnerState:
        """The inner state before the first step from `parameters`."""
        order = None if self.batch_size is None else jax.random.permutation(key, data.inputs.shape[0])
        return InnerState(parameters, self.optimizer.init(parameters), jnp.zeros((), jnp.int32), order)

    def batch(self, state: InnerState, data: Examples) -> Examples:
        """The examples of the next inner step."""
        if self.batch_size is None or state.order is None:
            return data
        order = state.order
        size = min(self.batch_size, order.shape[0])
        places = (state.taken * size + jnp.arange(size)) % order.shape[0]

        def pick(array: Shaped[Array, "shots ..."]) -> Shaped[Array, "batch ..."]:
            return array[order[places]]

        return jax.tree.map(pick, data)

    def inner_update(self, meta: Meta, state: InnerState, gradient: PyTree) -> InnerState:
        updates, optimizer = self.optimizer.update(gradient, state.optimizer, state.parameters)
        scaled = jax.tree.map(lambda rate, u: rate * u, self.rates(meta, updates), updates)
        return InnerState(optax.apply_updates(state.parameters, scaled), optimizer, state.taken + 1, state.order)

    def rates(self, meta: Meta, updates: PyTree) -> PyTree:
        """What each update is multiplied with."""
        del meta
        return jax.tree.map(lambda u: self.rate, updates)
