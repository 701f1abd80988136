"""The model that ships with the package: it is there, it is what was written, and it classifies scripts never seen."""

import jax
import numpy as np
import pytest

import metaception as mc
from metaception.runs.shipped import load_shipped, write_shipped


@pytest.fixture(scope="module")
def run():
    return mc.load_run("glyphs")


def test_it_classifies_scripts_that_it_was_not_trained_on(run):
    """95 % by the batch statistics of the support set alone (600 tasks); of 40 tasks the standard error is 1.1."""
    result = run.evaluate(steps=1, count=40).of("accuracy")
    assert run.algorithm.learner.statistics == "support"
    assert result.mean[0] < 0.3
    assert result.mean[1] > 0.9


def test_what_is_written_is_read(run, tmp_path, monkeypatch):
    changed = jax.tree.map(lambda leaf: leaf + 1, run.snapshot.best.meta)
    other = mc.TrainedRun(
        run.algorithm, [0], run.snapshot._replace(best=run.snapshot.best._replace(meta=changed)), [], run.config
    )
    write_shipped(other, tmp_path)
    monkeypatch.setattr("metaception.runs.shipped.folder_of", lambda name: tmp_path)
    again = load_shipped("glyphs")
    for mine, theirs in zip(jax.tree.leaves(again.meta()), jax.tree.leaves(other.meta()), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_run_of_that_name_comes_first_and_another_folder_hides_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glyphs").mkdir()
    assert mc.load_run("glyphs").preset.tasks.images == "glyphs"
    (tmp_path / "glyphs" / "config.json").write_text("{")
    with pytest.raises(mc.UsageError, match="glyphs"):
        mc.load_run("glyphs")
