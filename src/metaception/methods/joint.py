"""The baselines: one model trained on all tasks at once, fine-tuned at meta-test; and no training at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import optax

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.initialisation import Initialisation
from metaception.learners.supervised import Loss
from metaception.metagrad.unroll import Unroll
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class Pretrain(Method):
    """Joint training on every task's query examples, without an inner loop; fine-tuned at meta-test.

    The step size of the fine-tuning is tuned on validation tasks. Told the task in its inputs (`Sinusoids(told=True)`),
    this is the oracle.

    Attributes:
        inner_rate: the fine-tuning step size where nothing tunes it.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> one = mc.Examples(jnp.array([[1.0]]), jnp.array([[4.0]]))
        >>> algorithm = mc.Pretrain().build(line, mc.Lines())
        >>> estimate = algorithm.meta_gradient(jax.random.key(0), jnp.array(0.0), mc.Task(one, one))
        >>> float(estimate.gradient)  # of the query loss (w − 4)² at w = 0: no inner step comes before
        -8.0

    Finn et al. 2017, section 5.1.
    """

    inner_rate: float = 0.01

    name: ClassVar[str] = "pretrain"
    title: ClassVar[str] = "Pretraining on all tasks, then fine-tuning"
    citations: ClassVar[tuple[str, ...]] = ("finn2017maml",)
    tunes_rate: ClassVar[bool] = True

    def learner(self, model: Model, loss: Loss) -> Learner:
        return Initialisation(model=model, loss_function=loss, rate=jnp.asarray(self.inner_rate), steps=0)

    def estimator(self) -> MetaGradient:
        return Unroll()


@dataclass(frozen=True, kw_only=True)
class Oracle(Pretrain):
    """Joint training of a model that is told each task (amplitude and phase) beside x: what knowing the task is worth.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> sine = mc.Model(lambda key: jnp.array(1.0), lambda w, x: w * x[:, 1:2] * jnp.sin(x[:, :1] - x[:, 2:]))
        >>> algorithm = mc.Oracle().build(sine, mc.Sinusoids(told=True))  # the inputs are x, amplitude and phase
        >>> query = algorithm.tasks.sample(jax.random.key(0)).query
        >>> bool(jnp.allclose(algorithm.predict(jnp.array(1.0), query.inputs), query.targets, atol=1e-4))  # without adapting
        True
    """

    name: ClassVar[str] = "oracle"
    title: ClassVar[str] = "Oracle that is told the task"


@dataclass(frozen=True, kw_only=True)
class RandomInitialisation(Pretrain):
    """No training at all: fine-tuning from a random initialisation, which outer steps leave as it is.

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> line = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
        >>> x, y = jnp.array([[[1.0]]]), jnp.array([[[4.0]]])  # a single task of one example
        >>> algorithm = mc.RandomInitialisation(inner_rate=0.25).build(line, mc.ArrayTasks(x, y, x, y))
        >>> run = mc.train(algorithm, steps=0, validation=algorithm.tasks)
        >>> run.evaluate(algorithm.tasks, steps=3).mean.tolist()  # from w = 0 to 2, 3 and 3.5: the losses are (w − 4)²
        [16.0, 4.0, 1.0, 0.25]
    """

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "Random initialisation, then fine-tuning"

    def outer(self, steps: int) -> optax.GradientTransformation:
        del steps
        return optax.set_to_zero()
