"""The baselines: one model trained on all tasks at once, fine-tuned at meta-test; and no training at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.initialisation import Initialisation
from metaception.learners.supervised import Loss
from metaception.metagrad.unroll import Unroll
from metaception.methods.method import Method


@dataclass(frozen=True)
class Pretrain(Method):
    """Joint training on every task's query examples, without an inner loop; fine-tuned at meta-test.

    The step size of the fine-tuning is tuned on validation tasks. Told the task in its inputs (`Sinusoids(told=True)`),
    this is the oracle.

    Attributes:
        inner_rate: the fine-tuning step size where nothing tunes it.

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


@dataclass(frozen=True)
class Oracle(Pretrain):
    """Joint training of a model that is told each task (amplitude and phase) beside x: what knowing the task is worth."""

    name: ClassVar[str] = "oracle"
    title: ClassVar[str] = "Oracle that is told the task"


@dataclass(frozen=True)
class RandomInitialisation(Pretrain):
    """No training at all: fine-tuning from a random initialisation. Runs with zero outer steps."""

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "Random initialisation, then fine-tuning"
