"""Prototypical networks (Snell, Swersky & Zemel 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import optax

from metaception.core.learner import Learner
from metaception.core.metagradient import MetaGradient
from metaception.core.model import Model
from metaception.learners.metric import Prototypes
from metaception.learners.supervised import Loss
from metaception.metagrad.unroll import Unroll
from metaception.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class ProtoNet(Method):
    """Learn an embedding in which a class is near the mean of its support examples.

    p(k | x) = softmaxₖ(−‖f(x) − cₖ‖²),  cₖ = mean of f(xᵢ) over the support examples of class k.

    f is the model without its last layer, of which only the number of outputs counts. It may be more than a test task has
    classes: the paper trains on tasks of more classes (60) than it tests on (5 and 20), which is a setting of the tasks.

    Attributes:
        halve_every: outer steps after which the outer step size is halved, again and again; 0 for never.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> scale, last = lambda w, x, reference: w * x, lambda w, x, reference: x @ w
        >>> model = mc.sequential(lambda key: [jnp.array(1.0), jnp.ones((1, 2))], [scale, last])  # two classes
        >>> support = mc.Examples(jnp.array([[0.0], [1.0]]), jnp.array([0, 1]))
        >>> task = mc.Task(support, mc.Examples(jnp.array([[1.0]]), jnp.array([1])))
        >>> algorithm = mc.ProtoNet().build(model, lambda key: task._replace(
        ...     query=mc.Examples(jax.random.normal(key, (1, 1)), jnp.array([1]))), loss=mc.cross_entropy)
        >>> estimate = algorithm.meta_gradient(jax.random.key(0), [jnp.array(1.0)], task)
        >>> round(float(estimate.gradient[0]), 3)  # of log(1 + e^(−w²)) at w = 1: −2 / (1 + e)
        -0.538

    Snell et al. 2017, algorithm 1; one task an outer step and Adam, 0.001 halved every 2,000 tasks, are section 3.1's. They
    embed support and query images in one batch, with the running batch statistics at test; here each set has its own.
    """

    meta_batch_size: int = 1
    halve_every: int = 2000

    name: ClassVar[str] = "protonet"
    title: ClassVar[str] = "Prototypical Networks"
    citations: ClassVar[tuple[str, ...]] = ("snell2017prototypical",)

    def learner(self, model: Model, loss: Loss) -> Learner:
        return Prototypes(model, loss)

    def estimator(self) -> MetaGradient:
        return Unroll()

    def outer(self, steps: int) -> optax.GradientTransformation:
        adam = super().outer(steps)
        if self.halve_every < 1:
            return adam
        halving = optax.exponential_decay(1.0, self.halve_every, 0.5, staircase=True)
        return optax.chain(adam, optax.scale_by_schedule(halving))
