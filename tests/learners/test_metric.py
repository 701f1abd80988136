"""Learners that compare: prototypes, attention and nearest neighbours against plain loops, and what they must not depend on."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaception as mc
from metaception.learners.metric import NEVER

KEY = jax.random.key(0)
WAYS = 3
NETWORK = mc.dense_net((3, 3, 1), WAYS, widths=(6,), normalisation="none")
LEARNERS = {
    "prototypes": mc.Prototypes(NETWORK, mc.cross_entropy),
    "matching": mc.Matching(NETWORK, mc.cross_entropy),
    "nearest": mc.Nearest(NETWORK, mc.cross_entropy),
    "nearest by cosine": mc.Nearest(NETWORK, mc.cross_entropy, distance="cosine"),
}
every_learner = pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)


def images(seed, count):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(count, 3, 3, 1)), jnp.float32)


# In no order, and not as many of each class.
SUPPORT = mc.Examples(images(0, 6), jnp.array([2, 0, 1, 0, 2, 0]))
QUERIES = images(1, 7)


@eqx.filter_jit
def predictions(learner, support, inputs, meta=None):
    meta = learner.init_meta(KEY) if meta is None else meta
    return learner.predict(learner.adapt(KEY, meta, support), inputs)


def embedded(inputs):
    """The network's features, by hand: one hidden layer of rectified units."""
    layer = jax.tree.map(np.asarray, NETWORK.init(KEY)[0])
    return np.maximum(np.asarray(inputs).reshape(len(inputs), -1) @ layer["weight"] + layer["bias"], 0)


def test_prototypes_are_the_means_of_their_classes():
    features, labels = embedded(SUPPORT.inputs), np.asarray(SUPPORT.targets)
    expected = [
        [-np.sum((query - features[labels == k].mean(axis=0)) ** 2) for k in range(WAYS)] for query in embedded(QUERIES)
    ]
    np.testing.assert_allclose(predictions(LEARNERS["prototypes"], SUPPORT, QUERIES), expected, rtol=1e-4, atol=1e-5)


def test_matching_weighs_the_labels():
    features, labels = embedded(SUPPORT.inputs), np.asarray(SUPPORT.targets)
    learner = replace(LEARNERS["matching"], sharpness=jnp.array(3.0))
    expected = []
    for query in embedded(QUERIES):
        cosines = features @ query / np.linalg.norm(features, axis=1) / np.linalg.norm(query)
        weights = np.exp(3 * cosines) / np.exp(3 * cosines).sum()
        expected.append([weights[labels == k].sum() for k in range(WAYS)])
    said = jnp.exp(predictions(learner, SUPPORT, QUERIES))
    np.testing.assert_allclose(said, expected, rtol=1e-4)
    np.testing.assert_allclose(said.sum(axis=1), 1.0, rtol=1e-5)


def test_matching_knows_a_support_image_when_it_sees_it():
    learner = replace(LEARNERS["matching"], sharpness=jnp.array(1e4))
    said = jnp.exp(predictions(learner, SUPPORT, SUPPORT.inputs))
    np.testing.assert_allclose(said, jax.nn.one_hot(SUPPORT.targets, WAYS), atol=1e-3)


@pytest.mark.parametrize("name", ["nearest", "nearest by cosine"])
def test_nearest_neighbours_by_a_plain_loop(name):
    features, queries = embedded(SUPPORT.inputs), embedded(QUERIES)
    if name == "nearest":
        nearest = [np.argmin(np.linalg.norm(features - query, axis=1)) for query in queries]
    else:
        nearest = [np.argmax(features @ query / np.linalg.norm(features, axis=1)) for query in queries]
    said = predictions(LEARNERS[name], SUPPORT, QUERIES).argmax(axis=1)
    np.testing.assert_array_equal(said, SUPPORT.targets[np.array(nearest)])
    assert len(set(said.tolist())) > 1


def test_with_one_shot_prototypes_are_nearest_neighbours():
    one_shot = mc.Examples(SUPPORT.inputs[:3], SUPPORT.targets[:3])
    prototypes, nearest = (predictions(LEARNERS[name], one_shot, QUERIES) for name in ("prototypes", "nearest"))
    np.testing.assert_array_equal(prototypes.argmax(axis=1), nearest.argmax(axis=1))


