"""Models as files: what is read back predicts the same, what is not whole is refused, and no pickle is read."""

import json
import pickle
import shutil

import numpy as np
import pytest

import metaception as mc
from metaception.estimators.saving import Portable

X = np.random.default_rng(0).normal(size=(12, 3))
Y = np.array(["a", "b", "c"] * 4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    classifier = mc.FewShotClassifier(steps=20).fit(X, Y)
    return classifier, classifier.save(tmp_path_factory.mktemp("models") / "model")


def test_a_loaded_estimator_is_the_same(saved, tmp_path):
    classifier, folder = saved
    loaded = mc.FewShotClassifier.load(folder)
    assert loaded.get_params() == classifier.get_params()
    np.testing.assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
    with pytest.raises(ValueError, match="X has 2 features, but FewShotClassifier is expecting 3 features"):
        loaded.predict(X[:, :2])
    np.testing.assert_array_equal(loaded.fit(X, Y).predict_proba(X), classifier.predict_proba(X))
    regressor = mc.FewShotRegressor(steps=20).fit(X, X[:, :2])
    loaded = mc.FewShotRegressor.load(regressor.save(tmp_path / "regressor"))
    np.testing.assert_array_equal(loaded.predict(X), regressor.predict(X))


def test_no_pickle_is_read(saved, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("a pickle is read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert mc.FewShotClassifier.load(saved[1]).predict(X).shape == (12,)


def _edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: _flip(f / "weights.safetensors"),
            "weights.safetensors is not the file that model.json was written with",
        ),
        (lambda f: _flip(f / "model.stablehlo"), "model.stablehlo is not the file that model.json was written with"),
        (lambda f: (f / "weights.safetensors").unlink(), "is not a whole model ("),
        (lambda f: (f / "model.json").write_text("{"), "is not a whole model ("),
        (lambda f: _edit(f, format=2), "has format 2 and this version of Metaception reads 1"),
        (lambda f: _edit(f, parameters={"depth": 1}), "is not a model of this version"),
        (
            lambda f: _edit(f, estimator="FewShotRegressor"),
            "holds FewShotRegressor, and was to be loaded as FewShotClassifier",
        ),
        (shutil.rmtree, "is not a model: it is not a folder. Give a folder that `save` or `metaception export` made."),
    ],
)
def test_what_is_not_whole_is_refused(saved, tmp_path, damage, message):
    folder = tmp_path / "model"
    shutil.copytree(saved[1], folder)
    damage(folder)
    with pytest.raises(mc.UsageError) as caught:
        mc.FewShotClassifier.load(folder)
    assert message in str(caught.value)


def test_a_folder_of_something_else_is_never_replaced(saved, tmp_path):
    classifier, _ = saved
    folder = tmp_path / "model"
    classifier.save(folder)
    classifier.save(folder)  # its own is
    (folder / "letter.txt").write_text("mine")
    for place in (folder, folder / "letter.txt"):
        with pytest.raises(mc.UsageError, match="exists and is not a model of Metaception's"):
            classifier.save(place)
    assert (folder / "letter.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_labels_that_json_does_not_have_are_refused(tmp_path):
    classifier = mc.FewShotClassifier(steps=20).fit(X, np.array(["2020", "2021", "2022"] * 4, "datetime64[Y]"))
    with pytest.raises(mc.UsageError, match=r"labels like datetime.date\(2020, 1, 1\) cannot be written to a file"):
        classifier.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_rows_in_chunks_are_the_rows(saved):
    model: Portable = saved[0].model_
    rows = np.float32(X)
    np.testing.assert_allclose(model.in_chunks(rows, 5), model(rows), rtol=1e-5, atol=1e-6)
