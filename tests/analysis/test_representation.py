"""How alike layers are: identities that hold exactly, and independent networks near what chance gives."""

import dataclasses
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaception as mc
from metaception.analysis import representation
from metaception.analysis.representation import MEASURES, adaptation_similarity, network_similarity
from metaception.analysis.similarity import cca, linear_cka
from metaception.core.streams import stream_key

# Tanh: no unit is dead on the grid, and 5 units stay far below its 60 points.
MODEL = mc.mlp(1, 1, widths=(5, 5), activation="tanh", initialiser="he")
GRID = mc.Sinusoids(shots=5, queries=60, grid=True)
GLYPHS = mc.ImageTasks("glyphs")


def metas(algorithm, seeds=2):
    return jax.vmap(algorithm.learner.init_meta)(jax.random.split(jax.random.key(3), seeds))


def images(method, **model):
    settings = {"filters": 4, "blocks": 2, **model}
    return method.build(mc.conv_net((28, 28, 1), 5, **settings), GLYPHS.train_tasks(), loss=GLYPHS.loss)


def test_without_a_step_every_layer_is_as_it_was():
    algorithm = mc.MAML(inner_rate=0.1).build(MODEL, mc.Sinusoids())
    similarity = adaptation_similarity(algorithm, metas(algorithm), GRID, steps=0, count=3)
    assert (similarity.neurons, similarity.rows) == ([5, 5, 1], [60, 60, 60])
    for name in MEASURES:
        np.testing.assert_allclose(similarity.values[name], np.ones((2, 3, 3)), atol=1e-9)
        assert (similarity.floor(name) < 0.6).all()


@pytest.mark.parametrize("statistics", ["batch", "one"])
def test_a_body_that_does_not_adapt_is_as_it_was_and_the_head_is_not(statistics):
    """ANIL's body is frozen, whichever batch its normalisation takes statistics from."""
    algorithm = images(mc.ANIL(inner_rate=30.0))
    learner = dataclasses.replace(algorithm.learner, statistics=statistics)
    algorithm = dataclasses.replace(algorithm, learner=learner)
    similarity = adaptation_similarity(algorithm, metas(algorithm, 1), GLYPHS.test_tasks(1, 10), steps=1, count=2)
    assert similarity.neurons == [4, 4, 5]
    for name in MEASURES:
        mean = similarity.mean(name)
        np.testing.assert_allclose(mean[:2], 1, atol=1e-9)
    assert similarity.mean("cka")[2] < 0.98


def test_what_adapts_changes_and_less_so_for_smaller_steps():
    def body(rate):
        algorithm = mc.MAML(inner_rate=rate).build(MODEL, mc.Sinusoids())
        return adaptation_similarity(algorithm, metas(algorithm), GRID, steps=1, count=4).mean("cka")[1]

    assert body(0.3) < body(0.03) < body(0.003) < 1


def test_values_are_those_of_the_adapted_network_on_the_query_inputs():
    """By hand: the tasks and randomness of `evaluate`, activations by `Model.activations`."""
    algorithm = mc.Reptile(inner_rate=0.1, inner_steps=2, inner_batch_size=2).build(MODEL, mc.Sinusoids())
    meta = metas(algorithm)
    similarity = adaptation_similarity(algorithm, meta, GRID, steps=2, count=2, seed=7)
    learner, theta = algorithm.learner, jax.tree.map(lambda leaf: leaf[1], meta)
    key_task, key_curve = jax.random.split(jax.random.split(stream_key(7, "test"), 2)[1])
    task = GRID.sample(key_task)
    adapted = learner.adapt(jax.random.split(key_curve)[0], theta, task.support)
    before, after = (MODEL.activations(parameters, task.query.inputs) for parameters in (theta, adapted))
    expected = [linear_cka(x, y) for x, y in zip(before, after, strict=True)]
    np.testing.assert_allclose(similarity.values["cka"][1, 1], expected, rtol=1e-5)
    expected = [cca(x, y).mean() for x, y in zip(before, after, strict=True)]
    np.testing.assert_allclose(similarity.values["mean_cca"][1, 1], expected, atol=1e-3)


def test_images_are_compared_place_by_place_and_shuffled_whole():
    algorithm = images(mc.MAML(inner_rate=0.1))
    tasks = GLYPHS.test_tasks(1, 10)
    similarity = adaptation_similarity(algorithm, metas(algorithm, 1), tasks, steps=1, count=1)
    # 50 images of 14 × 14 places, of which 4000 / 50 = 80 are kept, then of 7 × 7; the head has a row an image.
    assert similarity.rows == [4000, 2450, 50]
    # Places alone would shuffle to a debiased CKA of zero; what all images share at the same place stays.
    assert (similarity.floor("cka_debiased")[:2] > 0.01).all()


def test_places_are_thinned_alike():
    output = jnp.arange(100 * 9 * 9 * 2.0).reshape(100, 9, 9, 2)
    thinned = representation._places(output)
    assert thinned.shape == (100, 40, 2)
    assert set(np.asarray(thinned[5]).ravel().tolist()) < set(np.asarray(output[5]).ravel().tolist())
    np.testing.assert_array_equal(representation._places(-output), -thinned)
    assert representation._places(output[:3]).shape == (3, 81, 2)


def test_equal_networks_are_alike_and_independent_ones_less():
    algorithm = mc.MAML().build(MODEL, mc.Sinusoids())
    other = mc.Reptile().build(MODEL, mc.Sinusoids())
    one, two = (algorithm.learner.init_meta(jax.random.key(seed)) for seed in (0, 1))
    pairs, similarity = network_similarity([(algorithm, one), (other, one), (algorithm, two)], GRID, count=2)
    assert pairs == [(0, 1), (0, 2), (1, 2)]
    for name in MEASURES:
        np.testing.assert_allclose(similarity.values[name][0], 1, atol=1e-9)
        np.testing.assert_array_equal(similarity.values[name][1], similarity.values[name][2])
    assert similarity.of([1]).mean("cka")[1] < 0.95