@every_learner
def test_absent_rows_change_nothing(learner):
    more = mc.Examples(
        jnp.concatenate([SUPPORT.inputs, images(2, 3)]), jnp.concatenate([SUPPORT.targets, jnp.full(3, -1)])
    )
    expected, said = (predictions(learner, support, QUERIES) for support in (SUPPORT, more))
    np.testing.assert_allclose(said, expected, rtol=1e-5, atol=1e-6)


@every_learner
def test_a_class_without_support_is_never_predicted(learner):
    """So a model of more outputs than a task has classes does as well, and the gradient stays finite."""
    few = SUPPORT._replace(targets=jnp.where(SUPPORT.targets == 2, 0, SUPPORT.targets))
    said = predictions(learner, few, QUERIES)
    assert float(said[:, 2].max()) < NEVER / 2
    task = mc.Task(few, mc.Examples(QUERIES, jnp.array([0, 1, 1, 0, 0, 1, 0])))
    gradient = jax.grad(lambda meta: learner.loss(KEY, meta, learner.adapt(KEY, meta, task.support), task)[0])
    leaves = jax.tree.leaves(jax.jit(gradient)(learner.init_meta(KEY)))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)
    assert any(float(jnp.abs(leaf).max()) > 0 for leaf in leaves)


@every_learner
def test_the_last_layer_is_no_part_of_it(learner):
    """Its parameters are not meta-parameters, and those of a whole model, trained elsewhere, do as well."""
    whole = NETWORK.init(KEY)
    assert jax.tree.structure(learner.init_meta(KEY)) == jax.tree.structure(whole[:-1])
    np.testing.assert_array_equal(
        predictions(learner, SUPPORT, QUERIES), predictions(learner, SUPPORT, QUERIES, meta=whole)
    )


@pytest.mark.parametrize(("statistics", "moves"), [("batch", True), ("support", False), ("one", False)])
def test_batch_statistics_of_queries(statistics, moves):
    """A query's prediction moves with the queries beside it by `batch` alone."""
    network = mc.dense_net((3, 3, 1), WAYS, widths=(6,))
    learner = mc.Prototypes(network, mc.cross_entropy, statistics=statistics)
    changed = QUERIES.at[0].set(1 - QUERIES[0])
    before, after = (predictions(learner, SUPPORT, inputs)[1:] for inputs in (QUERIES, changed))
    assert bool(jnp.allclose(before, after, atol=1e-5)) != moves


def test_by_the_supports_statistics_a_support_image_lies_where_adaptation_saw_it():
    network = mc.dense_net((3, 3, 1), WAYS, widths=(6,))
    learner = mc.Nearest(network, mc.cross_entropy, statistics="support")
    said = predictions(learner, SUPPORT, SUPPORT.inputs)
    np.testing.assert_allclose(said.max(axis=1), 0.0, atol=1e-4)  # at no distance from itself
    np.testing.assert_array_equal(said.argmax(axis=1), SUPPORT.targets)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["prototypes", "matching"])
def test_the_meta_gradient_against_differences(name):
    learner = LEARNERS[name]
    task = mc.Task(SUPPORT, mc.Examples(QUERIES, jnp.array([0, 1, 2, 0, 2, 1, 0])))
    meta = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), learner.init_meta(KEY))
    direction = jax.tree.map(jnp.cos, meta)
    mc.Unroll().check(learner, meta, task)

    @jax.jit
    def loss(shift):
        moved = jax.tree.map(lambda m, d: m + shift * d, meta, direction)
        return learner.loss(KEY, moved, learner.adapt(KEY, moved, task.support), task)[0]

    gradient = jax.jit(lambda meta: mc.Unroll().estimate(KEY, learner, meta, (), task)[0].gradient)(meta)
    along = sum(float(jnp.vdot(g, d)) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    assert along == pytest.approx(float(loss(1e-5) - loss(-1e-5)) / 2e-5, rel=1e-6)
    assert abs(along) > 1e-3
