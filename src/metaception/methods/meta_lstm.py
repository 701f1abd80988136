"""The LSTM meta-learner (Ravi & Larochelle 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.lstm_optimizer import LSTMOptimizer
from metaception.learners.supervised import Loss
from metaception.metagrad.first_order import FirstOrder
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class MetaLSTM(Method):
    """Learn the initialisation and the update rule: an LSTM whose cell state is the model's parameters.

    Attributes:
        inner_rate: what the input gates, which are the step sizes, start from.
        forget: what the forget gates, which are the decays, start from.
        hidden: units, a coordinate, of the LSTM that reads gradients and losses.
        inner_steps: steps on the support set; the paper takes 12 for one shot, 5 for five.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> algorithm = mc.MetaLSTM(hidden=2).build(mc.mlp(1, 1), mc.Sinusoids(shots=5))
        >>> meta = algorithm.learner.init_meta(jax.random.key(0))
        >>> [round(float(jax.nn.sigmoid(gate.bias)), 3) for gate in (meta.rule.input, meta.rule.forget)]
        [0.01, 0.99]

    Ravi & Larochelle 2017, algorithm 1 and section 3; what the learner reads is held fixed (section 3.3, the "gradient
    independence assumption"). The paper prints no first values of the gates; the authors' code draws both biases, for 0.007 to
    0.018 and 0.982 to 0.993. It clips the norm of the meta-gradient at 0.25, and here every entry is cut there.
    """

    meta_batch_size: int = 1
    outer_clip: float = 0.25
    inner_rate: float = 0.01
    forget: float = 0.99
    hidden: int = 20
    inner_steps: int = 12

    name: ClassVar[str] = "meta_lstm"
    title: ClassVar[str] = "LSTM meta-learner"
    citations: ClassVar[tuple[str, ...]] = ("ravi2017lstm",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for setting in ("inner_rate", "forget"):
            if not 0 < getattr(self, setting) < 1:
                raise ValueError(f"{self.name}: {setting}={getattr(self, setting)}; a gate starts between 0 and 1.")
        if self.hidden < 1:
            raise ValueError(f"{self.name}: hidden={self.hidden}; the LSTM needs at least one unit.")

    def learner(self, model: Model, loss: Loss) -> Learner:
        return LSTMOptimizer(
            model=model,
            loss_function=loss,
            rate=jnp.asarray(self.inner_rate),
            steps=self.inner_steps,
            forget=jnp.asarray(self.forget),
            hidden=self.hidden,
        )

    def estimator(self) -> MetaGradient:
        return FirstOrder()
