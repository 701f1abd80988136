"""The baseline that learns nothing: the label of the nearest support example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import optax

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.metric import Distance, Nearest
from metaception.learners.supervised import Loss
from metaception.metagrad.unroll import Unroll
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class NearestNeighbour(Method):
    """No training at all: a query has the label of the support example whose features are nearest.

    k(x) = yⱼ,  j = argminᵢ ‖f(x) − f(xᵢ)‖, or argmaxᵢ cos(f(x), f(xᵢ)).

    f is the model without its last layer as it is drawn, which outer steps leave as it is: the pixels of `metaception.pixels`,
    or the features of a random network. Evaluated with another method's meta-parameters, it compares what that one trained.

    Attributes:
        distance: euclidean or cosine.

    Examples:
        >>> import metaception as mc
        >>> tasks = mc.ImageTasks("glyphs")
        >>> algorithm = mc.NearestNeighbour().build(
        ...     mc.pixels((28, 28, 1), 5), tasks.train_tasks(), loss=mc.cross_entropy)
        >>> run = mc.train(algorithm, steps=0, validation=tasks.validation_tasks(), validation_tasks=2)
        >>> accuracy = run.evaluate(tasks.test_tasks(shots=1, queries=5), count=50).of("accuracy").mean
        >>> bool(accuracy[0] > 0.2)  # a guess of five classes
        True

    Vinyals et al. 2016, section 4.1, baselines "pixels" and "baseline classifier", by cosine.
    """

    distance: Distance = "euclidean"

    name: ClassVar[str] = "nearest"
    title: ClassVar[str] = "Nearest neighbour"
    citations: ClassVar[tuple[str, ...]] = ("vinyals2016matching",)

    def learner(self, model: Model, loss: Loss) -> Learner:
        return Nearest(model, loss, distance=self.distance)

    def estimator(self) -> MetaGradient:
        return Unroll()

    def outer(self, steps: int) -> optax.GradientTransformation:
        del steps
        return optax.set_to_zero()
