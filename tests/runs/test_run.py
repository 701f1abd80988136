"""What can be done with a trained run: adapt, predict, evaluate; bad shapes are refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import algorithm, same_bits

import metaception as mc
from metaception.runs.preset import to_dict
from metaception.runs.presets import PRESETS


@pytest.fixture(scope="module")
def run():
    return mc.train(algorithm(inner_rate=0.05), steps=10, validation_tasks=4, progress=False)


X = jnp.linspace(-1, 1, 4)[:, None]


def test_adapt_takes_the_inner_steps_by_hand(run):
    learner, meta = run.algorithm.learner, run.meta()
    apply = learner.model.apply

    def loss(parameters):
        return ((apply(parameters, X) - X) ** 2).mean()

    parameters = meta
    for _ in range(3):
        parameters = jax.tree.map(lambda p, g: p - 0.05 * g, parameters, jax.grad(loss)(parameters))
    predict = run.adapt(X, X, steps=3)
    np.testing.assert_allclose(predict(X), apply(parameters, X), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(run.adapt(X, X, steps=0)(X), apply(meta, X), rtol=1e-5, atol=1e-7)


def test_without_steps_adapt_takes_as_many_as_training(run):
    np.testing.assert_allclose(run.adapt(X, X)(X), run.adapt(X, X, steps=1)(X))


def test_plain_lists_will_do(run):
    assert run.adapt([[0.0], [1.0]], [[1.0], [0.0]])([[0.5]]).shape == (1, 1)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[:, 0], X, "adapt: inputs of shape (4,); training had [n, 1], with n of 1 or more; for example x[:, None]."),
        (X, X[:, 0], "adapt: targets of shape (4,); training had [n, 1], with n of 1 or more; for example y[:, None]."),
        (X.at[2].set(jnp.nan), X, "adapt: inputs has entries that are not finite; take those examples out."),
        (X, X.at[0].set(jnp.inf), "adapt: targets has entries that are not finite; take those examples out."),
        (np.zeros((4, 2)), X, "adapt: inputs of shape (4, 2); training had [n, 1], with n of 1 or more."),
        (np.zeros((0, 1)), X, "adapt: inputs of shape (0, 1); training had [n, 1], with n of 1 or more."),
        (X, X[:3], "adapt: 4 inputs but 3 targets; every input needs its target."),
    ],
)
def test_shapes_that_training_did_not_have_are_refused(run, x, y, message):
    with pytest.raises(mc.UsageError) as caught:
        run.adapt(x, y)
    assert str(caught.value) == message


def test_new_inputs_are_checked_too(run):
    with pytest.raises(mc.UsageError, match=r"new inputs of shape \(4,\); training had \[n, 1\]"):
        run.adapt(X, X)(X[:, 0])


def test_steps_below_zero_are_refused(run):
    with pytest.raises(mc.UsageError, match=r"adapt: steps=-1; expected 0 or more\."):
        run.adapt(X, X, steps=-1)


def test_a_seed_without_a_finite_validation_loss_gives_its_last(run):
    best = run.snapshot.best._replace(
        loss=np.array([np.inf], np.float32), meta=jax.tree.map(lambda m: m * 0, run.metas("last"))
    )
    without = mc.TrainedRun(run.algorithm, run.seeds, run.snapshot._replace(best=best), run.rows, run.config)
    np.testing.assert_array_equal(jax.tree.leaves(without.metas())[0], jax.tree.leaves(run.metas("last"))[0])


def test_evaluate_is_the_librarys_own(run):
    mine = run.evaluate(steps=2, count=5)
    np.testing.assert_array_equal(mine.losses, mc.evaluate(run.algorithm, run.metas(), steps=2, count=5).losses)


def test_tasks_to_evaluate_on_may_be_a_function_and_must_fit(run):
    family = mc.Sinusoids(shots=3, queries=3)
    expected = run.evaluate(family, steps=1, count=2)
    np.testing.assert_allclose(run.evaluate(family.sample, steps=1, count=2).losses, expected.losses, rtol=1e-5)
    three = np.zeros((2, 5, 3))
    with pytest.raises(mc.UsageError, match=r"evaluate: support inputs of shape \(5, 3\); training had \[n, 1\]"):
        run.evaluate(mc.ArrayTasks(three, three[..., :1], three, three[..., :1]), count=2)


def test_a_run_from_python_needs_its_algorithm(tmp_path):
    mc.train(algorithm(), steps=1, validation_tasks=4, progress=False, folder=tmp_path / "run")
    with pytest.raises(mc.UsageError, match=r"was trained from Python.*load_run\(folder, algorithm\)"):
        mc.load_run(tmp_path / "run")


def test_a_sharded_run_is_loaded_whatever_devices_are_here(tmp_path, monkeypatch):
    shipped = PRESETS["maml-sinusoid"]
    method = dataclasses.replace(shipped.method, meta_batch_size=3, mapping="sharded")
    preset = dataclasses.replace(shipped, method=method, network=dataclasses.replace(shipped.network, widths=(4,)))
    settings = {"steps": 1, "validation_tasks": 4, "progress": False}
    run = mc.train(preset.build(), folder=tmp_path / "run", preset=to_dict(preset), **settings)

    def uneven(self, tasks):
        raise ValueError(f"{tasks} tasks do not split evenly over 2 devices")

    monkeypatch.setattr(mc.Sharded, "check", uneven)
    loaded = mc.load_run(tmp_path / "run")
    assert same_bits(loaded.meta(), run.meta())
    assert loaded.preset == preset


def test_what_is_not_a_run_is_not_loaded(tmp_path):
    with pytest.raises(mc.UsageError, match="nowhere is not a run: it does not exist"):
        mc.load_run(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(mc.UsageError, match=r"config\.json is not readable as JSON"):
        mc.load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"format": 99}')
    with pytest.raises(mc.UsageError, match=r"has format 99; metaception .* reads format 1"):
        mc.load_run(tmp_path)
