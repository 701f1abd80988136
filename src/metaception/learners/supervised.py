"""Learners that fit a model to a support set by steps along a gradient: what they share."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from metaception.core.learner import Adapted, Aux, Descending, Meta
from metaception.core.model import Model
from metaception.core.task import Examples, Task

Loss = Callable[[Any, Any], Float[Array, ""]]
Statistics = Literal["batch", "support", "one"]
"""What batch normalisation takes its statistics from where new inputs are predicted.

`batch`: from these inputs together, so that a prediction depends on the others (transductive; the papers' image figures).
`support`: from the support set alone. `one`: each input joins the support set, one at a time (Nichol et al. 2018).
"""


class InnerState(NamedTuple):
    """The inner state of a gradient-fitted model.

    Attributes:
        parameters: what the inner loop adapts.
        optimizer: the inner optimiser's state.
        taken: inner steps taken.
        order: the order [shots] in which minibatches go through the support set; None where every step sees all of it.
        support: the support inputs, where predictions read them (`statistics`); else None.
    """

    parameters: PyTree
    optimizer: PyTree
    taken: Int[Array, ""]
    order: Int[Array, "shots"] | None
    support: Any = None


class Conditioned(NamedTuple):
    """An adapted model whose predictions read the support set beside its parameters.

    Attributes:
        parameters: the model's.
        support: the support inputs [shots, ...].
    """

    parameters: PyTree
    support: Any


def judge(loss_function: Loss, predictions: Any, targets: Any) -> tuple[Float[Array, ""], Aux]:
    """The loss of predictions, and what the loss function measures beside it."""
    measures = getattr(loss_function, "measures", None)
    return loss_function(predictions, targets), {} if measures is None else measures(predictions, targets)


def apply_by(statistics: Statistics, apply: Callable[[Any, Any], Any], support: Any, inputs: Any) -> Any:
    """Apply a network to new inputs [n, ...] by a policy of batch statistics.

    Args:
        statistics: the policy.
        apply: (reference, inputs) -> outputs, a row for each input; batch statistics are those of `reference`, or of the
            inputs themselves for None.
        support: the support inputs; not read by `batch`.
        inputs: the new inputs.
    """
    if statistics == "batch":
        return apply(None, inputs)
    if statistics == "support":
        return apply(support, inputs)
    return jax.vmap(lambda one: apply(None, jnp.concatenate([support, one[None]]))[-1])(inputs)


def features_by(statistics: Statistics, model: Model, parameters: PyTree, support: Any, inputs: Any) -> Any:
    """What the last layer of a model sees of new inputs [n, ...], by a policy of batch statistics; else as `apply_by`."""

    def embed(reference: Any, inputs: Any) -> Any:
        if reference is None:
            return model.features(parameters, inputs)
        rows = reference.shape[0]
        return model.features(parameters, jnp.concatenate([reference, inputs]), rows)[rows:]

    return apply_by(statistics, embed, support, inputs)


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
        statistics: what batch normalisation takes its statistics from where the query set, or new inputs, are predicted.
    """

    model: Model
    loss_function: Loss = eqx.field(static=True)
    rate: Float[Array, ""]
    steps: int = eqx.field(static=True)
    optimizer: optax.GradientTransformation = eqx.field(static=True, default=optax.sgd(1.0))
    batch_size: int | None = eqx.field(static=True, default=None)
    statistics: Statistics = eqx.field(static=True, default="batch")

    def loss(self, key: PRNGKeyArray, meta: Meta, adapted: Adapted, task: Task) -> tuple[Float[Array, ""], Aux]:
        del key, meta
        return judge(self.loss_function, self.predict(adapted, task.query.inputs), task.query.targets)

    def predict(self, adapted: Adapted, inputs: Any) -> Any:
        parameters, support = (adapted, None) if self.statistics == "batch" else adapted

        def apply(reference: Any, inputs: Any) -> Any:
            if reference is None:
                return self.model.apply(parameters, inputs)
            return self.model.apply_after(parameters, reference, inputs)

        return apply_by(self.statistics, apply, support, inputs)

    @final
    def output(self, meta: Meta, state: InnerState) -> Adapted:
        parameters = self.whole(meta, state.parameters)
        return parameters if self.statistics == "batch" else Conditioned(parameters, state.support)

    def whole(self, meta: Meta, parameters: PyTree) -> PyTree:
        """The model's parameters, of which the inner loop may adapt a part."""
        del meta
        return parameters

    def parameters(self, state: InnerState) -> PyTree:
        return state.parameters

    def fit_loss(self, parameters: PyTree, examples: Examples) -> Float[Array, ""]:
        """The loss of the model with these parameters on these examples."""
        return self.loss_function(self.model.apply(parameters, examples.inputs), examples.targets)

    def start(self, key: PRNGKeyArray, parameters: PyTree, data: Examples) -> InnerState:
        """The inner state before the first step from `parameters`."""
        order = None if self.batch_size is None else jax.random.permutation(key, data.inputs.shape[0])
        support = None if self.statistics == "batch" else data.inputs
        return InnerState(parameters, self.optimizer.init(parameters), jnp.zeros((), jnp.int32), order, support)

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
        scaled = jax.tree.map(lambda rate, u: rate * u, self.rates(meta, state, updates), updates)
        parameters = optax.apply_updates(state.parameters, scaled)
        return state._replace(parameters=parameters, optimizer=optimizer, taken=state.taken + 1)

    def rates(self, meta: Meta, state: InnerState, updates: PyTree) -> PyTree:
        """What each update of the next inner step is multiplied with."""
        del meta, state
        return jax.tree.map(lambda u: self.rate, updates)
