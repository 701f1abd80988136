"""Every mapping computes the same thing; bad ones are refused by name."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaception as mc

MAPPINGS = {
    "sequential": mc.Sequential(),
    "vectorised": mc.Vectorised(),
    "chunked": mc.Chunked(3),  # 7 tasks: two chunks and a remainder of one
    "chunk of one": mc.Chunked(1),
    "chunk too large": mc.Chunked(50),
    "sharded": mc.Sharded(mc.Sequential()),  # over the one device here; test_sharded.py has more of them
}


@pytest.mark.parametrize("mapping", MAPPINGS.values(), ids=MAPPINGS)
def test_all_mappings_agree(float64, mapping):
    """On a function of a shared pytree, mapped keys and nested arrays, with a gradient through all of it."""
    tasks = 7
    mapped = (jax.random.split(jax.random.key(0), tasks), {"x": jnp.arange(2.0 * tasks).reshape(tasks, 2)})

    def function(shared, one):
        key, data = one
        noise = jax.random.normal(key, (2,))
        return jnp.sum(jnp.sin(shared["w"] * data["x"]) * noise), {"noise": noise}

    def total(w):
        values, rest = mapping(function, {"w": w}, mapped)
        return jnp.sum(values * jnp.arange(1.0, tasks + 1)), (values, rest["noise"])

    w = jnp.array([0.3, -1.2])
    mapping.check(tasks)
    gradient, (values, noise) = jax.jit(jax.grad(total, has_aux=True))(w)
    by_hand = [function({"w": w}, jax.tree.map(lambda a, i=i: a[i], mapped)) for i in range(tasks)]
    np.testing.assert_allclose(values, [value for value, _ in by_hand], rtol=1e-12)
    np.testing.assert_allclose(noise, [rest["noise"] for _, rest in by_hand], rtol=1e-12)
    x = mapped[1]["x"]
    expected = sum((i + 1) * jnp.cos(w * x[i]) * x[i] * by_hand[i][1]["noise"] for i in range(tasks))
    np.testing.assert_allclose(gradient, expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sequential", mc.Sequential()),
        ("vectorised", mc.Vectorised()),
        ("chunked:8", mc.Chunked(8)),
        ("sharded", mc.Sharded(mc.Vectorised())),
        (mc.Chunked(2), mc.Chunked(2)),
    ],
)
def test_names(name, expected):
    assert mc.as_mapping(name) == expected


@pytest.mark.parametrize(
    ("backend", "options", "expected"),
    [
        ("cpu", {}, mc.Vectorised()),
        ("cpu", {"parameters": 20_000}, mc.Vectorised()),
        ("cpu", {"parameters": 20_001}, mc.Sequential()),
        ("cpu", {"convolutional": True}, mc.Sequential()),
        ("gpu", {"convolutional": True, "parameters": 10**7}, mc.Vectorised()),
    ],
)
def test_the_default_suits_the_backend_and_the_model(monkeypatch, backend, options, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert mc.as_mapping("auto", **options) == expected
    assert mc.as_mapping("sharded", **options) == mc.Sharded(expected)


@pytest.mark.parametrize("name", ["fast", "", "chunked", "chunked:", "chunked:0", "chunked:-2", "auto:3", "sharded:2"])
def test_unknown_names(name):
    message = (
        f"unknown mapping {name!r}; expected one of: auto, sequential, vectorised, chunked:SIZE (for example chunked:8), "
        "sharded."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        mc.as_mapping(name)


def test_a_chunk_holds_a_task():
    with pytest.raises(ValueError, match=r"mapping 'chunked:0' over 4 tasks: a chunk holds at least one task\."):
        mc.Chunked(0).check(4)


def test_devices_must_divide_the_tasks(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [None] * 4)
    message = (
        "mapping 'sharded': 6 tasks a meta-batch do not split evenly over 4 devices; take a multiple of 4, for example "
        "--meta-batch-size 8."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        mc.Sharded(mc.Vectorised()).check(6)
    mc.Sharded(mc.Vectorised()).check(8)


def test_convolutions_are_mapped_one_task_after_another_on_a_cpu_however_small():
    small = mc.conv_net((8, 8, 1), 3, filters=4, blocks=2)
    images = mc.ImageSet.from_classes("greys", {str(i): np.full((4, 8, 8, 1), i, np.uint8) for i in range(3)})
    tasks = mc.Episodes(images, ways=3)
    assert mc.count_parameters(small) < 20_000
    dense = mc.dense_net((8, 8, 1), 3, widths=(8,))
    for method, network, expected in (
        (mc.MAML(), small, mc.Sequential),
        (mc.MAML(), dense, mc.Vectorised),
        (mc.MatchingNet(), small, mc.Vectorised),  # whose kernels no task adapts
    ):
        assert isinstance(method.build(network, tasks, loss=mc.cross_entropy).mapping, expected)
