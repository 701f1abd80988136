"""The estimators' own contract: what scikit-learn's checks cannot feed them, images above all."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

import metaception as mc
from metaception.core.streams import stream_key
from metaception.estimators.files import format_of
from metaception.estimators.untrained import for_raw, standardised
from metaception.runs.loop import Best, Snapshot
from metaception.runs.networks import Convolutional
from metaception.runs.preset import to_dict
from metaception.runs.presets import PRESETS
from metaception.runs.testing import Results, save_results

RNG = np.random.default_rng(0)


def pictures(count, classes=3):
    """uint8 [classes · count, 6, 6, 1]: a class is a brightness, apart from noise; and the classes' numbers."""
    labels = np.repeat(np.arange(classes), count)
    return (80 * labels[:, None, None, None] + RNG.integers(0, 40, (len(labels), 6, 6, 1))).astype(np.uint8), labels


def untrained(algorithm):
    """A run of no outer steps, made by hand: training would compile what no test here looks at."""
    meta = jax.tree.map(lambda leaf: leaf[None], algorithm.learner.init_meta(jax.random.key(0)))
    zero = jnp.zeros(1, jnp.int32)
    state = mc.State(meta, outer=None, estimator=None, step=zero, skipped=zero, skipped_in_a_row=zero)
    snapshot = Snapshot(state, {}, zero, Best(meta, jnp.full(1, jnp.inf), zero))
    return mc.TrainedRun(algorithm, [0], snapshot, [], {"preset": None})


@pytest.fixture(scope="module")
def run():
    images, labels = pictures(4)
    classes = mc.ImageSet.from_classes("greys", {str(i): images[labels == i] for i in range(3)})
    tasks, network = mc.Episodes(classes, ways=3, shots=2), mc.conv_net((6, 6, 1), 3, filters=4, blocks=1)
    return untrained(mc.FOMAML(inner_rate=0.4, meta_batch_size=2).build(network, tasks, loss=mc.cross_entropy))


@pytest.fixture(scope="module")
def line():
    model = mc.Model(lambda key: jnp.array(0.0), lambda w, x: w * x)
    return untrained(mc.MAML(inner_rate=0.25).build(model, mc.Lines()))


X, Y = pictures(2)
NEW = pictures(3)[0]


def test_the_probabilities_are_those_of_the_adapted_run(run):
    # By hand: training's single inner step on all examples, then BatchNorm with the statistics of the support set.
    learner, meta, pixels = run.algorithm.learner, run.meta(), jnp.asarray(X / np.float32(255))
    gradient = jax.grad(lambda p: mc.cross_entropy(learner.model.apply(p, pixels), jnp.asarray(Y)))(meta)
    adapted = jax.tree.map(lambda p, g: p - 0.4 * g, meta, gradient)
    expected = jax.nn.softmax(learner.model.apply_after(adapted, pixels, jnp.asarray(NEW / np.float32(255))))
    classifier = mc.FewShotClassifier(run).fit(X, Y)
    np.testing.assert_allclose(classifier.predict_proba(NEW), expected, rtol=1e-4)
    np.testing.assert_allclose(classifier.predict_proba(NEW).sum(1), 1, rtol=1e-12)


def test_transductive_only_if_asked_for(run):
    for statistics in ("support", "one"):
        classifier = mc.FewShotClassifier(run, statistics=statistics).fit(X, Y)
        np.testing.assert_array_equal(classifier.predict_proba(NEW)[4:5], classifier.predict_proba(NEW[4:5]))
    together = mc.FewShotClassifier(run, statistics="batch").fit(X, Y)
    assert np.abs(together.predict_proba(NEW)[4:5] - together.predict_proba(NEW[4:5])).max() > 1e-3
    expected = jax.nn.softmax(run.adapt(X / np.float32(255), Y.astype(np.int32))(NEW / np.float32(255)))
    np.testing.assert_allclose(together.predict_proba(NEW), expected, rtol=1e-4)


def test_pixels_may_be_bytes_or_fractions_with_or_without_a_channel_axis(run):
    expected = mc.FewShotClassifier(run).fit(X, Y).predict_proba(NEW)
    for convert in (lambda a: a / 255, lambda a: (a / 255).astype(np.float32), lambda a: a[..., 0]):
        classifier = mc.FewShotClassifier(run).fit(convert(X), Y)
        np.testing.assert_allclose(classifier.predict_proba(convert(NEW)), expected, atol=1e-5)


def test_pixels_are_pixels_after_pretraining_too():
    images, labels = pictures(4)
    classes = mc.ImageSet.from_classes("greys", {str(i): images[labels == i] for i in range(3)})
    network = mc.conv_net((6, 6, 1), 3, filters=4, blocks=1)
    pretrained = untrained(mc.MulticlassPretrain().build(network, mc.Batches(classes), loss=mc.cross_entropy))
    expected = mc.FewShotClassifier(pretrained).fit(X, Y).predict_proba(NEW)
    fractions = mc.FewShotClassifier(pretrained).fit(X / 255, Y)
    np.testing.assert_allclose(fractions.predict_proba(NEW / 255), expected, atol=1e-5)
    np.testing.assert_allclose(fractions.predict_proba(NEW), expected, atol=1e-5)
    assert format_of(pretrained).size == (6, 6)


