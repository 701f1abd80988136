"""Learners that adapt without a step: they compare what a network makes of a query with what it makes of the support set.

The embedding is the model without its last layer, of which only the number of outputs is read: the most classes that a task
may have. The meta-parameters are those of the embedding alone.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.core.learner import Adapted, Aux, Learner, Meta
from metaception.core.model import Model
from metaception.core.task import Examples, Task
from metaception.learners.supervised import Loss, Statistics, features_by, judge

NEVER = -1e9
"""The score of a class that has no support example. Finite, so that a product with zero is zero."""
EPSILON = 1e-12
"""What is added to a squared norm before its root, so that features that are all zero have a direction to differentiate."""

Distance = Literal["euclidean", "cosine"]


class References(NamedTuple):
    """What queries are compared with.

    Attributes:
        parameters: the embedding's.
        features: [references, features].
        labels: [references, classes], one-hot; all zero where the reference is absent.
        support: the support inputs, where the embedding of a query reads them (`statistics`); else None.
    """

    parameters: PyTree
    features: Float[Array, "references features"]
    labels: Float[Array, "references classes"]
    support: Any


class Comparing(Learner):
    """A learner of an embedding; what its classes say is how they choose references, and what they make of similarities.

    Attributes:
        model: the model, whose layers must be known (`metaception.sequential`).
        loss_function: `(scores, targets) -> scalar`, the outer loss.
        statistics: what batch normalisation takes its statistics from where queries are embedded. The support set is always
            embedded by its own.
    """

    model: eqx.AbstractVar[Model]
    loss_function: eqx.AbstractVar[Loss]
    statistics: eqx.AbstractVar[Statistics]

    @abstractmethod
    def scores(self, features: Float[Array, "n features"], references: References) -> Float[Array, "n classes"]:
        """The logits of embedded queries."""

    def choose(
        self, features: Float[Array, "shots features"], labels: Float[Array, "shots classes"]
    ) -> tuple[Float[Array, "references features"], Float[Array, "references classes"]]:
        """The features and labels that queries are compared with: those of the whole embedded support set."""
        return features, labels

    def init_meta(self, key: PRNGKeyArray) -> Meta:
        return self.model.body(self.model.init(key))

    def adapt(self, key: PRNGKeyArray, meta: Meta, data: Examples) -> References:
        """The embedded support set. Meta-parameters of the whole model do too: the last layer's are not read."""
        del key
        outputs = jax.eval_shape(lambda key: self.model.apply(self.model.init(key), data.inputs), jax.random.key(0))
        features = self.model.features(meta, data.inputs)
        labels = jax.nn.one_hot(data.targets, outputs.shape[-1], dtype=features.dtype)
        support = None if self.statistics == "batch" else data.inputs
        return References(meta, *self.choose(features, labels), support)

    def loss(self, key: PRNGKeyArray, meta: Meta, adapted: Adapted, task: Task) -> tuple[Float[Array, ""], Aux]:
        del key, meta
        return judge(self.loss_function, self.predict(adapted, task.query.inputs), task.query.targets)

    def predict(self, adapted: References, inputs: Any) -> Float[Array, "n classes"]:
        features = features_by(self.statistics, self.model, adapted.parameters, adapted.support, inputs)
        return self.scores(features, adapted)


class Prototypes(Comparing):
    """Each class is the mean of its embedded support examples, its logit minus the squared Euclidean distance to it.

    p(k | x) = softmaxₖ(−‖f(x) − cₖ‖²),  cₖ = mean of f(xᵢ) over the support examples of class k.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> scale, last = lambda w, x, reference: w * x, lambda w, x, reference: x @ w
        >>> model = mc.sequential(lambda key: [jnp.array(1.0), jnp.ones((1, 2))], [scale, last])  # two classes
        >>> learner = mc.Prototypes(model, mc.cross_entropy)
        >>> key, support = jax.random.key(0), mc.Examples(jnp.array([[0.0], [2.0], [5.0]]), jnp.array([0, 0, 1]))
        >>> adapted = learner.adapt(key, learner.init_meta(key), support)  # prototypes 1 and 5
        >>> learner.predict(adapted, jnp.array([[2.0]])).tolist()
        [[-1.0, -9.0]]

    Snell et al. 2017, equations 1 and 2.
    """

    model: Model
    loss_function: Loss = eqx.field(static=True)
    statistics: Statistics = eqx.field(static=True, default="batch")

    def choose(
        self, features: Float[Array, "shots features"], labels: Float[Array, "shots classes"]
    ) -> tuple[Float[Array, "references features"], Float[Array, "references classes"]]:
        counts = jnp.sum(labels, axis=0)
        means = labels.T @ features / jnp.maximum(counts, 1)[:, None]
        return means, jnp.diag((counts > 0).astype(means.dtype))

    def scores(self, features: Float[Array, "n features"], references: References) -> Float[Array, "n classes"]:
        return jnp.where(jnp.diag(references.labels) > 0, similarity(features, references.features, "euclidean"), NEVER)


