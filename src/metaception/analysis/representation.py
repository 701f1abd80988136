"""How alike the layers of a network are before and after adaptation, and those of independently trained networks.

Each number stands beside its finite-sample floor: the same measure where the examples of one side are shuffled.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metaception.analysis.names import layer_names
from metaception.analysis.similarity import (
    Measure,
    as_rows,
    linear_cka,
    mean_cca,
    permuted_baseline,
    pwcca,
)
from metaception.core.algorithm import MetaAlgorithm
from metaception.core.learner import Learner, Meta, advance
from metaception.core.streams import stream_key
from metaception.core.task import Task, TaskDistribution, as_tasks
from metaception.learners.metric import Comparing
from metaception.learners.supervised import Supervised, apply_by

MEASURES: dict[str, Measure] = {
    "pwcca": pwcca,
    "mean_cca": mean_cca,
    "cka": linear_cka,
    "cka_debiased": functools.partial(linear_cka, estimator="debiased"),
}
"""The measures by name. PWCCA's weights are those of the first side: before adaptation, or the first network."""

MOST_ROWS = 4_000
"""Of a convolution's output only so many places are kept that images times places are at most this: neighbours say much the
same, and a singular value decomposition of all of them takes seconds."""

Layers = list[Float[Array, "_ _ _"]]
"""Of each layer [n, places, neurons]."""
Layered = Supervised | Comparing


class Similarity(NamedTuple):
    """How alike two representations are, layer by layer.

    Attributes:
        names: of the layers: 1, 2, … and `head` for the model's last.
        neurons: [layers], of the first side: channels, for a convolution.
        rows: [layers], data points a task: places of images, for a convolution.
        values: by measure (`MEASURES`), [networks, tasks, layers], a seed or a pair of networks along the first axis; not a
            number where the measure refused.
        floors: the same with the examples of the second side shuffled.
        refusals: for measure and layer, why it refused first.

    Examples:
        >>> import numpy as np
        >>> from metaception.analysis.representation import Similarity
        >>> values = {"cka": np.array([[[0.9, np.nan], [0.7, 0.5]]])}  # one network, two tasks, two layers
        >>> found = Similarity(["1", "head"], [40, 1], [100, 100], values, values, {("cka", 1): "constant"})
        >>> found.mean("cka").round(6).tolist(), found.measured("cka").tolist()
        ([0.8, 0.5], [2, 1])
    """

    names: list[str]
    neurons: list[int]
    rows: list[int]
    values: dict[str, Float[np.ndarray, "networks tasks layers"]]
    floors: dict[str, Float[np.ndarray, "networks tasks layers"]]
    refusals: dict[tuple[str, int], str]

    def mean(self, measure: str) -> Float[np.ndarray, " layers"]:
        """The mean over networks and those tasks that could be measured; not a number where none could."""
        return np.array([task.mean() if len(task) else np.nan for task in self._measured(self.values[measure])])

    def interval(self, measure: str) -> Float[np.ndarray, " layers"]:
        """The half-width of the 95 % interval of the mean over tasks, for these networks: 1.96 standard errors."""
        tasks = self._measured(self.values[measure])
        return np.array([1.96 * t.std(ddof=1) / np.sqrt(len(t)) if len(t) > 1 else np.nan for t in tasks])

    def floor(self, measure: str) -> Float[np.ndarray, " layers"]:
        """The mean floor."""
        return np.array([task.mean() if len(task) else np.nan for task in self._measured(self.floors[measure])])

    def measured(self, measure: str) -> np.ndarray:
        """In how many tasks each layer could be measured, in all networks: [layers]."""
        return np.array([len(task) for task in self._measured(self.values[measure])])

    def of(self, networks: Sequence[int]) -> Similarity:
        """The same of some of the networks, or pairs."""
        some = list(networks)
        values, floors = ({name: v[some] for name, v in each.items()} for each in (self.values, self.floors))
        return self._replace(values=values, floors=floors)

    @staticmethod
    def _measured(values: Float[np.ndarray, "networks tasks layers"]) -> list[Float[np.ndarray, " _"]]:
        means = values.mean(axis=0).T
        return [tasks[np.isfinite(tasks)] for tasks in means]