@pytest.mark.parametrize(
    "names",
    [["b", "a", "c"], [30, -1, 7], [5.0, 2.0, -1.0], np.array(["x", "y", "z"], object), [2**60, 0, 1]],
    ids=lambda names: str(list(names)),
)
def test_labels_of_any_type_come_back(run, names, tmp_path):
    names = np.asarray(names)
    classifier = mc.FewShotClassifier(run).fit(X, names[Y])
    np.testing.assert_array_equal(classifier.classes_, np.sort(names))
    predicted = classifier.predict(X)
    assert predicted.dtype == names.dtype
    # Columns go with `classes_`, whatever the order in which the labels came.
    np.testing.assert_array_equal(predicted, classifier.classes_[classifier.predict_proba(X).argmax(1)])
    loaded = mc.FewShotClassifier.load(classifier.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(X), predicted)
    assert loaded.classes_.dtype == names.dtype


def test_two_classes_leave_the_third_output_out(run):
    some = Y < 2
    classifier = mc.FewShotClassifier(run).fit(X[some], Y[some] == 1)
    assert classifier.classes_.tolist() == [False, True]
    chances = classifier.predict_proba(NEW)
    assert chances.shape == (len(NEW), 2)
    np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-12)


def test_it_learns_the_support_set(run):
    assert mc.FewShotClassifier(run, steps=30).fit(X, Y).score(X, Y) == 1


def test_scikit_learns_search_takes_images(run):
    images, labels = pictures(4)
    search = GridSearchCV(mc.FewShotClassifier(run), {"steps": [0, 1]}, cv=2).fit(images, labels)
    assert search.best_params_["steps"] in (0, 1)
    assert search.predict(NEW).shape == (len(NEW),)


def test_a_clone_shares_the_run_and_is_not_fitted(run):
    fitted = mc.FewShotClassifier(run, steps=2).fit(X, Y)
    copy = clone(fitted)
    assert copy.run is run
    assert copy.steps == 2
    with pytest.raises(NotFittedError):
        copy.predict(X)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            np.zeros((2, 6, 6, 3), np.uint8),
            "FewShotClassifier: X has shape (2, 6, 6, 3) (3 channels; the run has 1); the run was trained on inputs of 6×6×1, "
            "so expected [n, 6, 6, 1] or [n, height, width] with n of 1 or more: resize and convert them "
            "(metaception.data.folders.read_image does).",
        ),
        (np.zeros((2, 8, 8)), "X has shape (2, 8, 8); the run was trained on inputs of 6×6×1"),
        (np.zeros((2, 36)), "X has shape (2, 36); the run was trained on inputs of 6×6×1"),
        (np.zeros((0, 6, 6, 1)), "X has shape (0, 6, 6, 1)"),
        (
            np.full((2, 6, 6, 1), 200.0),
            "X has pixels from 200 to 200; expected floats from 0 to 1: divide by 255, or give uint8.",
        ),
        (np.full((2, 6, 6, 1), np.nan), "Input X contains NaN."),
        (np.zeros((2, 6, 6, 1), np.int64), "X has type int64; expected uint8 from 0 to 255, or floats from 0 to 1"),
    ],
)
def test_images_that_training_did_not_have_are_refused(run, inputs, message):
    classifier = mc.FewShotClassifier(run).fit(X, Y)
    for refused in (lambda: classifier.predict(inputs), lambda: classifier.fit(inputs, np.arange(len(inputs)))):
        with pytest.raises(ValueError, match=r".") as caught:
            refused()
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "y", "message"),
    [
        (
            {},
            np.arange(6),
            "y has 6 classes and the run has 3 outputs, its ways in training; leave classes out, or train with 6",
        ),
        ({}, np.zeros(6), "y has only one class, 0.0; expected two classes or more."),
        ({}, np.arange(5), "Found input variables with inconsistent numbers of samples: [6, 5]"),
        ({}, np.linspace(0, 1, 6), "Unknown label type: continuous"),
        ({"steps": -1}, Y, "FewShotClassifier: steps=-1; expected a whole number, 0 or more, or None."),
        ({"statistics": "all"}, Y, "FewShotClassifier: statistics='all'; expected one of batch, support, one."),
        ({"which": "first"}, Y, "FewShotClassifier: which='first'; expected one of best, last."),
        ({"index": 1}, Y, "FewShotClassifier: index=1; the run has 1 seeds, counted from 0."),
        (
            {"run": 3},
            Y,
            "FewShotClassifier: run=3; expected a metaception.TrainedRun, the path of a run's folder, or None",
        ),
        ({"run": "/nowhere"}, Y, "/nowhere is not a run: it does not exist."),
    ],
)
def test_what_cannot_be_fitted_is_refused(run, changes, y, message):
    with pytest.raises(ValueError, match=r".") as caught:
        mc.FewShotClassifier(**{"run": run, **changes}).fit(X, y)
    assert message in str(caught.value)


