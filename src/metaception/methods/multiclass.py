"""The baseline of few-shot classification: one classifier for all training classes, then a new last layer for each task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from metaception.core.learner import Learner
from metaception.learners.fresh_head import Adapts, FreshHead
from metaception.learners.initialisation import Initialisation
from metaception.methods.joint import Pretrain


@dataclass(frozen=True, kw_only=True)
class MulticlassPretrain(Pretrain):
    """Train one classifier of all training classes on random batches; at test, fine-tune it under a new last layer.

    θ ← θ − β ∇θ L(θ, batch) over all classes;  then φ = (body of θ, 0) − α∇L(…, support) of each new task, a few times.

    The model has an output for each training class, and the tasks to train on are `metaception.Batches`. The step size of the
    fine-tuning is tuned on validation tasks.

    Attributes:
        inner_rate: α where nothing tunes it.
        inner_steps: fine-tuning steps in validation; a test says how many it takes.
        adapts: what is fine-tuned: the head (the new last layer) alone, or all layers.

    Examples:
        >>> import metaception as mc
        >>> from metaception.data.sets import load_images
        >>> batches = mc.Batches(load_images("glyphs", "train"))
        >>> algorithm = mc.MulticlassPretrain().build(mc.pixels((28, 28, 1), batches.ways), batches, loss=mc.cross_entropy)
        >>> type(algorithm.learner).__name__, type(algorithm.test_learner).__name__
        ('Initialisation', 'FreshHead')

    Chen et al. 2019, section 3.1, "Baseline": Adam at 0.001 on batches of 16, then the head alone. Their fine-tuning is 100
    steps of momentum on minibatches of 4; here it is gradient descent on the whole support set.
    """

    meta_batch_size: int = 1
    inner_steps: int = 10
    adapts: Adapts = "head"

    name: ClassVar[str] = "multiclass_pretrain"
    title: ClassVar[str] = "Classifier of all classes, then fine-tuning"
    citations: ClassVar[tuple[str, ...]] = ("chen2019closer",)

    def test_learner(self, learner: Learner) -> Learner:
        assert isinstance(learner, Initialisation)
        return FreshHead(
            model=learner.model,
            loss_function=learner.loss_function,
            rate=learner.rate,
            steps=self.inner_steps,
            optimizer=learner.optimizer,
            batch_size=learner.batch_size,
            statistics=learner.statistics,
            adapts=self.adapts,
        )
