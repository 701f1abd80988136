"""A learner that reads its task as a sequence: a recurrent controller with an external memory, which is what adapts."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metaception.core.learner import Adapted, Aux, Learner, Meta
from metaception.core.model import Model
from metaception.core.task import Examples, Task
from metaception.domains.classification.losses import ABSENT
from metaception.learners.metric import similarity
from metaception.learners.supervised import Loss, Statistics, features_by, judge

KEEP = 1
"""The place of the forget gate among an LSTM's four: input, forget, output, cell."""


class Memory(NamedTuple):
    """An external memory, and what the next access needs to know of those before.

    Attributes:
        slots: what is stored, a row a slot.
        usage: how much each slot was read and written, decayed.
        reading: the last read weights of each head.
    """

    slots: Float[Array, "slots width"]
    usage: Float[Array, " slots"]
    reading: Float[Array, "heads slots"]


class Recurrent(NamedTuple):
    """The inner state: what the next step needs.

    Attributes:
        hidden: the controller's output.
        cell: the controller's cell.
        memory: the external memory.
        found: what each head read from it.
        label: the label of the example before, one-hot; zero before the first.
    """

    hidden: Float[Array, " units"]
    cell: Float[Array, " units"]
    memory: Memory
    found: Float[Array, "heads width"]
    label: Float[Array, " classes"]


class Remembering(NamedTuple):
    """What a query is classified with.

    Attributes:
        parameters: the meta-parameters.
        state: the inner state after the support set.
        support: the support inputs, where the embedding of a query reads them (`statistics`); else None.
    """

    parameters: Meta
    state: Recurrent
    support: Any


