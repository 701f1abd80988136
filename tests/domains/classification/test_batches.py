"""Batches over all classes: each image has its class's label, turned ones the label of their own class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaception as mc
from metaception.data.places import DataError
from metaception.data.sets import SETS, load_images

CLASSES = 3


def corners() -> mc.ImageSet:
    """Class c is bright in its upper left corner alone, with a grey of its own."""
    images = np.zeros((CLASSES, 2, 4, 4, 1), np.uint8)
    for label in range(CLASSES):
        images[label, :, 0, 0] = 50 * (label + 1)
    return mc.ImageSet.from_classes("corners", {str(label): own for label, own in enumerate(images)})


def test_labels_say_class_and_quarter_turns():
    batches = mc.Batches(corners(), size=400, rotations=True)
    assert batches.ways == 4 * CLASSES
    query = batches.sample(jax.random.key(0)).query
    images = np.asarray(query.inputs[..., 0])
    greys = np.rint(images.max((1, 2)) * 255 / 50).astype(int) - 1
    # np.rot90 turns against the clock: upper left, lower left, lower right, upper right.
    corner = [images[:, 0, 0], images[:, -1, 0], images[:, -1, -1], images[:, 0, -1]]
    turns = np.argmax(np.stack(corner), axis=0)
    np.testing.assert_array_equal(query.targets, greys + CLASSES * turns)
    assert set(np.asarray(query.targets)) == set(range(4 * CLASSES))


def test_images_that_are_not_square_are_not_turned():
    images = mc.ImageSet.from_classes(
        "wide", {"a": np.zeros((2, 4, 5, 1), np.uint8), "b": np.ones((2, 4, 5, 1), np.uint8)}
    )
    assert mc.Batches(images).ways == 2
    with pytest.raises(ValueError, match="Batches: images of 4 × 5 cannot be turned"):
        mc.Batches(images, rotations=True)


@pytest.mark.parametrize("split", [None, "vinyals"])
def test_a_preset_knows_its_classes_without_the_images(split):
    tasks = mc.ImageTasks("omniglot", split=split, rotations=True, batches=8)
    expected = 4 * {None: 1100, "vinyals": 1028}[split]
    assert tasks.outputs == tasks.shapes().ways == expected


@pytest.mark.parametrize("name", SETS)
def test_the_counts_of_training_classes_are_those_of_the_data(name):
    known = SETS[name]
    for split, classes in zip(known.splits, known.training_classes, strict=True):
        try:
            images = load_images(name, "train", split=split)
        except DataError as error:
            pytest.skip(str(error).splitlines()[0])
        assert len(images.classes) == classes
        if name == "glyphs":
            assert mc.ImageTasks(name, batches=4).train_tasks().ways == classes


def test_validation_of_pretraining_has_episodes():
    tasks = mc.ImageTasks("glyphs", batches=4)
    assert isinstance(tasks.train_tasks(), mc.Batches)
    assert isinstance(tasks.validation_tasks(), mc.Episodes)
    labels = tasks.validation_tasks().sample(jax.random.key(0)).support.targets
    assert jnp.array_equal(labels, jnp.arange(5))
