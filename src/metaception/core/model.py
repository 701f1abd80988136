"""Models of every kind, as the one pair of functions that learners use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

Moments: TypeAlias = list[tuple[Any, Any]]
"""What each normalisation of a model takes of a batch, in the order in which they come: (mean, variance), each [channels]."""


class Noted:
    """In the place of a reference: what each normalisation takes of its batch is noted in `moments`."""

    def __init__(self) -> None:
        self.moments: Moments = []


class Given:
    """In the place of a reference: normalisations take the next of these moments, and nothing of their batch."""

    def __init__(self, moments: Moments):
        self.next = iter(moments).__next__


Reference: TypeAlias = int | Noted | Given | None
"""What a layer that takes statistics of its batch takes them of: the first so many rows, or all for None."""
Layer: TypeAlias = Callable[[Any, Any, Any], Any]
"""(the layer's parameters, x [n, ...], reference) -> [n', ...]; see `Reference`."""


class Model(eqx.Module):
    """A model: how to draw its parameters, and how to apply them to a batch of inputs.

    Args:
        init: `key -> parameters`, any pytree of arrays.
        apply: `(parameters, inputs [n, ...]) -> outputs [n, ...]`.
        layers: for models that are a chain of layers, and whose parameters are a list of the layers' parameters: the layers.
            `sequential` makes such a model.
        readout: what the last layer sees of the output of the one before it.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(init=lambda key: jnp.array(2.0), apply=lambda slope, x: slope * x)
        >>> line.apply(line.init(jax.random.key(0)), jnp.array([[1.0], [3.0]])).tolist()
        [[2.0], [6.0]]
    """

    init: Callable[[PRNGKeyArray], PyTree] = eqx.field(static=True)
    apply: Callable[[PyTree, Any], Any] = eqx.field(static=True)
    layers: tuple[Layer, ...] | None = eqx.field(static=True, default=None)
    readout: Callable[[Any], Any] = eqx.field(static=True, default=lambda x: x)

    def activations(self, parameters: PyTree, inputs: Any, reference: Reference = None) -> list[Any]:
        """The output of every layer, the model's own last.

        Args:
            parameters: the model's parameters.
            inputs: [n, ...].
            reference: batch statistics are those of the first `reference` rows; of all for None.

        Raises:
            ValueError: for a model that does not tell its layers.
        """
        layers = self._known_layers()
        outputs = []
        for index, (layer, own) in enumerate(zip(layers, parameters, strict=True)):
            seen = self.readout(inputs) if index == len(layers) - 1 else inputs
            inputs = layer(own, seen, reference)
            outputs.append(inputs)
        return outputs

    def features(self, parameters: PyTree, inputs: Any, reference: int | None = None) -> Any:
        """What the last layer sees: [n, features].

        The arguments are those of `activations`; the last layer's own parameters are not read, and may be left out (`body`).
        """
        body = self._known_layers()[:-1]
        for layer, own in zip(body, parameters[: len(body)], strict=True):
            inputs = layer(own, inputs, reference)
        return self.readout(inputs)

    def body(self, parameters: PyTree) -> PyTree:
        """The parameters without the last layer's: what `features` needs of them."""
        return parameters[: len(self._known_layers()) - 1]

    def apply_after(self, parameters: PyTree, support: Any, inputs: Any) -> Any:
        """The outputs [n, ...] for `inputs` with the batch statistics of `support` alone."""
        if self.layers is None:
            return self.apply(parameters, inputs)  # as far as anyone can tell, it takes no statistics of its batch
        reference = support.shape[0]
        return self.activations(parameters, jnp.concatenate([support, inputs]), reference)[-1][reference:]

    def moments(self, parameters: PyTree, inputs: Any) -> Moments:
        """What each normalisation of the model takes of a batch of inputs."""
        noted = Noted()
        self.activations(parameters, inputs, noted)
        return noted.moments

    def apply_with(self, parameters: PyTree, inputs: Any, moments: Moments) -> Any:
        """The outputs [n, ...] where normalisations take these moments, and nothing of the batch."""
        return self.activations(parameters, inputs, Given(moments))[-1]

    def _known_layers(self) -> tuple[Layer, ...]:
        if self.layers is None:
            raise ValueError(
                "this model does not tell its layers, which its activations, its features and batch statistics of the support "
                "set alone are read from; make it with metaception.sequential, or take one of metaception's networks."
            )
        return self.layers


def sequential(
    init: Callable[[PRNGKeyArray], PyTree], layers: Sequence[Layer], *, readout: Callable[[Any], Any] = lambda x: x
) -> Model:
    """A model that is a chain of layers.

    Args:
        init: `key -> [the parameters of each layer]`.
        layers: `(parameters, x, reference) -> x`, see `Layer`.
        readout: what the last layer sees of the output of the one before it, for example the mean over all places.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> scale, shift = lambda w, x, reference: w * x, lambda b, x, reference: x + b
        >>> model = mc.sequential(lambda key: [jnp.array(3.0), jnp.array(1.0)], [scale, shift])
        >>> parameters = model.init(jax.random.key(0))
        >>> [a.tolist() for a in model.activations(parameters, jnp.array([[2.0]]))]
        [[[6.0]], [[7.0]]]
    """
    chain = Model(init, lambda parameters, inputs: inputs, tuple(layers), readout)
    return Model(init, lambda parameters, inputs: chain.activations(parameters, inputs)[-1], chain.layers, readout)


