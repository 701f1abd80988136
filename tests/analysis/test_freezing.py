"""Frozen layers at meta-test: the ends are plain evaluation and no adaptation, the middle is other learners' own."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metaception as mc
from metaception.analysis.freezing import Frozen, change, evaluate_frozen

MODEL = mc.mlp(1, 1, widths=(6, 6), initialiser="he")
TEST = mc.Sinusoids(shots=5, queries=20, grid=True)
SETTINGS = {"steps": 2, "count": 7, "seed": 5}
METHODS = {
    "maml": mc.MAML(inner_rate=0.01),
    "meta_sgd": mc.MetaSGD(inner_rate=0.01),
    "reptile": mc.Reptile(inner_rate=0.01, inner_steps=2, inner_batch_size=2),  # Adam, minibatches
    "anil": mc.ANIL(inner_rate=0.01),
}


def build(method, model=MODEL):
    algorithm = method.build(model, mc.Sinusoids())
    return algorithm, jax.vmap(algorithm.learner.init_meta)(jax.random.split(jax.random.key(0), 2))


@pytest.mark.parametrize("name", METHODS)
def test_none_is_plain_evaluation_and_all_is_no_adaptation(name):
    algorithm, metas = build(METHODS[name])
    frozen, plain = evaluate_frozen(algorithm, metas, TEST, **SETTINGS), mc.evaluate(algorithm, metas, TEST, **SETTINGS)
    assert frozen.losses.shape == (2, 7, 4)
    np.testing.assert_allclose(frozen.losses[..., 0], plain.losses[..., -1], rtol=1e-5)
    np.testing.assert_allclose(frozen.losses[..., 3], plain.losses[..., 0], rtol=1e-5)
    assert not np.allclose(frozen.losses[..., 2], frozen.losses[..., 3], rtol=1e-2)


def test_a_frozen_body_is_anil():
    """MAML's meta-parameters with all but the head frozen are what the learner of ANIL makes of them."""
    algorithm, metas = build(METHODS["maml"])
    frozen = evaluate_frozen(algorithm, metas, TEST, **SETTINGS)
    head = mc.evaluate(build(METHODS["anil"])[0], metas, TEST, **SETTINGS)
    np.testing.assert_allclose(frozen.losses[..., 2], head.losses[..., -1], rtol=1e-5)
    assert not np.allclose(frozen.losses[..., 2], frozen.losses[..., 0], rtol=1e-2)


def test_freezing_the_first_layer_is_a_learner_of_the_others():
    def part(parameters):
        return [jax.tree.map(lambda _, index=index: index > 0, layer) for index, layer in enumerate(parameters)]

    algorithm, metas = build(METHODS["maml"])
    learner = mc.Head(MODEL, mc.mean_squared_error, jnp.array(0.01), 2, part=part)
    frozen = evaluate_frozen(algorithm, metas, TEST, **SETTINGS)
    rest = mc.evaluate(dataclasses.replace(algorithm, learner=learner), metas, TEST, **SETTINGS)
    np.testing.assert_allclose(frozen.losses[..., 1], rest.losses[..., -1], rtol=1e-5)


def test_freezing_anils_body_changes_nothing():
    algorithm, metas = build(METHODS["anil"])
    frozen = evaluate_frozen(algorithm, metas, TEST, **SETTINGS)
    np.testing.assert_array_equal(frozen.losses[..., :3], np.repeat(frozen.losses[..., :1], 3, axis=-1))
    assert change(frozen).mean[:3].tolist() == [0, 0, 0]
    assert change(frozen).mean[3] > 0.01


def test_a_frozen_layer_stays_whatever_the_optimiser_does():
    """Decoupled weight decay moves parameters that have no gradient."""
    learner = mc.Initialisation(
        MODEL, mc.mean_squared_error, jnp.array(0.1), 2, optimizer=optax.adamw(1.0, weight_decay=0.5)
    )
    key = jax.random.key(0)
    meta, task = learner.init_meta(key), TEST.sample(key)
    adapted = eqx.filter_jit(Frozen(learner, jnp.array(1)).adapt)(key, meta, task.support)
    jax.tree.map(np.testing.assert_array_equal, adapted[0], meta[0])
    assert not np.allclose(adapted[1]["weight"], meta[1]["weight"])


def test_images_count_accuracy_and_scale_and_shift_belong_to_their_layer():
    glyphs = mc.ImageTasks("glyphs")
    model = mc.conv_net((28, 28, 1), 5, filters=4, blocks=1)
    algorithm = mc.MAML(inner_rate=0.5).build(model, glyphs.train_tasks(), loss=glyphs.loss)
    metas = jax.tree.map(lambda leaf: leaf[None], model.init(jax.random.key(0)))
    tasks = glyphs.test_tasks(1, 3)
    frozen = evaluate_frozen(algorithm, metas, tasks, steps=1, count=6)
    assert frozen.of("accuracy").losses.shape == (1, 6, 3)
    head = mc.Head(model, glyphs.loss, jnp.array(0.5), 1)
    alone = mc.evaluate(dataclasses.replace(algorithm, learner=head), metas, tasks, steps=1, count=6)
    np.testing.assert_allclose(frozen.losses[..., 1], alone.losses[..., -1], rtol=1e-4)


def test_the_change_is_known_better_than_its_two_ends():
    """Tasks differ by 10 and freezing costs each of them 1 or 3: by hand, 2 ± 1.96 √(2 / 2)."""
    change_ = change(mc.Evaluation(np.array([[[0.0, 1.0], [10.0, 13.0]]])))
    assert change_.mean.tolist() == [0, 2]
    assert change_.interval == pytest.approx([0, 1.96])


def test_a_task_that_always_diverges_counts_as_diverged_in_the_change():
    assert np.isinf(change(mc.Evaluation(np.array([[[np.inf, np.inf], [0.0, 1.0]]]))).mean[1])


def test_a_model_without_layers_is_refused():
    algorithm = mc.MAML().build(mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x), mc.Sinusoids())
    with pytest.raises(ValueError, match="does not tell its layers"):
        evaluate_frozen(algorithm, jnp.zeros(1), TEST)
