"""The loss of classification, and what is measured beside it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

ABSENT = -1
"""The label of a row that is there for its shape alone: it counts in no loss and in no measure."""


class CrossEntropy:
    """The mean of −log softmax(logits)[label] over the rows whose label is not `ABSENT`; measures the accuracy beside it.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]]))
        >>> round(float(jnp.exp(-2 * mc.cross_entropy(logits, jnp.array([0, 1, -1])))), 5)  # 0.5 · 0.8: row 3 is absent
        0.4
    """

    def __call__(self, predictions: Float[Array, "n classes"], targets: Int[Array, " n"]) -> Float[Array, ""]:
        logs = jax.nn.log_softmax(predictions)
        # A product with the one-hot labels and not a gather, whose second derivative is a scatter.
        own = jnp.sum(logs * jax.nn.one_hot(targets, predictions.shape[-1], dtype=logs.dtype), axis=-1)
        return -jnp.sum(own) / jnp.maximum(jnp.sum(targets != ABSENT), 1)

    def measures(
        self, predictions: Float[Array, "n classes"], targets: Int[Array, " n"]
    ) -> dict[str, Float[Array, ""]]:
        """The accuracy, from 0 to 1."""
        right = (jnp.argmax(predictions, axis=-1) == targets).astype(predictions.dtype)
        return {"accuracy": jnp.sum(right) / jnp.maximum(jnp.sum(targets != ABSENT), 1)}

    def __repr__(self) -> str:
        return "cross_entropy"


cross_entropy = CrossEntropy()
"""The loss of classification: `CrossEntropy`."""
