"""Tasks from arrays and from functions."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaception as mc

KEY = jax.random.key(0)


def arrays(tasks=4, shots=3, queries=2):
    """Arrays whose entries say which task and example they are."""
    support = np.arange(tasks * shots, dtype=np.float32).reshape(tasks, shots, 1)
    query = 100 + np.arange(tasks * queries, dtype=np.float32).reshape(tasks, queries, 1)
    return support, -support, query, -query


def test_array_tasks_pick_whole_tasks_uniformly():
    tasks = mc.ArrayTasks(*arrays())
    drawn = jax.vmap(tasks.sample)(jax.random.split(KEY, 4000))
    which = (np.asarray(drawn.support.inputs)[:, 0, 0] / 3).astype(int)
    support_x, support_y, query_x, query_y = arrays()
    np.testing.assert_array_equal(drawn.support.inputs, support_x[which])
    np.testing.assert_array_equal(drawn.support.targets, support_y[which])
    np.testing.assert_array_equal(drawn.query.inputs, query_x[which])
    np.testing.assert_array_equal(drawn.query.targets, query_y[which])
    counts = np.bincount(which, minlength=4)
    assert np.abs(counts - 1000).max() < 4 * np.sqrt(4000 * 0.25 * 0.75)  # four standard deviations of a binomial


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {0: np.zeros(3)},
            "ArrayTasks: support_inputs has shape (3,); expected [tasks, examples, ...] with at least one",
        ),
        ({2: np.zeros((4, 0, 1))}, "ArrayTasks: query_inputs has shape (4, 0, 1); expected [tasks, examples, ...]"),
        (
            {1: np.zeros((4, 2, 1))},
            "ArrayTasks: support_inputs (4, 3, 1) and support_targets (4, 2, 1) disagree on [tasks, examples]; every input "
            "row needs its target.",
        ),
        (
            {2: np.zeros((5, 2, 1)), 3: np.zeros((5, 2, 1))},
            "ArrayTasks: 4 support sets but 5 query sets; give one of each for every task.",
        ),
    ],
)
def test_array_tasks_refuse_arrays_that_disagree(change, message):
    given = [change.get(index, array) for index, array in enumerate(arrays())]
    with pytest.raises(ValueError, match=re.escape(message)):
        mc.ArrayTasks(*given)


def test_function_tasks_must_return_a_task():
    def pair(key):
        return key, key

    message = "FunctionTasks: pair returned a tuple; expected metaception.Task(support, query)."
    with pytest.raises(TypeError, match=re.escape(message)):
        mc.FunctionTasks(pair).sample(KEY)


def test_own_arrays_and_own_functions_train_alike():
    """A function that picks from the same arrays with the same key gives the same first step."""
    held = mc.ArrayTasks(*arrays())

    def pick(key):
        index = jax.random.randint(key, (), 0, 4)
        a, b, c, d = (jnp.asarray(array)[index] for array in arrays())
        return mc.Task(mc.Examples(a, b), mc.Examples(c, d))

    method = mc.MAML(meta_batch_size=2, inner_rate=1e-4)
    states = []
    for tasks in (held, mc.FunctionTasks(pick)):
        algorithm = method.build(mc.mlp(1, 1, widths=(2,)), tasks)
        states.append(eqx.filter_jit(algorithm.step)(KEY, algorithm.init(KEY))[0].meta)
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_split_makes_disjoint_sets_of_whole_tasks():
    x = np.arange(20.0).reshape(10, 2, 1)
    tasks = mc.ArrayTasks(x, 2 * x, x + 100, 3 * x)
    parts = tasks.split(5, 3, 2, seed=1)
    sets = [{float(v) for v in part.tasks.support.inputs[:, 0, 0]} for part in parts]
    assert [len(found) for found in sets] == [5, 3, 2]
    assert set.union(*sets) == {float(v) for v in x[:, 0, 0]}
    for part in parts:
        support, query = part.tasks
        np.testing.assert_array_equal(support.targets, 2 * support.inputs)
        np.testing.assert_array_equal(query.inputs, support.inputs + 100)
        np.testing.assert_array_equal(query.targets, 3 * support.inputs)


@pytest.mark.parametrize("counts", [(), (0, 1), (6, 5)])
def test_split_refuses_what_there_is_not(counts):
    x = np.zeros((10, 2, 1))
    with pytest.raises(ValueError, match="positive numbers whose sum is at most the 10 tasks"):
        mc.ArrayTasks(x, x, x, x).split(*counts)