class Matching(Comparing):
    """A query's label is the mean of all support labels, weighted by attention: the softmax of the cosine similarities.

    p(k | x) = Σᵢ a(x, xᵢ) [yᵢ = k],  a(x, xᵢ) = softmaxᵢ(s · cos(f(x), f(xᵢ))). `sharpness` is s, 1 in the papers.
    What is predicted are log-probabilities.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> scale, last = lambda w, x, reference: w * x, lambda w, x, reference: x @ w
        >>> model = mc.sequential(lambda key: [jnp.array(1.0), jnp.ones((2, 2))], [scale, last])  # two classes
        >>> learner = mc.Matching(model, mc.cross_entropy, sharpness=jnp.log(4.0))
        >>> key, support = jax.random.key(0), mc.Examples(jnp.array([[1.0, 0.0], [0.0, 3.0]]), jnp.array([0, 1]))
        >>> adapted = learner.adapt(key, learner.init_meta(key), support)
        >>> [round(float(p), 3) for p in jnp.exp(learner.predict(adapted, jnp.array([[2.0, 0.0]])))[0]]  # 4¹ to 4⁰
        [0.8, 0.2]

    Vinyals et al. 2016, equations 1 and 2, without full context embeddings: f and g are the same network and see one image.
    """

    model: Model
    loss_function: Loss = eqx.field(static=True)
    sharpness: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.ones(()))
    statistics: Statistics = eqx.field(static=True, default="batch")

    def scores(self, features: Float[Array, "n features"], references: References) -> Float[Array, "n classes"]:
        weights = self.sharpness * similarity(features, references.features, "cosine")
        # In logarithms throughout: what a probability near zero rounds to has none.
        return jax.nn.log_softmax(jax.nn.logsumexp(of_each_class(weights, references.labels), axis=1))


class Nearest(Comparing):
    """A query has the label of its nearest support example. A class's logit is the similarity to the nearest of its own.

    The similarity is minus the squared Euclidean distance, or the cosine.

    Examples:
        >>> import jax, jax.numpy as jnp, metaception as mc
        >>> model = mc.pixels((2, 2, 1), ways=2)
        >>> learner = mc.Nearest(model, mc.cross_entropy)
        >>> support = mc.Examples(jnp.stack([jnp.zeros((2, 2, 1)), jnp.ones((2, 2, 1))]), jnp.array([0, 1]))
        >>> key, query = jax.random.key(0), jnp.full((1, 2, 2, 1), 0.25)
        >>> learner.predict(learner.adapt(key, learner.init_meta(key), support), query).tolist()  # −4 · 0.25², −4 · 0.75²
        [[-0.25, -2.25]]
    """

    model: Model
    loss_function: Loss = eqx.field(static=True)
    distance: Distance = eqx.field(static=True, default="euclidean")
    statistics: Statistics = eqx.field(static=True, default="batch")

    def scores(self, features: Float[Array, "n features"], references: References) -> Float[Array, "n classes"]:
        near = similarity(features, references.features, self.distance)
        return jnp.max(of_each_class(near, references.labels), axis=1)


def similarity(
    features: Float[Array, "n features"], references: Float[Array, "references features"], distance: Distance
) -> Float[Array, "n references"]:
    """Minus the squared Euclidean distance of every pair, or the cosine of the angle between them."""
    if distance == "cosine":
        return _directions(features) @ _directions(references).T
    squares = jnp.sum(features**2, axis=1)[:, None] + jnp.sum(references**2, axis=1)
    # As a matrix product: the differences of all pairs would be n · references · features numbers.
    return 2 * features @ references.T - squares


def of_each_class(
    similarities: Float[Array, "n references"], labels: Float[Array, "references classes"]
) -> Float[Array, "n references classes"]:
    """The similarities to the references of each class, and `NEVER` to those that are not of it."""
    return jnp.where(labels > 0, similarities[:, :, None], NEVER)


def _directions(features: Float[Array, "n features"]) -> Float[Array, "n features"]:
    return features * jax.lax.rsqrt(jnp.sum(features**2, axis=1, keepdims=True) + EPSILON)
