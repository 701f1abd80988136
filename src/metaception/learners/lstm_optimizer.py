"""A learned initialisation together with a learned update rule: an LSTM whose cell state is the model's parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import Meta
from metaception.core.task import Examples
from metaception.learners.supervised import InnerState, Supervised

SCALE = 10.0
"""p of Andrychowicz et al. 2016, appendix A: magnitudes below e⁻ᵖ are told by their size, larger ones by their logarithm."""
SPREAD = 0.01
"""Weights start uniform in ± this, as in the authors' code, so that the gates start at their biases."""


class Gate(NamedTuple):
    """A gate σ(weights · [hidden, parameter, the gate before] + bias), the same for all coordinates.

    Attributes:
        weights: [hidden + 2].
        bias: a scalar.
    """

    weights: Any
    bias: Any


class Rule(NamedTuple):
    """The weights of an update rule, the same for all coordinates.

    Attributes:
        weights: of the LSTM that reads gradients and losses, [4 · hidden, 4 + hidden]. Its columns read log and sign of the
            gradient, log and sign of the loss, and the hidden state; its rows are input, forget and output gate and the
            candidate, `hidden` of each.
        bias: of that LSTM, [4 · hidden].
        input: the gate that is the step size.
        forget: the gate that is the decay.
    """

    weights: Any
    bias: Any
    input: Gate
    forget: Gate


class InitialisationAndRule(NamedTuple):
    """Meta-parameters of `LSTMOptimizer`: of the model's parameters' structure, and the rule's weights."""

    initialisation: PyTree
    rule: Rule


class Memory(NamedTuple):
    """What an update rule remembers of every coordinate; zeros at first. Coordinates come last: nothing else is as long.

    Attributes:
        hidden, cell: of the LSTM that reads gradients and losses, [hidden, coordinates].
        input, forget: the gates of the last step, [coordinates].
    """

    hidden: Any
    cell: Any
    input: Any
    forget: Any


def log_and_sign(values: Float[Array, "..."]) -> Float[Array, "2 ..."]:
    """Numbers of any magnitude as two of about one: (log|x| / p, sign x), or (−1, eᵖ x) where |x| < e⁻ᵖ; p is `SCALE`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from metaception.learners.lstm_optimizer import log_and_sign
        >>> log_and_sign(jnp.exp(jnp.array([5.0, -5.0, -10.0]))).round(2).tolist()
        [[0.5, -0.5, -1.0], [1.0, 1.0, 1.0]]
        >>> log_and_sign(jnp.array([-1.0, 0.0])).tolist()
        [[0.0, -1.0], [-1.0, 0.0]]

    Andrychowicz et al. 2016, "Learning to Learn by Gradient Descent by Gradient Descent", appendix A.
    """
    # Both cases at once: either function is continuous, and where it is cut off its derivative is zero, not infinite.
    log = jnp.log(jnp.maximum(jnp.abs(values), jnp.exp(-SCALE))) / SCALE
    return jnp.stack([log, jnp.clip(jnp.exp(SCALE) * values, -1.0, 1.0)])


def think(
    rule: Rule,
    memory: Memory,
    parameters: Float[Array, "coordinates"],
    gradient: Float[Array, "coordinates"],
    loss: Float[Array, ""],
) -> Memory:
    """The memory after a step of the LSTM at every coordinate; its gates are those of this step."""
    told = jnp.broadcast_to(log_and_sign(loss)[:, None], (2, parameters.size))
    seen = jnp.concatenate([log_and_sign(gradient), told, memory.hidden])
    write, keep, read, candidate = jnp.split(rule.weights @ seen + rule.bias[:, None], 4)
    cell = jax.nn.sigmoid(keep) * memory.cell + jax.nn.sigmoid(write) * jnp.tanh(candidate)
    hidden = jax.nn.sigmoid(read) * jnp.tanh(cell)

    def opened(gate: Gate, before: Float[Array, "coordinates"]) -> Float[Array, "coordinates"]:
        own = gate.weights[-2] * parameters + gate.weights[-1] * before
        return jax.nn.sigmoid(gate.weights[:-2] @ hidden + own + gate.bias)

    return Memory(hidden, cell, opened(rule.input, memory.input), opened(rule.forget, memory.forget))