def test_networks_that_say_nothing_of_each_other_are_at_the_floor():
    """Linear layers of Gaussian inputs, of which each network sees a half of its own."""

    def sample(key):
        x = jax.random.normal(key, (200, 40))
        return mc.Task(mc.Examples(x[:2], x[:2, :1]), mc.Examples(x, x[:, :1]))

    def network(half):
        def init(key):
            return [jax.random.normal(key, (20, 10)), jnp.ones((10, 1))]

        def first(weight, x, reference):
            return x[:, half] @ weight

        def last(weight, x, reference):
            return x @ weight

        return mc.MAML().build(mc.sequential(init, [first, last]), sample)

    networks = [network(half) for half in (slice(0, 20), slice(20, 40))]
    both = [(algorithm, algorithm.learner.init_meta(jax.random.key(i))) for i, algorithm in enumerate(networks)]
    _, similarity = network_similarity(both, sample, count=40)
    for name in MEASURES:
        apart = similarity.mean(name) - similarity.floor(name)
        # Both are means over 40 tasks; four standard errors of each.
        spread = [each[name][0].std(axis=0, ddof=1) for each in (similarity.values, similarity.floors)]
        assert (np.abs(apart) < 4 * np.hypot(*spread) / np.sqrt(40)).all()
    assert similarity.mean("mean_cca")[0] > 0.15  # chance, which is why the floor stands beside it


def test_dead_and_too_wide_layers_are_left_out_with_the_reason():
    model = mc.mlp(1, 1, widths=(4, 30), activation="tanh", initialiser="he")
    algorithm = mc.MAML(inner_rate=0.1).build(model, mc.Sinusoids())
    meta = metas(algorithm, 1)
    # Nothing leaves the first layer.
    dead = eqx.tree_at(lambda m: m[0], meta, jax.tree.map(jnp.zeros_like, meta[0]))
    similarity = adaptation_similarity(algorithm, dead, GRID, steps=0, count=2)
    assert np.isnan(similarity.mean("cka")).all()
    assert "is constant over the examples" in similarity.refusals["cka", 0]
    few = mc.Sinusoids(shots=5, queries=8, grid=True)
    similarity = adaptation_similarity(algorithm, meta, few, steps=1, count=2)
    assert similarity.measured("pwcca")[1] == 0
    assert re.search(r"pwcca: .*give more than \d+ examples", similarity.refusals["pwcca", 1])
    assert similarity.measured("cka").tolist() == [2, 2, 2]
    assert np.isfinite(similarity.mean("cka")).all()


def test_statistics_are_over_tasks_that_could_be_measured():
    values = {
        "cka": np.array([[[0.2], [0.4], [np.nan]], [[0.4], [0.6], [0.9]]])
    }  # two networks, three tasks, one layer
    similarity = representation.Similarity(["1"], [1], [9], values, values, {})
    assert similarity.mean("cka") == pytest.approx([0.4])
    # Task means 0.3 and 0.5: a standard deviation of √0.02, a standard error of 0.1.
    assert similarity.interval("cka") == pytest.approx([0.196])
    assert similarity.measured("cka").tolist() == [2]
    assert similarity.of([1]).mean("cka") == pytest.approx([1.9 / 3])


def test_refusals_before_any_work():
    algorithm = mc.MAML().build(mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x), mc.Sinusoids())
    with pytest.raises(ValueError, match=r"does not tell its layers; make it with metaception.sequential"):
        adaptation_similarity(algorithm, metas(algorithm), steps=1)
    algorithm = mc.MAML().build(MODEL, mc.Sinusoids())
    with pytest.raises(ValueError, match=r"steps=-1, count=20; expected steps >= 0"):
        adaptation_similarity(algorithm, metas(algorithm), steps=-1)
    shallow = mc.MAML().build(mc.mlp(1, 1, widths=(5,)), mc.Sinusoids())
    networks = [(each, each.learner.init_meta(jax.random.key(0))) for each in (algorithm, shallow)]
    with pytest.raises(ValueError, match=r"networks of \[3, 2\] layers.*equal depth"):
        network_similarity(networks, GRID)
    with pytest.raises(ValueError, match="two networks or more"):
        network_similarity(networks[:1], GRID)


def test_a_learner_without_a_network_is_refused():
    class Mean(mc.Learner):
        def init_meta(self, key):
            return jnp.zeros(())

        def adapt(self, key, meta, data):
            return data.targets.mean()

        def loss(self, key, meta, adapted, task):
            return jnp.zeros(()), {}

        def predict(self, adapted, inputs):
            return adapted

    with pytest.raises(
        TypeError, match=r"Mean does not learn from labelled examples with a network.*Initialisation, LearnedRates"
    ):
        representation.check_layers(Mean())


def test_a_learner_that_compares_features_has_a_body_but_does_not_adapt():
    maml, protonet = images(mc.MAML()), images(mc.ProtoNet())
    whole = maml.learner.init_meta(jax.random.key(0))
    _, similarity = network_similarity([(maml, whole), (protonet, whole[:2])], GLYPHS.test_tasks(1, 10), count=1)
    assert (similarity.names, similarity.neurons) == (["1", "2"], [4, 4])
    np.testing.assert_allclose(similarity.values["cka"], 1, atol=1e-9)
    with pytest.raises(TypeError, match="Prototypes takes no inner step"):
        adaptation_similarity(protonet, metas(protonet), GLYPHS.test_tasks(1, 10), steps=1)
