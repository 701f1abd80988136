"""Few-shot tasks from a folder of one's own, as settings: its parts, its sizes, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

import metaception as mc
from metaception.data.places import DataError
from metaception.data.sets import load_part
from metaception.runs import testing
from metaception.runs.preset import called_by_its_images, from_dict, to_dict
from metaception.runs.presets import PRESETS

SHAPE = (8, 8, 1)


def write(folder, classes):
    """Three images of a grey of its own for each class."""
    for name, grey in classes.items():
        (folder / name).mkdir(parents=True)
        for index in range(3):
            Image.fromarray(np.full((10, 12), grey, np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "mine", {f"class{index}": 10 * index for index in range(10)})


def test_the_parts_of_a_folder_are_disjoint_and_all_of_it(folder):
    parts = {part: load_part(str(folder), part, SHAPE) for part in ("train", "val", "test")}
    assert {part: len(images.classes) for part, images in parts.items()} == {"train": 6, "val": 2, "test": 2}
    names = [name for images in parts.values() for name in images.classes]
    assert sorted(names) == sorted(f"class{index}" for index in range(10))
    for images in parts.values():
        for name in images.classes:
            assert set(images.of(name).ravel()) == {10 * int(name.removeprefix("class"))}
    # The same each time.
    assert load_part(str(folder), "test", SHAPE).classes == parts["test"].classes


def test_parts_that_a_folder_has_are_taken(tmp_path):
    for part, grey in (("train", 10), ("val", 20), ("test", 30)):
        write(tmp_path / part, {f"{part}_a": grey, f"{part}_b": grey + 1})
    tasks = mc.ImageTasks(str(tmp_path), size=(6, 6, 3), ways=2, validation_queries=1)
    for grey, made in ((10, tasks.train_tasks()), (20, tasks.validation_tasks()), (30, tasks.test_tasks(1, 1))):
        support = made.sample(jax.random.key(0)).support.inputs
        assert support.shape == (2, 6, 6, 3)
        assert set(np.rint(np.asarray(support) * 255).ravel()) == {grey, grey + 1}


def test_parts_that_share_a_class_or_lack_one_are_refused(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / part, {f"{part}_a": 1, "both": 2})
    tasks = mc.ImageTasks(str(tmp_path), size=SHAPE, ways=2)
    with pytest.raises(DataError, match="train, test are there, but no val"):
        tasks.train_tasks()
    write(tmp_path / "val", {"val_a": 1, "val_b": 2})
    with pytest.raises(DataError, match="the class 'both' is in train and in test"):
        tasks.train_tasks()


def test_a_run_on_other_images_is_called_by_them(folder):
    preset = PRESETS["anil-glyphs"]
    longer = dataclasses.replace(preset, steps=7)
    assert called_by_its_images(longer, preset) is longer
    own = dataclasses.replace(preset, tasks=mc.ImageTasks(str(folder), size=SHAPE, ways=2))
    called = called_by_its_images(own, preset)
    assert (called.name, called.description) == ("anil-mine", f"{preset.method.title} on mine, 2-way")
    assert (called.method, called.tasks) == (own.method, own.tasks)
    other = dataclasses.replace(preset, tasks=dataclasses.replace(preset.tasks, images="omniglot"))
    assert called_by_its_images(other, preset).name == "anil-omniglot"


def test_a_preset_trains_and_is_tested_on_a_folder(folder, tmp_path, monkeypatch):
    preset = PRESETS["maml-glyphs"]
    monkeypatch.chdir(folder.parent)
    tasks = dataclasses.replace(preset.tasks, images="mine", size=SHAPE, ways=2, queries=1, validation_queries=1)
    network = dataclasses.replace(preset.network, filters=2, blocks=1)
    method = dataclasses.replace(preset.method, meta_batch_size=2)
    preset = dataclasses.replace(preset, tasks=tasks, network=network, method=method)
    # A relative path is kept as an absolute one, and comes back from a run's file.
    assert tasks.images == str(folder)
    assert from_dict(json.loads(json.dumps(to_dict(preset)))) == preset
    monkeypatch.chdir(tmp_path)
    algorithm = preset.build()
    run = mc.train(algorithm, steps=2, validation=preset.tasks.validation_tasks(), validation_tasks=2)
    assert 0 <= run.rows[-1]["validation_accuracy"][0] <= 1
    result = run.evaluate(preset.tasks.test_tasks(1, 2), steps=1, count=3)
    assert np.isfinite(result.of("accuracy").mean).all()
    # What adapts alone needs no images.
    folder.rename(folder.with_name("gone"))
    assert preset.build(data=False).tasks.sample(jax.random.key(0)).support.inputs.shape == (2, *SHAPE)


def test_pretraining_counts_a_folders_classes(folder):
    assert mc.ImageTasks(str(folder), size=SHAPE, ways=2, batches=4).outputs == 6


def test_what_training_saw_does_not_make_tests_differ(folder):
    """Pretraining on batches is compared with episodes, and runs from before there were sizes with those after."""
    plain, pretrained = (testing.tested_on(PRESETS[name]) for name in ("maml-glyphs", "multiclass-glyphs"))
    assert plain == pretrained
    assert "size" not in plain
    own = [
        dataclasses.replace(PRESETS["maml-glyphs"], tasks=mc.ImageTasks(str(folder), size=(n, n, 1))) for n in (8, 9)
    ]
    assert testing.tested_on(own[0]) != testing.tested_on(own[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"images": "omniglott"},
            "is none of glyphs, omniglot, mini_imagenet, cifar_fs; for a folder of your own give the size",
        ),
        ({"images": "mine", "size": (8, 8, 2)}, "with 1 or 3 channels"),
        ({"images": "mine", "size": (0, 8, 3)}, "expected .height, width, channels"),
        ({"images": "mine", "size": SHAPE, "split": "maml"}, "not with a folder"),
        ({"size": SHAPE}, "glyphs has its own"),
    ],
)
def test_wrong_settings_are_refused_where_they_are_given(settings, message):
    with pytest.raises(ValueError, match=message):
        mc.ImageTasks(**settings)


def test_folders_that_are_missing_or_too_small_are_refused(tmp_path):
    with pytest.raises(DataError, match="not a folder that can be read"):
        mc.ImageTasks(str(tmp_path / "nothing"), size=SHAPE).train_tasks()
    few = write(tmp_path / "few", {"a": 1, "b": 2})
    with pytest.raises(DataError, match="2 classes are too few to train on some"):
        mc.ImageTasks(str(few), size=SHAPE, ways=2).train_tasks()
    small = write(tmp_path / "small", {name: 1 for name in "abcde"})
    with pytest.raises(ValueError, match=r"small \(val\) has 1 classes.*take fewer"):
        mc.ImageTasks(str(small), size=SHAPE, ways=3).validation_tasks()


def test_shots_that_differ_in_training_are_two_numbers():
    preset = PRESETS["maml-glyphs"]
    preset = dataclasses.replace(preset, tasks=dataclasses.replace(preset.tasks, shots=(1, 3)))
    tasks = from_dict(json.loads(json.dumps(to_dict(preset)))).tasks
    assert tasks == preset.tasks
    task = tasks.train_tasks().sample(jax.random.key(0))
    rows = [int((task.support.targets == label).sum()) for label in range(5)]
    assert set(rows) <= {1, 2, 3}
    assert len(set(rows)) > 1
    # What a run is loaded with has the same room; tests have a number of shots of their own.
    assert jax.eval_shape(tasks.shapes().sample, jax.random.key(0)).support.inputs.shape == task.support.inputs.shape
    assert tasks.test_tasks(2, 1).sample(jax.random.key(0)).support.targets.shape == (10,)