class MemoryAugmented(Learner):
    """A recurrent controller with an external memory reads the support set; each query is one step further.

    At each step it sees the features of an image and the label of the image *before*, so that it has to keep an image until its
    label comes. The support set comes in a random order; rows whose label is `ABSENT` are passed over. The features are those
    of the model without its last layer, of which only the number of outputs is read: the most classes that a task may have.

    Attributes:
        model: the model, whose layers must be known (`metaception.sequential`).
        loss_function: `(logits, targets) -> scalar`, the outer loss.
        decay: γ, what is left of a slot's usage after a step.
        sharpness: s, what similarities are multiplied with where the memory is read.
        hidden: units of the controller, an LSTM.
        slots: rows of the memory.
        width: numbers a row.
        reads: heads, each of which reads and writes.
        statistics: what batch normalisation takes its statistics from where queries are embedded. The support set is always
            embedded by its own.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> learner = mc.MemoryAugmented(mc.pixels((2, 2, 1), ways=2), mc.cross_entropy, hidden=8, slots=6, width=4, reads=1)
        >>> key, support = jax.random.key(0), mc.Examples(jnp.ones((3, 2, 2, 1)), jnp.array([0, 1, -1]))
        >>> adapted = learner.adapt(key, learner.init_meta(key), support)
        >>> int((adapted.state.memory.usage > 0.5).sum())  # each of the two images was written to a slot of its own
        2
        >>> learner.predict(adapted, support.inputs).shape
        (3, 2)

    Santoro et al. 2016, section 3. There the sequence has no support and query halves: every step is predicted and in the loss.
    """

    model: Model
    loss_function: Loss = eqx.field(static=True)
    decay: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(0.99))
    sharpness: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.ones(()))
    hidden: int = eqx.field(static=True, default=200)
    slots: int = eqx.field(static=True, default=128)
    width: int = eqx.field(static=True, default=40)
    reads: int = eqx.field(static=True, default=4)
    statistics: Statistics = eqx.field(static=True, default="batch")

    def init_meta(self, key: PRNGKeyArray) -> Meta:
        """The embedding's layers, and in place of the last layer the controller with its heads and its output.

        Raises:
            ValueError: for a model whose last layer does not tell how many features it sees.
        """
        key_model, key_controller, key_keys, key_output = jax.random.split(key, 4)
        whole = self.model.init(key_model)
        body = self.model.body(whole)
        try:
            features, classes = whole[len(body)]["weight"].shape
        except (TypeError, KeyError) as error:
            raise ValueError(
                "MemoryAugmented: the parameters of the model's last layer are no dict with a 'weight' [features, outputs], "
                "which the controller takes its sizes from; make it so, or take one of metaception's networks."
            ) from error
        found = self.reads * self.width
        # Each part of what the controller sees by its own size: the label would be lost among as many numbers as an image has.
        parts = (features, classes, found, self.hidden)
        weights = [
            _linear(k, n, 4 * self.hidden)["weight"]
            for k, n in zip(jax.random.split(key_controller, 4), parts, strict=True)
        ]
        # A cell keeps what it has, at first (Jozefowicz et al. 2015).
        keep = jnp.zeros((4, self.hidden)).at[KEEP].set(1.0).ravel()
        return [
            *body,
            {
                "controller": {"bias": keep, "weight": jnp.concatenate(weights)},
                "gates": jnp.zeros(self.reads),
                "keys": _linear(key_keys, self.hidden, found),
                "output": _linear(key_output, self.hidden + found, classes),
            },
        ]

    def adapt(self, key: PRNGKeyArray, meta: Meta, data: Examples) -> Remembering:
        features = self.model.features(meta, data.inputs)
        state = self.start(meta)
        labels = jax.nn.one_hot(data.targets, state.label.size, dtype=features.dtype)
        order = _order(key, data.targets)

        def read(state: Recurrent, row: tuple[Array, Array, Array]) -> tuple[Recurrent, None]:
            image, label, target = row
            after = self.step(meta, state, image)[0]._replace(label=label)
            return jax.tree.map(lambda new, old: jnp.where(target == ABSENT, old, new), after, state), None

        state, _ = jax.lax.scan(read, state, (features[order], labels[order], data.targets[order]))
        return Remembering(meta, state, None if self.statistics == "batch" else data.inputs)

    def loss(self, key: PRNGKeyArray, meta: Meta, adapted: Adapted, task: Task) -> tuple[Float[Array, ""], Aux]:
        del key, meta
        return judge(self.loss_function, self.predict(adapted, task.query.inputs), task.query.targets)

    def predict(self, adapted: Remembering, inputs: Any) -> Float[Array, "n classes"]:
        features = features_by(self.statistics, self.model, adapted.parameters, adapted.support, inputs)
        return jax.vmap(lambda image: self.step(adapted.parameters, adapted.state, image)[1])(features)

    def start(self, meta: Meta) -> Recurrent:
        """The state before the first step: all zero."""
        output = meta[-1]["output"]["bias"]
        shapes = ((self.slots, self.width), (self.slots,), (self.reads, self.slots))
        memory = Memory(*(jnp.zeros(shape, output.dtype) for shape in shapes))
        still, found = jnp.zeros(self.hidden, output.dtype), jnp.zeros((self.reads, self.width), output.dtype)
        return Recurrent(still, still, memory, found, jnp.zeros_like(output))

    def step(
        self, meta: Meta, state: Recurrent, features: Float[Array, " features"]
    ) -> tuple[Recurrent, Float[Array, " classes"]]:
        """See one image, and the label before it: the state after it, and the image's logits."""
        own = meta[-1]
        seen = jnp.concatenate([features, state.label, state.found.ravel(), state.hidden])
        hidden, cell = lstm(_apply(own["controller"], seen), state.cell)
        keys = jnp.tanh(_apply(own["keys"], hidden)).reshape(self.reads, self.width)
        memory, found = access(state.memory, keys, jax.nn.sigmoid(own["gates"]), self.decay, self.sharpness)
        logits = _apply(own["output"], jnp.concatenate([hidden, found.ravel()]))
        return Recurrent(hidden, cell, memory, found, state.label), logits


