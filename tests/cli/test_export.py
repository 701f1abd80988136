"""`metaception export`: what is written loads without the library, by the lines that stand beside it."""

import json
import pickle
import re

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from cli.own_images import stroke, write
from PIL import Image

import metaception as mc
from metaception.cli.main import main

CLASSES = {"flat": 0, "upright": 1}
SUPPORT = np.stack([stroke(angle, seed) for angle in (0, 1) for seed in (1, 2)])[..., None] / np.float32(255)
LABELS = np.array([0, 0, 1, 1], np.int32)
NEW = np.stack([stroke(angle, seed) for angle in (0, 1, 2) for seed in (3, 4)])[..., None] / np.float32(255)


@pytest.fixture
def _unchecked():
    # The checks of the tests know no symbolic numbers of rows, which a program for any number of support examples has.
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def load_as_told(folder, monkeypatch, **arrays):
    """What the README's own lines make of these inputs."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert "metaception" not in code
    monkeypatch.chdir(folder)
    exec(code, arrays)
    return np.asarray(arrays["outputs"])


def test_an_adapted_model(glyph_run, tmp_path, monkeypatch, capsys):
    support = write(tmp_path / "support", CLASSES, 2)
    out = tmp_path / "model"
    assert main(["export", str(glyph_run), "--out", str(out), "--support", str(support), "--steps", "5"]) == 0
    assert f"tiny-glyphs, adapted to 4 images of 2 classes: {out}" in capsys.readouterr().out
    images = np.stack([np.asarray(Image.open(support / name / f"{i}.png")) for name in CLASSES for i in range(2)])
    classifier = mc.FewShotClassifier(glyph_run, steps=5).fit(images, np.repeat(list(CLASSES), 2))
    chances = classifier.predict_proba(NEW)
    for rows in (1, 6):  # any number of rows
        logits = load_as_told(out, monkeypatch, inputs=NEW[:rows])
        assert logits.shape == (rows, 3)
        shown = np.exp(logits[:, :2]) / np.exp(logits[:, :2]).sum(1, keepdims=True)
        np.testing.assert_allclose(shown, chances[:rows], rtol=1e-4)
    loaded = mc.FewShotClassifier.load(out)
    np.testing.assert_array_equal(loaded.predict_proba(NEW), chances)
    # The run's folder is kept, so that it can be fitted again; by a pickle too.
    refitted = pickle.loads(pickle.dumps(loaded)).fit(images, np.repeat(list(CLASSES), 2))
    assert refitted.run == str(glyph_run)
    np.testing.assert_array_equal(refitted.predict_proba(NEW), chances)
    facts = json.loads((out / "model.json").read_text())
    assert (facts["kind"], facts["classes"], facts["statistics"]) == ("adapted", ["flat", "upright"], "support")
    assert (facts["inputs"], facts["outputs"], facts["steps"]) == ([28, 28, 1], 3, 5)
    assert {"jax", "jaxlib", "metaception"} <= set(facts["versions"])


@pytest.mark.usefixtures("_unchecked")
def test_a_meta_learned_classifier_adapts_inside_the_program(glyph_run, tmp_path, monkeypatch):
    out = tmp_path / "model"
    assert main(["export", str(glyph_run), "--out", str(out), "--statistics", "batch"]) == 0
    logits = load_as_told(out, monkeypatch, support_inputs=SUPPORT, support_targets=LABELS, inputs=NEW)
    np.testing.assert_allclose(logits, mc.load_run(glyph_run).adapt(SUPPORT, LABELS)(NEW), rtol=1e-4, atol=1e-5)
    with pytest.raises(mc.UsageError, match="holds a meta-learned model that has not adapted yet"):
        mc.FewShotClassifier.load(out)


@pytest.mark.usefixtures("_unchecked")
def test_a_meta_learned_regressor(sine_run, tmp_path, monkeypatch):
    out = tmp_path / "model"
    for _ in range(2):  # a model is replaced by a model
        assert main(["export", str(sine_run), "--out", str(out), "--steps", "3"]) == 0
    run = mc.load_run(sine_run)
    for shots in (1, 7):
        x = jnp.linspace(-1, 1, shots)[:, None]
        got = load_as_told(out, monkeypatch, support_inputs=x, support_targets=jnp.sin(x), inputs=x + 1)
        np.testing.assert_allclose(got, run.adapt(x, jnp.sin(x), steps=3)(x + 1), rtol=1e-4, atol=1e-6)


def test_what_cannot_be_exported_is_told(glyph_run, sine_run, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("mine")
    support = write(tmp_path / "support", CLASSES, 1)
    out = str(tmp_path / "model")
    for arguments, message in (
        (["/nowhere", "--out", out], "/nowhere is not a run: it does not exist."),
        (
            [glyph_run, "--out", mine],
            f"{mine} exists and is not a model of Metaception's; give another folder, or remove it.",
        ),
        ([sine_run, "--out", out, "--support", support], f"{sine_run} was not trained on images but on Sinusoids"),
        ([sine_run, "--out", out, "--invert"], "--invert goes with --support; leave it out, or give both."),
        ([sine_run, "--out", out, "--steps", "-1"], "--steps -1: expected 0 or more"),
    ):
        assert main(["export", *map(str, arguments)]) == 2
        assert f"error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_no_pickle_is_read_from_a_run(glyph_run, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("a pickle is read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert mc.load_run(glyph_run).step == 0
