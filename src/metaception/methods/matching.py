"""Matching networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.metric import Matching
from metaception.learners.supervised import Loss
from metaception.metagrad.unroll import Unroll
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class MatchingNet(Method):
    """Learn an embedding by whose cosine similarities the support labels, weighted, are a query's label.

    p(k | x) = Σᵢ a(x, xᵢ) [yᵢ = k],  a(x, xᵢ) = softmaxᵢ(s · cos(f(x), f(xᵢ))).

    f is the model without its last layer, of which only the number of outputs counts.

    Attributes:
        sharpness: s.

    Examples:
        >>> import jax, metaception as mc
        >>> tasks = mc.ImageTasks("glyphs").train_tasks()
        >>> algorithm = mc.MatchingNet().build(mc.pixels((28, 28, 1), 5), tasks, loss=mc.cross_entropy)
        >>> key = jax.random.key(0)
        >>> task = tasks.sample(key)
        >>> adapted = algorithm.adapt(key, algorithm.learner.init_meta(key), task.support)
        >>> algorithm.predict(adapted, task.query.inputs).shape  # log-probabilities of five classes
        (5, 5)

    Vinyals et al. 2016, equations 1 and 2, without full context embeddings (section 2.1.2): each image is embedded by itself,
    support and query by the same network. The paper prints no outer optimiser; these are the settings that all methods share.
    """

    sharpness: float = 1.0

    name: ClassVar[str] = "matching"
    title: ClassVar[str] = "Matching Networks"
    citations: ClassVar[tuple[str, ...]] = ("vinyals2016matching",)

    def learner(self, model: Model, loss: Loss) -> Learner:
        return Matching(model, loss, sharpness=jnp.asarray(self.sharpness))

    def estimator(self) -> MetaGradient:
        return Unroll()