def adaptation_similarity(
    algorithm: MetaAlgorithm,
    metas: Meta,
    tasks: TaskDistribution | Callable[[Any], Task] | None = None,
    *,
    steps: int,
    count: int = 20,
    seed: int = 0,
) -> Similarity:
    """How alike each layer's output on a task's query inputs is before and after `steps` inner steps on its support set.

    Args:
        algorithm: what was trained.
        metas: its meta-parameters, with the seeds along a leading axis.
        tasks: the distribution to draw from, with many query inputs (`cca`); training's unless given.
        steps: inner steps.
        count: tasks: those that `evaluate` draws first.
        seed: which tasks.

    Returns:
        The similarities, a seed along the first axis.

    Raises:
        TypeError: for a learner that does not fit a model to examples.
        ValueError: for impossible numbers, or a model that does not tell its layers.

    Examples:
        >>> import jax, metaception as mc
        >>> from metaception.analysis.representation import adaptation_similarity
        >>> algorithm = mc.ANIL(inner_rate=0.1).build(mc.mlp(1, 1, widths=(4,), initialiser="he"), mc.Sinusoids())
        >>> metas = jax.vmap(algorithm.learner.init_meta)(jax.random.split(jax.random.key(0), 2))
        >>> tasks = mc.Sinusoids(shots=5, queries=50, grid=True)
        >>> similarity = adaptation_similarity(algorithm, metas, tasks, steps=1, count=3)
        >>> similarity.mean("cka").round(6).tolist()[0]  # the first layer does not adapt
        1.0

    Raghu et al. 2020, "Rapid Learning or Feature Reuse?", section 3.2: channels are neurons and places data points.
    """
    learner = check_adapts(algorithm.test_learner)
    if steps < 0 or count < 1:
        raise ValueError(
            f"adaptation_similarity: steps={steps}, count={count}; expected steps >= 0 and at least one task."
        )
    tasks = algorithm.tasks if tasks is None else as_tasks(tasks)
    seeds = jax.tree.leaves(metas)[0].shape[0]
    each = [jax.tree.map(lambda leaf, index=index: leaf[index], metas) for index in range(seeds)]
    keys = jax.random.split(stream_key(seed, "test"), count)
    found = [[(*_adapted(learner, meta, tasks, key, steps), key) for meta in each] for key in keys]
    return _similarity(layer_names(len(learner.model.layers or ())), found)


def network_similarity(
    networks: Sequence[tuple[MetaAlgorithm, Meta]],
    tasks: TaskDistribution | Callable[[Any], Task],
    *,
    count: int = 20,
    seed: int = 0,
) -> tuple[list[tuple[int, int]], Similarity]:
    """How alike the layers of independently trained networks are, before adaptation, on the same query inputs.

    Learners that compare features (`ProtoNet`) have no last layer; it is left out where one of the networks is theirs.

    Args:
        networks: each an algorithm and its meta-parameters (of one seed).
        tasks, count, seed: as in `adaptation_similarity`.

    Returns:
        The pairs (i, j), i < j, of places in `networks`, and their similarities, a pair along the first axis.

    Raises:
        TypeError, ValueError: as `adaptation_similarity`; and for networks that differ in their number of layers.

    Examples:
        >>> import jax, metaception as mc
        >>> from metaception.analysis.representation import network_similarity
        >>> algorithm = mc.MAML().build(mc.mlp(1, 1, widths=(4,), initialiser="he"), mc.Sinusoids())
        >>> networks = [(algorithm, algorithm.learner.init_meta(jax.random.key(seed))) for seed in range(3)]
        >>> pairs, similarity = network_similarity(networks, mc.Sinusoids(queries=50, grid=True), count=2)
        >>> pairs, similarity.values["cka"].shape
        ([(0, 1), (0, 2), (1, 2)], (3, 2, 2))

    Raghu et al. 2020, appendix; Kornblith et al. 2019, section 6.
    """
    learners = [check_layers(algorithm.learner) for algorithm, _ in networks]
    depths = [len(learner.model.layers or ()) for learner in learners]
    if len(networks) < 2 or count < 1 or len(set(depths)) > 1:
        raise ValueError(
            f"network_similarity: networks of {depths} layers, count={count}; expected two networks or more of equal depth, "
            "which are compared layer by layer, and at least one task."
        )
    tasks, pairs = as_tasks(tasks), list(itertools.combinations(range(len(networks)), 2))
    found = []
    for key in jax.random.split(stream_key(seed, "test"), count):
        outputs = [_first(one, meta, tasks, key) for one, (_, meta) in zip(learners, networks, strict=True)]
        shared = min(len(layers) for layers in outputs)
        found.append([(outputs[i][:shared], outputs[j][:shared], key) for i, j in pairs])
    return pairs, _similarity(layer_names(depths[0])[:shared], found)


def check_layers(learner: Learner) -> Layered:
    """The learner, if its network's layers can be looked at; or a refusal.

    Raises:
        TypeError: for a learner that has no network of that kind.
        ValueError: for a model that does not tell its layers.
    """
    if not isinstance(learner, Supervised | Comparing):
        raise TypeError(
            f"{type(learner).__name__} does not learn from labelled examples with a network, so there is nothing to compare "
            "layer by layer; expected a learner such as Initialisation, LearnedRates, Head or Prototypes."
        )
    if learner.model.layers is None:
        raise ValueError(
            "this model does not tell its layers; make it with metaception.sequential, or take one of metaception's networks."
        )
    return learner


