"""What every method's settings share, and how they are built into an algorithm."""

from __future__ import annotations

import dataclasses
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import optax

from metaception.core.algorithm import MetaAlgorithm, itself
from metaception.core.learner import GradientBased, Learner
from metaception.core.mapping import as_mapping
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model, as_model, count_parameters
from metaception.core.task import Examples, Task, TaskDistribution, as_tasks
from metaception.core.tracing import primitives
from metaception.domains.regression.losses import mean_squared_error
from metaception.learners.supervised import Loss, Statistics


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A published method: its settings, with the paper's values as defaults.

    A setting of the wrong type, or out of its range, is a ValueError where it is given.

    Attributes:
        meta_batch_size: tasks an outer step.
        outer_rate: step size of the outer optimiser, at the start.
        outer_schedule: how it changes over the run: constant, or falling to zero along a line or half a cosine.
        outer_clip: the largest size of any entry of the meta-gradient, which is cut to it; 0 for no limit.
        statistics: what batch normalisation takes its statistics from where query sets are predicted, in training and in
            tests: batch (the query set together: transductive, as in the papers), support (the support set alone) or one (each
            query joins the support set alone).
        mapping: how tasks are mapped: auto, sequential, vectorised, chunked:SIZE or sharded.
    """

    meta_batch_size: int = 25
    outer_rate: float = 1e-3
    outer_schedule: Literal["constant", "linear", "cosine"] = "constant"
    outer_clip: float = 0.0
    statistics: Statistics = "batch"
    mapping: str = "auto"

    name: ClassVar[str]
    title: ClassVar[str]
    citations: ClassVar[tuple[str, ...]]
    tunes_rate: ClassVar[bool] = False
    """Whether evaluation first tunes the inner step size on validation tasks, as for baselines without a meta-learned one."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value, hint = getattr(self, field.name), hints[field.name]
            if get_origin(hint) is Literal and value not in get_args(hint):
                near = f"expected one of {', '.join(map(str, get_args(hint)))}"
            elif hint is int and (isinstance(value, bool) or not isinstance(value, numbers.Integral)):
                near = "expected a whole number"
            elif hint is float and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
                near = "expected a number"
            else:
                continue
            raise ValueError(f"{self.name}: {field.name}={value!r}; {near}.")
        for setting, what in {"inner_rate": "step size", "outer_rate": "step size", "outer_clip": "limit"}.items():
            value = getattr(self, setting, 0.0)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{self.name}: {setting}={value}; expected a finite {what}, not negative.")
        inner_steps = getattr(self, "inner_steps", 0)
        if inner_steps < 0:
            raise ValueError(f"{self.name}: inner_steps={inner_steps}; expected 0 or more.")

    @abstractmethod
    def learner(self, model: Model, loss: Loss) -> Learner:
        """WHAT is meta-learned."""

    @abstractmethod
    def estimator(self) -> MetaGradient:
        """HOW the meta-gradient is estimated."""

    def test_learner(self, learner: Learner) -> Learner:
        """What learns held-out tasks, made of the learner of training: itself for nearly all methods."""
        return learner

    def outer(self, steps: int) -> optax.GradientTransformation:
        """The outer optimiser of a training run of `steps` outer steps."""
        adam = optax.adam(self.schedule(steps))
        return optax.chain(optax.clip(self.outer_clip), adam) if self.outer_clip else adam

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
        tasks: TaskDistribution | Callable[[Any], Task],
        *,
        loss: Loss = mean_squared_error,
        inner: optax.GradientTransformation | None = None,
        outer: optax.GradientTransformation | None = None,
        steps: int = 70_000,
        example: Any = None,
    ) -> MetaAlgorithm:
        """Assemble the algorithm.

        Args:
            model: anything that `metaception.as_model` takes.
            tasks: what to train on: a `TaskDistribution`, or a function `key -> Task` (as in `FunctionTasks`).
            loss: `(predictions, targets) -> scalar`, inside and outside.
            inner: the inner optimiser, any of optax's, instead of the method's; its updates are multiplied with `inner_rate`.
                One that takes roots of squared gradients needs a positive `eps_root` (`optax.adam(1.0, eps_root=1e-8)`).
            outer: the outer optimiser, any of optax's, instead of the method's, its rate and its schedule.
            steps: how many outer steps are planned, for methods whose outer step size is annealed.
            example: a batch of inputs, for models that find their shapes from one; the tasks' own unless given.

        Raises:
            ValueError: for settings that do not go together, and an optimiser or a loss that cannot work, before any work.

        Examples:
            >>> import metaception as mc
            >>> algorithm = mc.MAML(inner_rate=0.01).build(mc.mlp(1, 1), mc.Sinusoids())
            >>> algorithm.meta_batch_size
            25
        """
        if not callable(loss):
            raise ValueError(
                f"{self.name}: loss={loss!r}; expected a function (predictions, targets) -> scalar, for example "
                "metaception.mean_squared_error."
            )
        for what, optimizer in (("inner", inner), ("outer", outer)):
            if optimizer is not None and not isinstance(optimizer, optax.GradientTransformation):
                raise ValueError(
                    f"{self.name}: {what}={optimizer!r}; expected an optax optimiser, for example optax.adam(1e-3)."
                )
        tasks = as_tasks(tasks)
        task = jax.eval_shape(tasks.sample, jax.random.key(0))
        if example is None and isinstance(task.support, Examples):
            example = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), task.support.inputs)
        model = as_model(model, example)
        _check_outputs(self.name, model, tasks, task)
        learner = self.learner(model, loss)
        if self.statistics != "batch":
            learner = with_statistics(learner, self.statistics)
        if inner is not None:
            learner = dataclasses.replace(learner, optimizer=inner)  # type: ignore[call-arg]
        # Kernels that no task adapts are shared by all, and convolve the images of all tasks at once.
        convolutional = isinstance(learner, GradientBased) and convolves(model, task.query.inputs)
        mapping = as_mapping(self.mapping, parameters=count_parameters(model), convolutional=convolutional)
        updates = self.outer(steps) if outer is None else outer
        # Not a method of this instance where it need not be: what is compiled for it serves other settings too.
        at_test = itself if type(self).test_learner is Method.test_learner else self.test_learner
        algorithm = MetaAlgorithm(
            learner, self.estimator(), tasks, updates, self.meta_batch_size, mapping, at_test=at_test
        )
        try:
            algorithm.check()
        except TypeError:
            # Only then: a learner may give its model more than the tasks' inputs.
            _check_fit(self.name, model, task, loss)
            raise
        return algorithm


