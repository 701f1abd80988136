"""The loss of regression."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def mean_squared_error(predictions: Float[Array, "..."], targets: Float[Array, "..."]) -> Float[Array, ""]:
    """The mean of (predictions − targets)² over everything.

    Raises:
        ValueError: where the shapes differ (broadcasting [n] against [n, 1] would silently compare every pair).

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> float(mc.mean_squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))  # (0² + 2²) / 2
        2.0
    """
    if predictions.shape != targets.shape:
        raise ValueError(
            f"mean_squared_error: predictions {predictions.shape} and targets {targets.shape} differ in shape; give the "
            "targets the shape of the model's outputs, for example y[:, None]."
        )
    return jnp.mean((predictions - targets) ** 2)
