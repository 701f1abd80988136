"""Families of regression tasks on the line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metaception.core.family import Family
from metaception.core.task import Examples, Task, TaskDistribution
from metaception.domains.regression.losses import mean_squared_error

Range = tuple[float, float]


class Curves(TaskDistribution, Family):
    """Tasks y = f(x) on an interval, where a family says how f is drawn: the points, the noise and the grid.

    Attributes:
        shots: support points.
        queries: query points.
        inputs: the interval that x is drawn from, uniformly.
        grid: the query points stand evenly over the interval, both ends included, instead of being drawn.
    """

    shots: eqx.AbstractVar[int]
    queries: eqx.AbstractVar[int]
    inputs: eqx.AbstractVar[Range]
    grid: eqx.AbstractVar[bool]

    measure: ClassVar[str] = "mse"

    def train_tasks(self) -> TaskDistribution:
        return self

    def validation_tasks(self) -> TaskDistribution:
        return self

    def test_tasks(self, shots: int, queries: int) -> TaskDistribution:
        changes: dict[str, Any] = {"shots": shots, "queries": queries, "grid": True}
        return dataclasses.replace(self, **changes)

    def tuning_tasks(self, shots: int, queries: int) -> TaskDistribution:
        return self.test_tasks(shots, queries)

    def shapes(self) -> TaskDistribution:
        return self

    @property
    def loss(self) -> Any:
        return mean_squared_error

    def __check_init__(self) -> None:
        if self.shots < 1 or self.queries < 1:
            raise ValueError(
                f"{type(self).__name__}: shots={self.shots}, queries={self.queries}; a task needs at least one of each."
            )
        for name in ("inputs", "amplitude", "phase", "frequency", "slope", "intercept"):
            interval = getattr(self, name, (0.0, 0.0))
            if not isinstance(interval, tuple | list) or len(interval) != 2:
                raise ValueError(f"{type(self).__name__}: {name}={interval!r}; expected (low, high).")
            low, high = interval
            if not -math.inf < low <= high < math.inf:
                raise ValueError(
                    f"{type(self).__name__}: {name}=({low}, {high}); expected (low, high), low first, both finite."
                )
        noise = getattr(self, "noise", 0.0)
        if not 0 <= noise < math.inf:
            raise ValueError(f"{type(self).__name__}: noise={noise}; expected a finite standard deviation, 0 or more.")

    def points(
        self,
        key: PRNGKeyArray,
        function: Callable[[Float[Array, " n"]], Float[Array, " n"]],
        noise: Float[Array, ""] | float,
        *,
        clean_query: bool = False,
    ) -> Task:
        """Draw the points of one task whose curve is `function`; `noise` is the standard deviation on the targets."""
        key_support, key_query, key_noise = jax.random.split(key, 3)
        low, high = self.inputs
        support = jax.random.uniform(key_support, (self.shots,), minval=low, maxval=high)
        if self.grid:
            query = jnp.linspace(low, high, self.queries)
        else:
            query = jax.random.uniform(key_query, (self.queries,), minval=low, maxval=high)
        x = jnp.concatenate([support, query])
        y = function(x)
        if not (isinstance(noise, float) and noise == 0.0):
            drawn = noise * jax.random.normal(key_noise, y.shape)
            y = y + (jnp.where(jnp.arange(y.size) < self.shots, drawn, 0.0) if clean_query else drawn)
        x, y = x[:, None], y[:, None]
        return Task(Examples(x[: self.shots], y[: self.shots]), Examples(x[self.shots :], y[self.shots :]))


def _uniform(key: PRNGKeyArray, interval: Range) -> Float[Array, ""]:
    return jax.random.uniform(key, (), minval=interval[0], maxval=interval[1])


class Sinusoids(Curves):
    """y = A sin(ωx − φ) + noise, with A, φ and ω drawn uniformly for each task.

    The defaults are those of Finn et al. 2017, section 5.1. `Sinusoids.reptile` and `Sinusoids.bayesian_maml` are those of
    the other papers.

    Args:
        shots: support points K.
        queries: query points.
        amplitude: range of A.
        phase: range of φ, in radians.
        frequency: range of ω, in radians a unit of x.
        inputs: range of x.
        noise: standard deviation of the noise on the targets, as a share of A.
        clean_query: no noise on the query targets.
        grid: query points evenly over `inputs`, for evaluation.
        told: append A and φ to every input (three inputs): the oracle that is told the task.

    Examples:
        >>> import jax, metaception as mc
        >>> mc.Sinusoids(shots=5).sample(jax.random.key(0)).support.inputs.shape
        (5, 1)
    """

    shots: int = eqx.field(static=True, default=10)
    queries: int = eqx.field(static=True, default=10)
    amplitude: Range = eqx.field(static=True, default=(0.1, 5.0))
    phase: Range = eqx.field(static=True, default=(0.0, 3.141592653589793))
    frequency: Range = eqx.field(static=True, default=(1.0, 1.0))
    inputs: Range = eqx.field(static=True, default=(-5.0, 5.0))
    noise: float = eqx.field(static=True, default=0.0)
    clean_query: bool = eqx.field(static=True, default=False)
    grid: bool = eqx.field(static=True, default=False)
    told: bool = eqx.field(static=True, default=False)

    def citations(self) -> tuple[str, ...]:
        keys = ["finn2017maml"]
        if self.phase[1] > math.pi + 1e-6:
            keys.append("nichol2018reptile")
        if self.frequency != (1.0, 1.0):
            keys.append("yoon2018bmaml")
        return tuple(keys)

    @classmethod
    def reptile(cls, shots: int = 10, queries: int = 10) -> Sinusoids:
        """The family of Nichol et al. 2018, section 5: the phase goes to 2π."""
        return cls(shots, queries, phase=(0.0, 6.283185307179586))

    @classmethod
    def bayesian_maml(cls, shots: int = 10, queries: int = 10) -> Sinusoids:
        """The family of Yoon et al. 2018, section 5.1: ω in [0.5, 2], φ to 2π, noise 0.01 A on the support targets."""
        return cls(shots, queries, phase=(0.0, 6.283185307179586), frequency=(0.5, 2.0), noise=0.01, clean_query=True)

    def sample(self, key: PRNGKeyArray) -> Task:
        key_amplitude, key_phase, key_frequency, key_points = jax.random.split(key, 4)
        amplitude = _uniform(key_amplitude, self.amplitude)
        phase = _uniform(key_phase, self.phase)
        frequency = _uniform(key_frequency, self.frequency)
        task = self.points(
            key_points,
            lambda x: amplitude * jnp.sin(frequency * x - phase),
            self.noise and self.noise * amplitude,
            clean_query=self.clean_query,
        )
        if not self.told:
            return task

        def tell(examples: Examples) -> Examples:
            said = jnp.broadcast_to(jnp.stack([amplitude, phase]), (examples.inputs.shape[0], 2))
            return Examples(jnp.concatenate([examples.inputs, said], axis=1), examples.targets)

        return Task(tell(task.support), tell(task.query))


class Lines(Curves):
    """y = slope · x + intercept + noise, both drawn uniformly for each task.

    Args:
        shots, queries, inputs, grid: as in `Sinusoids`.
        slope, intercept: their ranges; the defaults are those of Finn et al. 2018 (PLATIPUS).
        noise: standard deviation of the noise on the targets.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> query = mc.Lines(slope=(2.0, 2.0), intercept=(1.0, 1.0)).sample(jax.random.key(0)).query
        >>> bool(jnp.allclose(query.targets, 2 * query.inputs + 1, atol=1e-4))
        True
    """

    shots: int = eqx.field(static=True, default=5)
    queries: int = eqx.field(static=True, default=10)
    slope: Range = eqx.field(static=True, default=(-3.0, 3.0))
    intercept: Range = eqx.field(static=True, default=(-3.0, 3.0))
    inputs: Range = eqx.field(static=True, default=(-5.0, 5.0))
    noise: float = eqx.field(static=True, default=0.0)
    grid: bool = eqx.field(static=True, default=False)

    def citations(self) -> tuple[str, ...]:
        return ("finn2018platipus",)

    def sample(self, key: PRNGKeyArray) -> Task:
        key_slope, key_intercept, key_points = jax.random.split(key, 3)
        slope, intercept = _uniform(key_slope, self.slope), _uniform(key_intercept, self.intercept)
        return self.points(key_points, lambda x: slope * x + intercept, self.noise)


class SinusoidsAndLines(Curves):
    """Half of the tasks are sinusoids, half are lines, all with the same noise: ambiguous from a few points.

    Args:
        shots, queries, inputs, grid: as in `Sinusoids`.
        amplitude, phase, slope, intercept: the ranges of the two families.
        noise: standard deviation of the noise on the targets.

    Examples:
        >>> import jax, metaception as mc
        >>> tasks = mc.SinusoidsAndLines(amplitude=(1.0, 1.0), slope=(0.0, 0.0), intercept=(2.0, 2.0), noise=0.0)
        >>> drawn = [tasks.sample(jax.random.key(seed)).query.targets for seed in range(30)]
        >>> sorted({"line" if (y == 2).all() else "sinusoid" for y in drawn})
        ['line', 'sinusoid']

    Finn et al. 2018, "Probabilistic Model-Agnostic Meta-Learning", section 6.
    """

    shots: int = eqx.field(static=True, default=5)
    queries: int = eqx.field(static=True, default=10)
    amplitude: Range = eqx.field(static=True, default=(0.1, 5.0))
    phase: Range = eqx.field(static=True, default=(0.0, 3.141592653589793))
    slope: Range = eqx.field(static=True, default=(-3.0, 3.0))
    intercept: Range = eqx.field(static=True, default=(-3.0, 3.0))
    inputs: Range = eqx.field(static=True, default=(-5.0, 5.0))
    noise: float = eqx.field(static=True, default=0.3)
    grid: bool = eqx.field(static=True, default=False)

    def citations(self) -> tuple[str, ...]:
        return ("finn2018platipus",)

    def sample(self, key: PRNGKeyArray) -> Task:
        key_kind, key_amplitude, key_phase, key_slope, key_intercept, key_points = jax.random.split(key, 6)
        is_line = jax.random.bernoulli(key_kind)
        amplitude, phase = _uniform(key_amplitude, self.amplitude), _uniform(key_phase, self.phase)
        slope, intercept = _uniform(key_slope, self.slope), _uniform(key_intercept, self.intercept)

        def curve(x: Float[Array, " n"]) -> Float[Array, " n"]:
            return jnp.where(is_line, slope * x + intercept, amplitude * jnp.sin(x - phase))

        return self.points(key_points, curve, self.noise)