def as_model(model: Any, example: Any = None) -> Model:
    """Take a model of any of these kinds.

    Args:
        model: one of
            a `Model`, or a pair `(init, apply)`, as in `Model`;
            an Equinox module of one unbatched input, or a function `key -> module` (a module given as it is starts every
            seed from its own weights);
            a Flax linen module, with an `example` batch of inputs;
            a function `rngs -> module` that makes a Flax NNX module.
        example: a batch of inputs, for models that find their shapes from one.

    Raises:
        TypeError: for anything else, or a linen module without an example.

    Examples:
        >>> import equinox as eqx, jax, jax.numpy as jnp, metaception as mc
        >>> model = mc.as_model(lambda key: eqx.nn.MLP(1, 1, 40, 2, key=key))
        >>> model.apply(model.init(jax.random.key(0)), jnp.zeros((5, 1))).shape
        (5, 1)
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, tuple) and len(model) == 2 and all(callable(part) for part in model):
        return Model(*model)
    if isinstance(model, eqx.Module):
        return _from_equinox(lambda key: model)
    if _is_linen(model):
        if example is None:
            raise TypeError(
                f"as_model: {type(model).__name__} is a Flax linen module, which finds its shapes from data; pass a batch "
                "of inputs as well: as_model(module, example)."
            )
        return _from_linen(model, example)
    if callable(model):
        return _from_maker(model)
    raise TypeError(
        f"as_model: cannot use a {type(model).__name__}; expected a pair (init, apply), an Equinox module or a function "
        "key -> module, a Flax linen module with an example, or a function rngs -> Flax NNX module."
    )


def count_parameters(model: Any, example: Any = None) -> int:
    """How many numbers the parameters of a model hold; the arguments are those of `as_model`.

    Examples:
        >>> import equinox as eqx, metaception as mc
        >>> mc.count_parameters(lambda key: eqx.nn.Linear(3, 2, key=key))  # 3 · 2 weights and 2 biases
        8
    """
    shapes = jax.eval_shape(as_model(model, example).init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _is_linen(model: Any) -> bool:
    # By name: Flax is only looked for where the user has brought it.
    return any(f"{c.__module__}.{c.__qualname__}" == "flax.linen.module.Module" for c in type(model).__mro__)


def _from_linen(model: Any, example: Any) -> Model:
    collections = sorted(set(jax.eval_shape(model.init, jax.random.key(0), example)) - {"params"})
    if collections:
        raise TypeError(
            f"as_model: {type(model).__name__} has {', '.join(collections)} beside its parameters, which an inner loop would "
            "take for parameters or carry from task to task; use layers without it, or a pair (init, apply) that handles it."
        )
    return Model(lambda key: model.init(key, example), model.apply)


def _is_nnx(model: Any) -> bool:
    return any(c.__module__.startswith("flax.nnx") and c.__name__ == "Module" for c in type(model).__mro__)


def _from_maker(make: Callable[..., Any]) -> Model:
    """From a function that makes a module: of a key for Equinox, of `nnx.Rngs` for Flax NNX."""
    kind: list[type] = []

    def probe(key: PRNGKeyArray) -> None:
        kind.append(type(make(key)))

    try:
        jax.eval_shape(probe, jax.random.key(0))
    except Exception:
        # A Flax NNX module wants streams of keys where Equinox wants a key. Only who has imported Flax can have meant one.
        if "flax" in sys.modules and _takes_rngs(make):
            return _from_nnx(make)
        raise
    if issubclass(kind[0], eqx.Module):
        return _from_equinox(make)
    raise TypeError(
        f"as_model: the function returned a {kind[0].__name__} for a key; expected an Equinox module (or, for rngs, a Flax "
        "NNX module)."
    )


def _takes_rngs(make: Callable[..., Any]) -> bool:
    """Whether `make` makes a Flax NNX module of `nnx.Rngs`."""
    from flax import nnx

    try:
        return _is_nnx(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    except Exception:
        return False


def _from_equinox(make: Callable[[PRNGKeyArray], eqx.Module]) -> Model:
    # What is not an array (activations, sizes) is the same for every key.
    static = eqx.partition(eqx.filter_eval_shape(make, jax.random.key(0)), _is_inexact)[1]

    def init(key: PRNGKeyArray) -> PyTree:
        return eqx.filter(make(key), eqx.is_inexact_array)

    def apply(parameters: PyTree, inputs: Any) -> Any:
        return jax.vmap(eqx.combine(parameters, static))(inputs)

    return Model(init, apply)


def _is_inexact(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct) and jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact)


def _from_nnx(make: Callable[[Any], Any]) -> Model:
    from flax import nnx

    module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    if not _is_nnx(module):
        raise TypeError(f"as_model: the function returned a {type(module).__name__}; expected a module.")
    graph, _, rest = nnx.split(module, nnx.Param, ...)
    if jax.tree.leaves(rest):
        raise TypeError(
            f"as_model: {type(module).__name__} holds state beside its parameters (batch statistics, dropout keys), which an "
            "inner loop would carry from task to task; use layers without it, or a pair (init, apply) that handles it."
        )

    def init(key: PRNGKeyArray) -> PyTree:
        return nnx.to_pure_dict(nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)[1])

    def apply(parameters: PyTree, inputs: Any) -> Any:
        module = nnx.merge(graph, nnx.State(parameters), rest)
        return module(inputs)

    return Model(init, apply)
