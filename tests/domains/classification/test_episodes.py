"""Episodes: a wrong sampler is the classic silent bug of this field. Every image names its class and itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaception as mc

KEYS = jax.random.split(jax.random.key(0), 200)


def named(counts, size=4):
    """Images whose first pixel is their class and whose second their own number; the corner tells which way is up."""
    images = np.zeros((sum(counts), size, size, 1), np.uint8)
    labels = np.repeat(np.arange(len(counts)), counts)
    images[:, 0, 1, 0], images[:, 0, 2, 0] = labels, np.concatenate([np.arange(count) for count in counts])
    images[:, 0, 0, 0] = 200
    return mc.ImageSet("named", images, np.asarray(counts), tuple(f"class {i}" for i in range(len(counts))))


def read(examples):
    """(class, number, quarter turns) of each image of a batch of tasks."""
    pixels = np.rint(np.asarray(examples.inputs)[..., 0] * 255).astype(int)
    turns = np.argmax(
        np.stack([pixels[..., 0, 0], pixels[..., -1, 0], pixels[..., -1, -1], pixels[..., 0, -1]]), axis=0
    )
    upright = np.empty_like(pixels)
    for quarter in range(4):
        turned = np.rot90(pixels, -quarter, axes=(-2, -1))
        upright[turns == quarter] = turned[turns == quarter]
    return upright[..., 0, 1], upright[..., 0, 2], turns


def draw(tasks):
    return jax.jit(jax.vmap(tasks.sample))(KEYS)


@pytest.mark.parametrize("rotations", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_an_episode_is_what_it_says(rotations, exclusive):
    tasks = mc.Episodes(
        named([6, 5, 9, 5, 7, 6, 5, 8]), ways=3, shots=2, queries=3, rotations=rotations, exclusive=exclusive
    )
    task = draw(tasks)
    assert task.support.inputs.shape == (200, 6, 4, 4, 1)
    assert task.support.inputs.dtype == jnp.float32
    for half, each in ((task.support, 2), (task.query, 3)):
        np.testing.assert_array_equal(half.targets, np.broadcast_to(np.repeat(np.arange(3), each), (200, 3 * each)))
    (classes, numbers, turns), (query_classes, query_numbers, query_turns) = read(task.support), read(task.query)
    for episode in range(200):
        support = classes[episode].reshape(3, 2)
        own = support[:, 0] + 8 * turns[episode].reshape(3, 2)[:, 0]
        assert (support == support[:, :1]).all()  # a label is one class
        assert len(set(own)) == 3  # and no two labels are the same class
        np.testing.assert_array_equal(query_classes[episode].reshape(3, 3)[:, 0], support[:, 0])
        np.testing.assert_array_equal(query_turns[episode].reshape(3, 3)[:, 0], turns[episode].reshape(3, 2)[:, 0])
        shown = set(zip(classes[episode], numbers[episode], strict=True))
        asked = set(zip(query_classes[episode], query_numbers[episode], strict=True))
        if not rotations:  # the same character may come at two rotations, and then share images
            assert len(shown) == 6
            assert len(asked) == 9
            assert not shown & asked
    assert set(np.unique(turns)) == ({0, 1, 2, 3} if rotations else {0})
    # Every image of every class is drawn, those of the largest class too, and none beyond it.
    assert {(c, n) for c, n in zip(classes.ravel(), numbers.ravel(), strict=True)} <= {
        (c, n) for c, count in enumerate([6, 5, 9, 5, 7, 6, 5, 8]) for n in range(count)
    }


def test_all_images_are_drawn_evenly():
    """Chi-squared of 12,000 draws over 20 images: 19 degrees of freedom, 43.8 is its 0.999 quantile."""
    tasks = mc.Episodes(named([10, 10]), ways=2, shots=4, queries=2)
    keys = jax.random.split(jax.random.key(1), 1000)
    task = jax.jit(jax.vmap(tasks.sample))(keys)
    for half in task:
        classes, numbers, _ = read(half)
        counts = np.bincount(10 * classes.ravel() + numbers.ravel(), minlength=20)
        expected = counts.sum() / 20
        assert ((counts - expected) ** 2 / expected).sum() < 43.8


def test_exclusive_labels_are_permuted_and_fixed_ones_are_not():
    counts = [4] * 9
    seen = {}
    for exclusive in (True, False):
        task = draw(mc.Episodes(named(counts), ways=3, shots=1, queries=1, exclusive=exclusive))
        classes, _, _ = read(task.support)
        seen[exclusive] = [set(classes[np.asarray(task.support.targets) == label]) for label in range(3)]
    assert all(labels == set(range(9)) for labels in seen[True])
    assert [len(labels) for labels in seen[False]] == [3, 3, 3]
    assert set.union(*seen[False]) == set(range(9))


def test_shots_that_differ_between_classes_and_tasks():
    tasks = mc.Episodes(named([8] * 4), ways=2, shots=(1, 4), queries=2)
    task = draw(tasks)
    _, numbers, _ = read(task.support)
    labels = np.asarray(task.support.targets).reshape(200, 2, 4)
    own = (labels >= 0).sum(axis=2)
    assert set(np.unique(own)) == {1, 2, 3, 4}
    assert (own[:, 0] != own[:, 1]).any()
    for episode in range(200):
        for label in range(2):
            shots = own[episode, label]
            np.testing.assert_array_equal(labels[episode, label], [label] * shots + [-1] * (4 - shots))
            drawn = numbers[episode].reshape(2, 4)[label]
            assert len(set(drawn[:shots])) == shots
            np.testing.assert_array_equal(drawn, drawn[np.arange(4) % shots])  # absent rows repeat the class's own


def test_a_key_is_an_episode_and_pixels_go_from_0_to_1():
    tasks = mc.Episodes(named([5] * 5), ways=5, shots=1, queries=1)
    sample = eqx.filter_jit(tasks.sample)
    one, again, other = (sample(jax.random.key(seed)) for seed in (0, 0, 1))
    assert (one.support.inputs == again.support.inputs).all()
    assert not (one.support.inputs == other.support.inputs).all()
    np.testing.assert_allclose(one.support.inputs.max(), 200 / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"ways": 6}, "has 5 classes, and an episode wants 6"),
        ({"ways": 21, "rotations": True}, "has 20 classes, rotations included, and an episode wants 21"),
        (
            {"ways": 2, "shots": 4, "queries": 2},
            "2 of 5 classes of named have fewer than the 4 [+] 2 images .*'class 0'",
        ),
        ({"ways": 1}, "expected 2 ways or more"),
        ({"shots": (3, 2)}, "lowest and the highest"),
        ({"queries": 0}, "queries=0"),
    ],
)
def test_impossible_episodes_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        mc.Episodes(named([4, 6, 6, 5, 6]), **arguments)


def test_what_is_not_square_cannot_be_turned():
    images = mc.ImageSet.from_classes("wide", {str(i): np.zeros((3, 4, 6), np.uint8) for i in range(5)})
    assert mc.Episodes(images).sample(jax.random.key(0)).support.inputs.shape == (5, 4, 6, 1)
    with pytest.raises(ValueError, match="4 × 6 cannot be turned"):
        mc.Episodes(images, rotations=True)
