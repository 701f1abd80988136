"""Memory-augmented neural networks (Santoro, Bartunov, Botvinick, Wierstra & Lillicrap 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.memory import MemoryAugmented
from metaception.learners.supervised import Loss
from metaception.metagrad.unroll import Unroll
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class MANN(Method):
    """Learn to keep what a task's images are called in an external memory, and to look it up.

    An LSTM reads the support set, each image with the label of the one before; at every step its keys k are written to the
    memory and what is like them is read. A query is one step further. What adapts is the memory and the LSTM's state.

    Attributes:
        hidden: units of the LSTM.
        slots: rows of the memory.
        width: numbers a row.
        reads: heads, each of which reads and writes.
        decay: γ, what is left of a slot's usage after a step.
        sharpness: s, what similarities are multiplied with where the memory is read.

    Examples:
        >>> import jax, metaception as mc
        >>> tasks = mc.ImageTasks("glyphs").train_tasks()
        >>> algorithm = mc.MANN(hidden=16, slots=20).build(mc.pixels((28, 28, 1), 5), tasks, loss=mc.cross_entropy)
        >>> key = jax.random.key(0)
        >>> task = tasks.sample(key)
        >>> adapted = algorithm.adapt(key, algorithm.learner.init_meta(key), task.support)
        >>> algorithm.predict(adapted, task.query.inputs).shape  # logits of five classes
        (5, 5)

    Santoro et al. 2016, section 3; the sizes and γ are those of its experiments. There every step is predicted and counts in
    the loss; here the queries alone do. The paper trains by RMSProp at 1e-4; here the outer optimiser is Adam.
    """

    meta_batch_size: int = 16
    hidden: int = 200
    slots: int = 128
    width: int = 40
    reads: int = 4
    decay: float = 0.99
    sharpness: float = 1.0

    name: ClassVar[str] = "mann"
    title: ClassVar[str] = "Memory-Augmented Neural Network"
    citations: ClassVar[tuple[str, ...]] = ("santoro2016mann",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.hidden, self.width, self.reads) < 1 or self.slots < self.reads:
            raise ValueError(
                f"{self.name}: hidden={self.hidden}, width={self.width}, reads={self.reads}, slots={self.slots}; expected 1 or "
                "more of each, and as many slots as heads read, or more."
            )
        if not 0 <= self.decay <= 1:
            raise ValueError(f"{self.name}: decay={self.decay}; expected a number from 0 to 1.")

    def learner(self, model: Model, loss: Loss) -> Learner:
        return MemoryAugmented(
            model,
            loss,
            decay=jnp.asarray(self.decay),
            sharpness=jnp.asarray(self.sharpness),
            hidden=self.hidden,
            slots=self.slots,
            width=self.width,
            reads=self.reads,
        )

    def estimator(self) -> MetaGradient:
        return Unroll()
