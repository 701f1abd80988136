"""What every method's settings share, and how they are built into an algorithm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import optax

from metaception.core.algorithm import MetaAlgorithm
from metaception.core.learner import Learner
from metaception.core.mapping import as_mapping
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model, as_model, count_parameters
from metaception.core.task import TaskDistribution
from metaception.learners.supervised import Loss, mean_squared_error


@dataclass(frozen=True)
class Method(ABC):
    """A published method: its settings, with the paper's values as defaults.

    Attributes:
        meta_batch_size: tasks an outer step.
        outer_rate: step size of the outer optimiser, at the start.
        outer_schedule: how it changes over the run: constant, or falling to zero along a line or half a cosine.
        mapping: how tasks are mapped: auto, sequential, vectorised, chunked:SIZE or sharded.
    """

    meta_batch_size: int = 25
    outer_rate: float = 1e-3
    outer_schedule: Literal["constant", "linear", "cosine"] = "constant"
    mapping: str = "auto"

    name: ClassVar[str]
    title: ClassVar[str]
    citations: ClassVar[tuple[str, ...]]
    tunes_rate: ClassVar[bool] = False
    """Whether evaluation first tunes the inner step size on validation tasks, as for baselines without a meta-learned one."""

    @abstractmethod
    def learner(self, model: Model, loss: Loss) -> Learner:
        """WHAT is meta-learned."""

    @abstractmethod
    def estimator(self) -> MetaGradient:
        """HOW the meta-gradient is estimated."""

    def outer(self, steps: int) -> optax.GradientTransformation:
        """The outer optimiser of a training run of `steps` outer steps."""
        return optax.adam(self.schedule(steps))

    def schedule(self, steps: int) -> float | optax.Schedule:
        """The outer step size over a run of `steps` outer steps."""
        if self.outer_schedule == "linear":
            return optax.linear_schedule(self.outer_rate, 0.0, max(1, steps))
        if self.outer_schedule == "cosine":
            return optax.cosine_decay_schedule(self.outer_rate, max(1, steps))
        return self.outer_rate

    def build(
        self,
        model: Any,
        tasks: TaskDistribution,
        *,
        loss: Loss = mean_squared_error,
        steps: int = 70_000,
        example: Any = None,
    ) -> MetaAlgorithm:
        """Assemble the algorithm.

        Args:
            model: anything that `metaception.as_model` takes.
            tasks: what to train on.
            loss: `(predictions, targets) -> scalar`, inside and outside.
            steps: how many outer steps are planned, for methods whose outer step size is annealed.
            example: a batch of inputs, for models that find their shapes from one.

        Raises:
            ValueError: for settings that cannot work, before any work starts.

        Example:
            >>> import metaception as mc
            >>> algorithm = mc.MAML(inner_rate=0.01).build(mc.mlp(1, 1), mc.Sinusoids())
            >>> algorithm.meta_batch_size
            25
        """
        self._check()
        model = as_model(model, example)
        learner = self.learner(model, loss)
        mapping = as_mapping(self.mapping, parameters=count_parameters(model))
        algorithm = MetaAlgorithm(learner, self.estimator(), tasks, self.outer(steps), self.meta_batch_size, mapping)
        try:
            algorithm.check()
        except TypeError as error:
            shape = jax.eval_shape(tasks.sample, jax.random.key(0)).support.inputs.shape
            hint = " Give every example a feature axis: x[..., None]." if len(shape) == 1 else ""
            raise ValueError(
                f"{self.name}: the model does not fit the tasks, whose inputs have shape {shape}, one example a row.{hint} "
                f"It says: {error}"
            ) from error
        return algorithm

    def _check(self) -> None:
        for setting in ("inner_rate", "outer_rate"):
            value = getattr(self, setting, 0.0)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{self.name}: {setting}={value}; expected a finite step size, not negative.")
        inner_steps = getattr(self, "inner_steps", 0)
        if inner_steps < 0:
            raise ValueError(f"{self.name}: inner_steps={inner_steps}; expected 0 or more.")