def with_statistics(learner: Learner, statistics: Statistics) -> Learner:
    """The learner with another policy of batch statistics.

    Raises:
        ValueError: for a learner that has none.
    """
    if not hasattr(learner, "statistics"):
        raise ValueError(
            f"{type(learner).__name__} has no policy of batch statistics; leave statistics={statistics!r} out."
        )
    return dataclasses.replace(learner, statistics=statistics)  # type: ignore[call-arg]


def convolves(model: Model, inputs: Any) -> bool:
    """Whether a model has convolutions, of ours or of XLA's."""
    try:
        traced = jax.make_jaxpr(lambda key, inputs: model.apply(model.init(key), inputs))(jax.random.key(0), inputs)
    except (TypeError, ValueError):
        return False  # a model that does not take these inputs is refused where all is checked
    return any("conv_general" in name or "convolution" in name for name in primitives(traced.jaxpr))


def _check_outputs(name: str, model: Model, tasks: TaskDistribution, task: Task) -> None:
    """Refuse a classifier with fewer outputs than classes: a label beyond them would silently count in no loss."""
    ways = getattr(tasks, "ways", None)
    if ways is None:
        return
    outputs = jax.eval_shape(lambda key, x: model.apply(model.init(key), x), jax.random.key(0), task.query.inputs)
    if outputs.shape[-1] < ways:
        raise ValueError(
            f"{name}: the model has {outputs.shape[-1]} outputs and the tasks have {ways} classes; make it with {ways} or more."
        )


def _check_fit(name: str, model: Model, task: Task, loss: Loss) -> None:
    """Refuse a model that cannot take the tasks' inputs, and a loss that is not one number."""
    for half, examples in task._asdict().items():
        if not isinstance(examples, Examples):
            continue
        try:
            outputs = jax.eval_shape(
                lambda key, inputs: model.apply(model.init(key), inputs), jax.random.key(0), examples.inputs
            )
        except (TypeError, ValueError) as error:
            shape = getattr(examples.inputs, "shape", None)
            hint = " Give every example a feature axis: x[..., None]." if shape is not None and len(shape) == 1 else ""
            raise ValueError(
                f"{name}: the model does not fit the tasks, whose {half} inputs have shape {shape}, one example a row.{hint} "
                f"It says: {error}"
            ) from error
        found = jax.eval_shape(loss, outputs, examples.targets)
        if getattr(found, "shape", None) != ():
            what = f"an array of shape {found.shape}" if isinstance(found, jax.ShapeDtypeStruct) else repr(found)
            raise ValueError(
                f"{name}: the loss of the {half} examples is {what}; expected one number, for example their mean."
            )