def access(
    memory: Memory,
    keys: Float[Array, "heads width"],
    gates: Float[Array, " heads"],
    decay: Float[Array, ""],
    sharpness: Float[Array, ""],
) -> tuple[Memory, Float[Array, "heads width"]]:
    """Write every head's key k to the memory M, then read what is like it: least recently used access.

    w_w = g w_r + (1 − g) w_lu,  M(i) ← M(i) + w_w(i) k,  w_r(i) ← softmaxᵢ(s · cos(k, M(i))),  w_u ← γ w_u + w_r + w_w.

    w_lu is 1 at the least used slot, which is emptied first, and 0 elsewhere. Of several heads the first has the least used
    slot, the second the next, and so on.

    Args:
        memory: M, its usage w_u, and the read weights w_r of the last access.
        keys: k of each head.
        gates: g of each head, from 0 to 1: how much is added to what was last read, instead of the least used slot.
        decay: γ.
        sharpness: s.

    Returns:
        The memory after it, and what each head read: Σᵢ w_r(i) M(i).

    Examples:
        >>> import jax.numpy as jnp
        >>> from metaception.learners.memory import Memory, access
        >>> memory = Memory(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0.5, 2.0]), jnp.array([[0.0, 1.0]]))
        >>> key, gate, decay, sharpness = jnp.array([[0.0, 4.0]]), jnp.array([0.25]), jnp.array(0.5), jnp.array(1.0)
        >>> memory, found = access(memory, key, gate, decay, sharpness)
        >>> memory.slots.tolist(), found.tolist()  # ¾ k in place of the least used row, ¼ k beside what was read last
        ([[0.0, 3.0], [0.0, 2.0]], [[0.0, 2.5]])
        >>> memory.usage.tolist()  # half of it, and read (½ each) and written (¾, ¼)
        [1.5, 1.75]

    Santoro et al. 2016, sections 3.1 and 3.2. The paper leaves open which slot each of several heads
    writes to, and empties one.
    """
    # Piecewise constant: which slots are the least used has no derivative.
    least = jax.lax.top_k(-jax.lax.stop_gradient(memory.usage), keys.shape[0])[1]
    chosen = jax.nn.one_hot(least, memory.usage.size, dtype=keys.dtype)
    written = gates[:, None] * memory.reading + (1 - gates[:, None]) * chosen
    slots = memory.slots * (1 - jnp.sum(chosen, axis=0))[:, None] + written.T @ keys
    reading = jax.nn.softmax(sharpness * similarity(keys, slots, "cosine"), axis=1)
    usage = decay * memory.usage + jnp.sum(reading + written, axis=0)
    return Memory(slots, usage, reading), reading @ slots


def lstm(
    drive: Float[Array, " four_units"], cell: Float[Array, " units"]
) -> tuple[Float[Array, " units"], Float[Array, " units"]]:
    """The output and the cell of an LSTM, of what drives its input, forget and output gates and its new cell, in this order.

    Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    enter, keep, leave, new = jnp.split(drive, 4)
    cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
    return jax.nn.sigmoid(leave) * jnp.tanh(cell), cell


def _linear(key: PRNGKeyArray, rows: int, columns: int) -> dict[str, Array]:
    return {"bias": jnp.zeros(columns), "weight": rows**-0.5 * jax.random.normal(key, (rows, columns))}


def _apply(layer: dict[str, Array], x: Float[Array, " rows"]) -> Float[Array, " columns"]:
    return x @ layer["weight"] + layer["bias"]


def _order(key: PRNGKeyArray, targets: Int[Array, " n"]) -> Int[Array, " n"]:
    """A random order, in which rows that are there follow each other as they would without the absent ones."""
    places = jnp.cumsum(targets != ABSENT)
    draws = jax.vmap(lambda place: jax.random.uniform(jax.random.fold_in(key, place)))(places)
    return jnp.argsort(draws)