class LSTMOptimizer(Supervised):
    """The parameters are the cell state of a learned LSTM: θ_t = f_t ∘ θ_{t−1} − i_t ∘ ∇L_t, with gates that it computes.

    At every coordinate an ordinary LSTM reads the gradient there and the loss, both as `log_and_sign` has them, and says h_t.
    The gates are i_t = σ(w_i · [h_t, θ_{t−1}, i_{t−1}] + b_i), the step size, and likewise f_t, the decay. All
    coordinates share their weights, and each has a memory of its own. Weights and the first parameters are meta-learned.

    An optimiser other than `optax.sgd(1.0)` gives another direction than −∇L_t; the LSTM reads the gradient all the same.

    Args:
        rate: what the step sizes start from, between 0 and 1.
        forget: what the decays start from, between 0 and 1; 1 would be no decay.
        hidden: units of the LSTM a coordinate.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(1.0), lambda w, x: w * x)
        >>> learner = mc.LSTMOptimizer(line, mc.mean_squared_error, jnp.array(0.01), steps=1, forget=jnp.array(0.99))
        >>> key, one = jax.random.key(0), mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> meta = learner.init_meta(key)
        >>> round(float(learner.adapt(key, meta, one)), 2)  # about 0.99 · 1 − 0.01 · 2 (1 − 4)
        1.05
        >>> blank = meta._replace(rule=jax.tree.map(jnp.zeros_like, meta.rule))  # both gates are σ(0)
        >>> float(learner.adapt(key, blank, one))
        3.5

    Ravi & Larochelle 2017, "Optimization as a Model for Few-Shot Learning", section 3; the ordinary LSTM before the gates
    is in section 5.1, in words, and in the authors' code. There i_{t−1} and f_{t−1} are read before σ; here they are the gates,
    as the paper writes them.
    """

    forget: Float[Array, ""] = eqx.field(kw_only=True)
    hidden: int = eqx.field(static=True, kw_only=True, default=20)

    def init_meta(self, key: PRNGKeyArray) -> InitialisationAndRule:
        key_model, key_weights, key_bias, key_input, key_forget = jax.random.split(key, 5)

        def draw(key: PRNGKeyArray, *shape: int) -> Float[Array, "..."]:
            return jax.random.uniform(key, shape, minval=-SPREAD, maxval=SPREAD)

        def gate(key: PRNGKeyArray, start: Float[Array, ""]) -> Gate:
            weights = draw(key, self.hidden + 2)
            return Gate(weights, jnp.asarray(jax.scipy.special.logit(start), weights.dtype))

        rule = Rule(
            draw(key_weights, 4 * self.hidden, 4 + self.hidden),
            draw(key_bias, 4 * self.hidden),
            input=gate(key_input, self.rate),
            forget=gate(key_forget, self.forget),
        )
        return InitialisationAndRule(self.model.init(key_model), rule)

    def init(self, key: PRNGKeyArray, meta: InitialisationAndRule, data: Examples) -> InnerState:
        state = self.start(key, meta.initialisation, data)
        flat, _ = ravel_pytree(meta.initialisation)
        units, gate = jnp.zeros((self.hidden, flat.size), flat.dtype), jnp.zeros_like(flat)
        return state._replace(optimizer=(state.optimizer, Memory(units, units, gate, gate)))

    def parameters(self, state: InnerState) -> PyTree:
        # The loss is its own derivative in a factor of one: so the LSTM is told both, and both are the inner gradient, which
        # an estimator may hold fixed as a whole.
        return state.parameters, jnp.ones(())

    def inner_loss(
        self, key: PRNGKeyArray, meta: Meta, parameters: PyTree, state: InnerState, data: Examples
    ) -> Float[Array, ""]:
        del key, meta
        model, factor = parameters
        return factor * self.fit_loss(model, self.batch(state, data))

    def inner_update(self, meta: InitialisationAndRule, state: InnerState, gradient: PyTree) -> InnerState:
        (slopes, loss), (optimizer, memory) = gradient, state.optimizer
        updates, optimizer = self.optimizer.update(slopes, optimizer, state.parameters)
        flat, rebuild = ravel_pytree(state.parameters)
        # What is inside the LSTM is several times the memory of all coordinates: computed again where it is differentiated.
        memory = jax.checkpoint(think)(meta.rule, memory, flat, ravel_pytree(slopes)[0], loss)
        parameters = rebuild(memory.forget * flat + memory.input * ravel_pytree(updates)[0])
        return state._replace(parameters=parameters, optimizer=(optimizer, memory), taken=state.taken + 1)
