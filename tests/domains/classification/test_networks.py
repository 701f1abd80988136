"""The papers' networks: their sizes, their normalisation by hand, and what each policy of batch statistics depends on."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaception as mc
from metaception.domains.classification.networks import max_pool, normalise

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(KEY, (6, 8, 8, 1))


def test_sizes_are_the_papers():
    """By hand. Omniglot: 9·1·64 + 3·9·64² and two numbers a filter a block, 64·5 + 5. mini-ImageNet: 5·5·32 features."""
    omniglot = 9 * 64 + 3 * 9 * 64**2 + 4 * 2 * 64 + 64 * 5 + 5
    mini = 9 * 3 * 32 + 3 * 9 * 32**2 + 4 * 2 * 32 + 800 * 5 + 5
    assert mc.count_parameters(mc.conv_net((28, 28, 1), 5)) == omniglot == 112_005
    assert (
        mc.count_parameters(mc.conv_net((84, 84, 3), 5, filters=32, downsampling="max_pool", readout="flatten")) == mini
    )


def test_the_shape_of_every_layer():
    model = mc.conv_net((84, 84, 3), 5, filters=2, downsampling="max_pool", readout="flatten")
    shapes = jax.eval_shape(lambda key: model.activations(model.init(key), jnp.zeros((3, 84, 84, 3))), KEY)
    assert [a.shape for a in shapes] == [(3, 42, 42, 2), (3, 21, 21, 2), (3, 10, 10, 2), (3, 5, 5, 2), (3, 5)]


@pytest.mark.parametrize(("by", "axes"), [("batch", (0, 1, 2)), ("layer", (1, 2, 3))])
def test_normalisation_is_by_the_axes_of_its_name(by, axes):
    x = 3 + 2 * jax.random.normal(KEY, (4, 5, 6, 16))
    expected = (x - np.mean(x, axes, keepdims=True)) / np.sqrt(np.var(x, axes, keepdims=True) + 1e-3)
    np.testing.assert_allclose(normalise(x, by), expected, rtol=1e-3, atol=1e-4)


def test_group_normalisation_is_layer_normalisation_of_each_group():
    x = jax.random.normal(KEY, (3, 4, 4, 16)) + jnp.arange(16)
    grouped = normalise(x, "group")
    for group in range(8):
        part = slice(2 * group, 2 * group + 2)
        np.testing.assert_allclose(grouped[..., part], normalise(x[..., part], "layer"), rtol=1e-3, atol=1e-4)


def test_a_reference_gives_its_own_statistics_to_all_rows():
    x = jax.random.normal(KEY, (5, 2, 2, 3)) * jnp.arange(1.0, 6.0)[:, None, None, None]
    mean, variance = np.mean(x[:2], (0, 1, 2)), np.var(x[:2], (0, 1, 2))
    np.testing.assert_allclose(normalise(x, "batch", 2), (x - mean) / np.sqrt(variance + 1e-3), rtol=1e-4, atol=1e-5)


def test_pooling_is_the_largest_of_four_and_leaves_the_odd_row_out():
    x = jax.random.normal(KEY, (2, 5, 4, 3))
    expected = np.asarray(x)[:, :4].reshape(2, 2, 2, 2, 2, 3).max(axis=(2, 4))
    np.testing.assert_array_equal(max_pool(x), expected)


@pytest.mark.parametrize("reference", [None, 2])
def test_pooling_before_normalisation_is_pooling_after_it(float64, reference):
    """One block with scales of both signs, against its definition: value and second derivatives."""
    key_images, key_scale, key_model = jax.random.split(jax.random.key(0), 3)
    model = mc.conv_net((5, 6, 2), 3, filters=8, blocks=1, downsampling="max_pool", readout="flatten")
    first, last = jax.tree.map(lambda a: a.astype(jnp.float64), model.init(key_model))
    first["scale"] = jax.random.normal(key_scale, (8,), jnp.float64)
    assert 0 < jnp.sum(first["scale"] < 0) < 8
    images = jax.random.normal(key_images, (4, 5, 6, 2), jnp.float64)

    def defined(first):
        x = normalise(mc.convolve(images, first["kernel"]), "batch", reference) * first["scale"] + first["shift"]
        return jax.nn.relu(max_pool(x)).reshape(4, -1) @ last["weight"] + last["bias"]

    def ours(first):
        return model.activations([first, last], images, reference)[-1]

    def second(outputs):
        gradient = jax.grad(lambda first: jnp.sum(outputs(first) ** 3))
        return jax.grad(lambda first: sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient(first))))

    np.testing.assert_allclose(ours(first), defined(first), atol=1e-11)
    both = (jax.tree.leaves(jax.jit(second(outputs))(first)) for outputs in (ours, defined))
    for mine, other in zip(*both, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9)


def test_equal_arguments_are_one_model_and_wrong_ones_are_refused():
    assert mc.conv_net((8, 8, 1), 5) is mc.conv_net([8, 8, 1], 5)
    with pytest.raises(ValueError, match="nothing of an image of 8×12"):
        mc.conv_net((8, 12, 1), 5, downsampling="max_pool")
    with pytest.raises(ValueError, match="6 filters do not split into 8 groups"):
        mc.conv_net((8, 8, 1), 5, filters=6, normalisation="group")
    with pytest.raises(ValueError, match=r"conv_net: image=\(8, 8\)"):
        mc.conv_net((8, 8), 5)


@pytest.fixture(scope="module")
def learner():
    model = mc.conv_net((8, 8, 1), 2, filters=4, blocks=2)
    return mc.Initialisation(model, mc.cross_entropy, jnp.array(0.1), steps=1)


def predictions(learner, support, inputs):
    examples = mc.Examples(support, jnp.array([0, 1, 0]))
    return learner.predict(learner.adapt(KEY, learner.init_meta(KEY), examples), inputs)


def test_batch_statistics_are_transductive_and_the_others_are_not(learner):
    """A query's prediction moves with the queries beside it by `batch` alone."""
    support, inputs = IMAGES[:3], IMAGES[3:]
    changed = inputs.at[0].set(1 - inputs[0])
    for statistics, moves in (("batch", True), ("support", False), ("one", False)):
        before, after = (predictions(replace(learner, statistics=statistics), support, x) for x in (inputs, changed))
        assert bool(jnp.allclose(before[1:], after[1:], atol=1e-6)) != moves


def test_the_support_itself_is_predicted_as_it_was_in_training(learner):
    """By `support`, the support images get the very statistics that the inner loop had."""
    adapted = learner.adapt(KEY, learner.init_meta(KEY), mc.Examples(IMAGES[:3], jnp.array([0, 1, 0])))
    expected = learner.model.apply(adapted, IMAGES[:3])
    np.testing.assert_allclose(
        predictions(replace(learner, statistics="support"), IMAGES[:3], IMAGES[:3]), expected, rtol=1e-5
    )


def test_one_at_a_time_each_input_joins_the_support(learner):
    adapted = learner.adapt(KEY, learner.init_meta(KEY), mc.Examples(IMAGES[:3], jnp.array([0, 1, 0])))
    expected = [learner.model.apply(adapted, jnp.concatenate([IMAGES[:3], x[None]]))[-1] for x in IMAGES[3:]]
    np.testing.assert_allclose(
        predictions(replace(learner, statistics="one"), IMAGES[:3], IMAGES[3:]),
        jnp.stack(expected),
        rtol=1e-4,
        atol=1e-5,
    )