def test_a_run_of_the_other_kind_is_refused(run, line):
    with pytest.raises(mc.UsageError, match=r"was trained on regression; use metaception\.FewShotRegressor"):
        mc.FewShotClassifier(line).fit(X, Y)
    with pytest.raises(mc.UsageError, match=r"was trained on classification; use metaception\.FewShotClassifier"):
        mc.FewShotRegressor(run).fit(X, Y)


def test_adaptation_that_diverges_is_told(line):
    with pytest.raises(mc.RunError, match=r"adaptation diverged.*take fewer steps \(now 200\)"):
        mc.FewShotRegressor(line, steps=200).fit([[1e3]], [1.0])


def test_regression_by_hand(line):
    # w goes half of the way from 0 to 4 at each step: 2, then 3.
    assert mc.FewShotRegressor(line, steps=2).fit([[1.0]], [4.0]).predict([[2.0], [5.0]]).tolist() == [6.0, 15.0]
    assert mc.FewShotRegressor(line, steps=2).fit([[1.0]], [[4.0]]).predict([[2.0]]).tolist() == [[6.0]]
    with pytest.raises(mc.UsageError, match=r"y has shape \(1, 2\) and the run was trained on targets of shape \(1,\)"):
        mc.FewShotRegressor(line).fit([[1.0]], [[4.0, 2.0]])
    with pytest.raises(ValueError, match="X has 2 features and the run was trained on 1"):
        mc.FewShotRegressor(line).fit([[1.0, 2.0]], [4.0])


def test_without_a_run_offset_and_scale_of_the_data_do_not_matter():
    x, y = RNG.normal(size=(30, 2)), RNG.normal(size=(30, 1))
    expected = mc.FewShotRegressor().fit(x, y).predict(x)
    moved = mc.FewShotRegressor().fit(5 + 8 * x, 100 + 1000 * y).predict(5 + 8 * x)
    np.testing.assert_allclose((moved - 100) / 1000, expected, atol=2e-3)


def test_outer_layers_take_the_standardisation_over():
    x = RNG.normal(3, 5, (20, 2))
    scaled, *moments = standardised(x)
    np.testing.assert_allclose([scaled.mean(0), scaled.std(0)], [[0, 0], [1, 1]], atol=1e-6)
    layer = {"weight": RNG.normal(size=(2, 3)), "bias": RNG.normal(size=3)}
    raw = for_raw([layer, layer], inputs=moments)[0]
    np.testing.assert_allclose(
        x @ raw["weight"] + raw["bias"], scaled @ layer["weight"] + layer["bias"], rtol=1e-4, atol=1e-4
    )


def test_a_pickle_predicts_the_same_and_says_what_it_lacks(run):
    fitted = mc.FewShotClassifier(run).fit(X, Y)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(NEW), fitted.predict_proba(NEW))
    with pytest.raises(mc.UsageError, match=r"saved or pickled without its run \(TrainedRun\(.*set_params\(run="):
        again.fit(X, Y)
    again.set_params(run=run).fit(X, Y)
    assert fitted.run is run


def test_what_validation_tasks_chose_at_the_test_is_taken(tmp_path):
    preset = dataclasses.replace(
        PRESETS["multiclass-glyphs"], network=Convolutional(filters=2, blocks=1, readout="flatten"), steps=0
    )
    run = dataclasses.replace(untrained(preset.build(data=False)), config={"preset": to_dict(preset)}, folder=tmp_path)
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (6, 28, 28, 1), np.uint8), np.repeat(np.arange(3), 2)
    before = mc.FewShotClassifier(run).fit(images, labels)
    curves = [
        {"shots": shots, "rate": rate, "mean": [0.5], "median": [0.5], "interval": [0.1]}
        for shots, rate in ((1, 0.7), (3, 0.2))
    ]
    test = {**dataclasses.asdict(preset.test), "test_steps": 4}
    save_results(tmp_path, Results("", "", "accuracy", "", 1, 0, 0, [0], "best", test, {}, curves))
    fitted = mc.FewShotClassifier(run).fit(images[:3], [0, 1, 2])
    learner = dataclasses.replace(run.algorithm.test_learner, rate=jnp.array(0.7), steps=4, statistics="support")
    adapted = learner.adapt(
        stream_key(0, "test"), run.meta(), mc.Examples(jnp.asarray(images[:3] / np.float32(255)), jnp.arange(3))
    )
    expected = jax.nn.softmax(learner.predict(adapted, jnp.asarray(images / np.float32(255))))[:, :3]
    np.testing.assert_allclose(fitted.predict_proba(images), expected, rtol=1e-4)
    # Two examples a class are as near to one as to three, and the first is taken; before the test nothing was chosen.
    assert mc.FewShotClassifier(run).fit(images, labels).model_.facts["steps"] == 4
    assert before.model_.facts["steps"] == 10
