"""Batch normalisation by statistics of each inner step: what they are, where they go, and that nothing else goes in."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaception as mc
from metaception.core.streams import stream_key
from metaception.domains.classification.networks import EPSILON
from metaception.runs.preset import MetaTest
from metaception.runs.presets import PRESETS
from metaception.runs.testing import meta_test

KEY = jax.random.key(0)
TASKS = mc.ImageTasks("glyphs", ways=2, queries=3)


def algorithm(method=None, network=None):
    network = network or mc.conv_net((28, 28, 1), 2, filters=3, blocks=2)
    method = method or mc.MAML(inner_rate=0.4, inner_steps=2, meta_batch_size=2)
    return method.build(network, TASKS.train_tasks(), loss=mc.cross_entropy)


def metas(made, seeds=2):
    return jax.vmap(made.learner.init_meta)(jax.random.split(KEY, seeds))


def test_they_are_the_means_over_training_tasks_of_what_each_step_takes():
    """The first layer's, by hand: of its convolution of the query images, with the parameters after 0, 1 and 2 steps."""
    made = algorithm()
    start = metas(made)
    tested, with_moments = mc.per_step_statistics(made, start, steps=2, count=3)
    assert type(tested.learner) is mc.PerStep
    for seed in range(2):
        meta = jax.tree.map(lambda leaf, seed=seed: leaf[seed], start)
        found = []
        for key in jax.random.split(stream_key(0, "train"), 3):
            key_task, key_init, key_steps = jax.random.split(key, 3)
            task = TASKS.train_tasks().sample(key_task)
            state, row = made.learner.init(key_init, meta, task.support), []
            for step in range(3):
                if step:
                    state = made.learner.step(key_steps, meta, state, task.support)
                x = np.asarray(mc.convolve(task.query.inputs, state.parameters[0]["kernel"], stride=2))
                row.append((x.mean((0, 1, 2)), x.var((0, 1, 2))))
            found.append(row)
        expected = np.mean(np.array(found), axis=0)  # [steps, (mean, variance), channels]
        for kind in range(2):
            np.testing.assert_allclose(with_moments.moments[0][kind][seed], expected[:, kind], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "network",
    [
        mc.conv_net((28, 28, 1), 2, filters=3, blocks=2),
        mc.conv_net((28, 28, 1), 2, filters=3, blocks=2, downsampling="max_pool", readout="flatten"),
        mc.dense_net((28, 28, 1), 2, widths=(4, 3)),
        mc.resnet12((28, 28, 1), 2, widths=(2, 3)),
    ],
    ids=["stride", "pooling", "dense", "residual"],
)
def test_a_batchs_own_moments_give_what_the_batch_gives(network):
    parameters = network.init(KEY)
    images = jax.random.uniform(KEY, (6, 28, 28, 1))
    moments = network.moments(parameters, images)
    own = network.apply_with(parameters, images, moments)
    np.testing.assert_allclose(own, network.apply(parameters, images), rtol=1e-4, atol=1e-5)
    # And no image depends on the others then.
    alone = jnp.concatenate([network.apply_with(parameters, image[None], moments) for image in images])
    np.testing.assert_allclose(alone, own, rtol=1e-4, atol=1e-5)


def test_a_given_mean_and_variance_are_what_is_normalised_by():
    network = mc.dense_net((1, 2, 1), 2, widths=(2,))
    parameters = network.init(KEY)
    parameters[0]["weight"] = jnp.eye(2)
    mean, variance = jnp.array([1.0, -1.0]), jnp.array([4.0, 0.25])
    x = jnp.array([[3.0, 0.0]])
    hidden = (x - mean) / jnp.sqrt(variance + EPSILON)
    expected = hidden @ parameters[1]["weight"] + parameters[1]["bias"]
    outputs = network.apply_with(parameters, x.reshape(1, 1, 2, 1), [(mean, variance)])
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)


def test_each_step_has_its_own_and_later_ones_the_last():
    tested, with_moments = mc.per_step_statistics(algorithm(), metas(algorithm(), 1), steps=1, count=2)
    meta = jax.tree.map(lambda leaf: leaf[0], with_moments)
    task = TASKS.test_tasks(1, 2).sample(KEY)
    state = tested.learner.init(KEY, meta, task.support)
    for expected in (0, 1, 1):
        _, own = tested.learner.output(meta, state)
        np.testing.assert_array_equal(own[0][0], meta.moments[0][0][expected])
        state = tested.learner.step(KEY, meta, state, task.support)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (mc.ProtoNet(meta_batch_size=2), "Prototypes does not adapt a model by steps"),
        (mc.MAML(statistics="support", meta_batch_size=2), "has the policy 'support'; give"),
    ],
)
def test_learners_that_it_makes_no_sense_for_are_refused(method, message):
    made = algorithm(method)
    with pytest.raises(ValueError, match=message):
        mc.per_step_statistics(made, metas(made, 1), steps=1)


def test_a_run_is_tested_by_them_by_name():
    preset = PRESETS["anil-glyphs"]
    preset = dataclasses.replace(
        preset,
        tasks=TASKS,
        network=dataclasses.replace(preset.network, filters=2, blocks=1),
        method=dataclasses.replace(preset.method, meta_batch_size=2, inner_steps=1),
        test=MetaTest(test_shots=(1,), test_steps=1, test_tasks=4, test_queries=2, test_statistics="per_step"),
    )
    run = mc.train(preset.build(), steps=1, validation=TASKS.validation_tasks(), validation_tasks=1)
    results = meta_test(run, preset)
    assert results.statistics == "per_step"
    tested, moments = mc.per_step_statistics(run.algorithm, run.metas(), steps=1)
    expected = mc.evaluate(tested, moments, TASKS.test_tasks(1, 2), steps=1, count=4).of("accuracy")
    np.testing.assert_allclose(results.curves[0]["mean"], expected.mean)