def check_adapts(learner: Learner) -> Supervised:
    """The learner, if it adapts a network whose layers can be looked at; or a refusal.

    Raises:
        TypeError: for a learner that does not adapt a network's parameters by steps.
        ValueError: for a model that does not tell its layers.
    """
    learner = check_layers(learner)
    if not isinstance(learner, Supervised):
        raise TypeError(
            f"{type(learner).__name__} takes no inner step, so no layer is another one after adaptation; its layers can "
            "only be compared with those of other networks."
        )
    return learner


@eqx.filter_jit
def _adapted(
    learner: Supervised, meta: Meta, tasks: TaskDistribution, key: PRNGKeyArray, steps: int
) -> tuple[Layers, Layers]:
    """Every layer's output on the query inputs before and after adaptation; randomness as in `evaluate`."""
    key_task, key_curve = jax.random.split(key)
    key_adapt, _ = jax.random.split(key_curve)
    key_init, key_steps = jax.random.split(key_adapt)
    task = tasks.sample(key_task)
    before = learner.init(key_init, meta, task.support)
    after, _ = advance(learner, key_steps, meta, before, task.support, length=steps)
    first, last = (_outputs(learner, learner.whole(meta, state.parameters), task) for state in (before, after))
    return first, last


@eqx.filter_jit
def _first(learner: Layered, meta: Meta, tasks: TaskDistribution, key: PRNGKeyArray) -> Layers:
    """Every layer's output on the query inputs before adaptation; of an embedding, all that it has."""
    if isinstance(learner, Supervised):
        return _adapted(learner, meta, tasks, key, 0)[0]
    return _outputs(learner, meta, tasks.sample(jax.random.split(key)[0]))


def _outputs(learner: Layered, parameters: PyTree, task: Task) -> Layers:
    """Every layer's output on the query inputs, with batch statistics as `predict` has them."""
    model, inputs = learner.model, task.query.inputs

    def layers(inputs: Any, reference: int | None) -> list[Array]:
        if isinstance(learner, Supervised):
            return model.activations(parameters, inputs, reference)
        body = (model.layers or ())[:-1]
        outputs = itertools.accumulate(
            zip(body, parameters, strict=False), lambda x, layer: layer[0](layer[1], x, reference), initial=inputs
        )
        return list(outputs)[1:]

    def apply(reference: Any, inputs: Any) -> Array:
        # All layers side by side, because a policy of batch statistics is one of rows.
        both, rows = (inputs, None) if reference is None else (jnp.concatenate([reference, inputs]), len(reference))
        return jnp.concatenate([output.reshape(len(output), -1) for output in layers(both, rows)], axis=1)[rows:]

    shapes = [output.shape for output in jax.eval_shape(lambda: layers(inputs, None))]
    ends = np.cumsum([math.prod(shape[1:]) for shape in shapes])[:-1]
    outputs = jnp.split(apply_by(learner.statistics, apply, task.support.inputs, inputs), ends, axis=1)
    return [_places(output.reshape(shape)) for output, shape in zip(outputs, shapes, strict=True)]


def _places(output: Float[Array, "n ..."]) -> Float[Array, "n places neurons"]:
    """At most `MOST_ROWS` places of all images together: the same ones wherever the shape is the same."""
    flat = output.reshape(output.shape[0], -1, output.shape[-1])
    most = max(1, MOST_ROWS // flat.shape[0])
    if flat.shape[1] <= most:
        return flat
    return flat[:, np.sort(np.random.default_rng(0).choice(flat.shape[1], most, replace=False))]


def _similarity(names: list[str], found: list[list[tuple[Layers, Layers, PRNGKeyArray]]]) -> Similarity:
    """From the two sides of every task and network, in this order."""
    first = [np.asarray(layer) for layer in found[0][0][0]]
    shape = (len(found[0]), len(found), len(first))
    values, floors = ({name: np.full(shape, np.nan) for name in MEASURES} for _ in range(2))
    refusals: dict[tuple[str, int], str] = {}
    for task, networks in enumerate(found):
        for network, (xs, ys, key) in enumerate(networks):
            for layer, (x, y) in enumerate(zip(xs, ys, strict=True)):
                for name, measure in MEASURES.items():

                    def of_rows(x: Any, y: Any, measure: Measure = measure) -> float:
                        return measure(as_rows(x), as_rows(y))

                    try:
                        values[name][network, task, layer] = of_rows(x, y)
                        floors[name][network, task, layer] = permuted_baseline(of_rows, x, y, key, 1)[0]
                    except ValueError as refusal:
                        refusals.setdefault((name, layer), str(refusal))
    rows = [layer.shape[0] * layer.shape[1] for layer in first]
    return Similarity(names, [layer.shape[-1] for layer in first], rows, values, floors, refusals)
