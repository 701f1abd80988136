"""No inner loop (Raghu, Raghu, Bengio & Vinyals 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from metaception.core.learner import Learner
from metaception.learners.head import Head
from metaception.learners.metric import Matching
from metaception.methods.anil import ANIL


@dataclass(frozen=True, kw_only=True)
class NIL(ANIL):
    """Train as ANIL, then drop the head: held-out tasks are learned without a step, by comparing features.

    p(k | x) = Σᵢ a(x, xᵢ) [yᵢ = k],  a(x, xᵢ) = softmaxᵢ(cos(f(x), f(xᵢ))), f the trained body.

    Training and its losses are ANIL's; validation, tests and whatever else adapts to new tasks are by comparison.

    Examples:
        >>> import jax, metaception as mc
        >>> tasks = mc.ImageTasks("glyphs").train_tasks()
        >>> algorithm = mc.NIL().build(mc.dense_net((28, 28, 1), 5, widths=(8,)), tasks, loss=mc.cross_entropy)
        >>> type(algorithm.learner).__name__, type(algorithm.test_learner).__name__
        ('Head', 'Matching')

    Raghu et al. 2020, section 5, who weigh the labels "as in Vinyals et al. (2016)". Inner settings are those of training.
    """

    name: ClassVar[str] = "nil"
    title: ClassVar[str] = "No Inner Loop"
    citations: ClassVar[tuple[str, ...]] = ("raghu2020anil", "vinyals2016matching")

    def test_learner(self, learner: Learner) -> Learner:
        assert isinstance(learner, Head)
        return Matching(learner.model, learner.loss_function, statistics=learner.statistics)
