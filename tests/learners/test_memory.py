"""The learner with an external memory: against a plain loop in NumPy, and what its state must not depend on."""

from itertools import permutations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaception as mc
from metaception.learners.memory import Memory, access

KEY = jax.random.key(0)
WAYS, HIDDEN, SLOTS, WIDTH, READS = 3, 5, 4, 2, 2
DECAY, SHARPNESS = 0.7, 1.5
LEARNER = mc.MemoryAugmented(
    mc.dense_net((2, 2, 1), WAYS, widths=(6,), normalisation="none"),
    mc.cross_entropy,
    decay=jnp.asarray(DECAY),
    sharpness=jnp.asarray(SHARPNESS),
    hidden=HIDDEN,
    slots=SLOTS,
    width=WIDTH,
    reads=READS,
)


def images(seed, count):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(count, 2, 2, 1)))


def drawn(tree, seed=0):
    """Other numbers everywhere, so that no bias, gate or weight is at a value that hides a mistake."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype), tree)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def access_by_hand(memory, keys, gates, decay, sharpness):
    """One write and one read, slot by slot."""
    slots, usage, reading = (np.array(part, np.float64) for part in memory)
    least = np.argsort(usage, kind="stable")
    written = np.zeros_like(reading)
    for head in range(len(keys)):
        written[head] = gates[head] * reading[head]
        written[head, least[head]] += 1 - gates[head]
        slots[least[head]] = 0
    for head, slot in np.ndindex(written.shape):
        slots[slot] += written[head, slot] * keys[head]
    for head, key in enumerate(keys):
        alike = [key @ slot / np.linalg.norm(key) / max(np.linalg.norm(slot), 1e-6) for slot in slots]
        reading[head] = np.exp(sharpness * np.array(alike)) / np.exp(sharpness * np.array(alike)).sum()
    usage = decay * usage + reading.sum(axis=0) + written.sum(axis=0)
    return (slots, usage, reading), np.array([weights @ slots for weights in reading])


def logits_by_hand(meta, support, queries):
    """The whole learner: images [n, 4] and labels of the support set in its order, then each query one step further."""
    body, own = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), meta)

    def step(state, image):
        hidden, cell, memory, found, label = state
        features = np.maximum(image @ body["weight"] + body["bias"], 0)
        seen = np.concatenate([features, label, *found, hidden])
        gates = seen @ own["controller"]["weight"] + own["controller"]["bias"]
        enter, keep, leave, new = gates.reshape(4, HIDDEN)
        cell = sigmoid(keep) * cell + sigmoid(enter) * np.tanh(new)
        hidden = sigmoid(leave) * np.tanh(cell)
        keys = np.tanh(hidden @ own["keys"]["weight"] + own["keys"]["bias"]).reshape(READS, WIDTH)
        memory, found = access_by_hand(memory, keys, sigmoid(own["gates"]), DECAY, SHARPNESS)
        logits = np.concatenate([hidden, *found]) @ own["output"]["weight"] + own["output"]["bias"]
        return (hidden, cell, memory, found, label), logits

    memory = np.zeros((SLOTS, WIDTH)), np.zeros(SLOTS), np.zeros((READS, SLOTS))
    state = np.zeros(HIDDEN), np.zeros(HIDDEN), memory, np.zeros((READS, WIDTH)), np.zeros(WAYS)
    for image, label in support:
        state = (*step(state, image)[0][:-1], np.eye(WAYS)[label])
    return np.array([step(state, query)[1] for query in queries])


adapt = eqx.filter_jit(LEARNER.adapt)


@eqx.filter_jit
def predictions(learner, meta, support, inputs, key=KEY):
    return learner.predict(learner.adapt(key, meta, support), inputs)


MEMORY = Memory(
    jnp.array([[1.0, 0.5], [-1.0, 2.0], [0.0, -1.0], [3.0, 1.0]]),
    jnp.array([0.9, 0.2, 1.4, 0.3]),
    jnp.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]),
)
KEYS, GATES = jnp.array([[0.5, -0.25], [-0.75, 0.5]]), jnp.array([0.25, 0.625])


def test_a_write_and_a_read_by_hand():
    memory, found = access(MEMORY, KEYS, GATES, jnp.asarray(DECAY), jnp.asarray(SHARPNESS))
    by_hand, found_by_hand = access_by_hand(MEMORY, np.asarray(KEYS), np.asarray(GATES), DECAY, SHARPNESS)
    for part, expected in zip((*memory, found), (*by_hand, found_by_hand), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_the_learner_by_a_plain_loop_in_some_order():
    meta, queries = drawn(LEARNER.init_meta(KEY)), images(1, 2)
    support = mc.Examples(images(0, 3), jnp.array([2, 0, 2]))
    rows = list(zip(np.asarray(support.inputs).reshape(3, 4), np.asarray(support.targets), strict=True))
    expected = [logits_by_hand(meta, order, np.asarray(queries).reshape(2, 4)) for order in permutations(rows)]
    orders = set()
    for key in jax.random.split(KEY, 12):
        said = predictions(LEARNER, meta, support, queries, key)
        (order,) = (place for place, other in enumerate(expected) if np.allclose(said, other, rtol=1e-9))
        orders.add(order)
    assert len(orders) > 3  # of six; twelve draws miss three given ones with a probability of 2⁻¹²


def test_the_least_used_slots_are_emptied_and_written_and_no_others():
    """With the gates shut. Used least are slots 1, then 3: one for each head."""
    memory, _ = access(MEMORY, KEYS, jnp.zeros(READS), jnp.asarray(DECAY), jnp.asarray(SHARPNESS))
    np.testing.assert_allclose(memory.slots, jnp.stack([MEMORY.slots[0], KEYS[0], MEMORY.slots[2], KEYS[1]]))


def test_images_fill_the_memory_before_any_slot_is_used_again():
    keys = jnp.asarray(np.random.default_rng(3).normal(size=(SLOTS + 1, 1, WIDTH)), jnp.float32)
    memory = Memory(jnp.zeros((SLOTS, WIDTH)), jnp.zeros(SLOTS), jnp.zeros((1, SLOTS)))
    for place, key in enumerate(keys):
        before = memory
        memory, _ = access(memory, key, jnp.zeros(1), jnp.asarray(0.99), jnp.asarray(SHARPNESS))
        slot = place if place < SLOTS else int(jnp.argmin(before.usage))
        np.testing.assert_array_equal(memory.slots, before.slots.at[slot].set(key[0]))


def test_the_places_of_the_slots_mean_nothing():
    order = jnp.array([2, 0, 3, 1])
    moved = Memory(MEMORY.slots[order], MEMORY.usage[order], MEMORY.reading[:, order])
    (memory, found), (other, same) = (
        access(m, KEYS, GATES, jnp.asarray(DECAY), jnp.asarray(SHARPNESS)) for m in (MEMORY, moved)
    )
    np.testing.assert_allclose(same, found, rtol=1e-6)
    np.testing.assert_allclose(other.slots, memory.slots[order], rtol=1e-6)
    np.testing.assert_allclose(other.usage, memory.usage[order], rtol=1e-6)


@pytest.mark.parametrize("places", [(3, 4, 5), (0, 2, 4)], ids=["behind", "between"])
def test_absent_rows_change_nothing(places):
    """Wherever they are, and whatever is in them: the state is the same, the order of the others included."""
    meta = drawn(LEARNER.init_meta(KEY))
    support = mc.Examples(images(0, 3), jnp.array([2, 0, 1]))
    there = np.setdiff1d(np.arange(6), places)
    padded = mc.Examples(images(2, 6).at[there].set(support.inputs), jnp.full(6, -1).at[there].set(support.targets))
    for key in jax.random.split(KEY, 5):
        alone, beside = (adapt(key, meta, data).state for data in (support, padded))
        for a, b in zip(jax.tree.leaves(beside), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_without_support_the_state_is_the_first():
    meta = drawn(LEARNER.init_meta(KEY))
    state = adapt(KEY, meta, mc.Examples(images(0, 3), jnp.array([-1, -1, -1]))).state
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(state))


def test_each_query_is_classified_by_itself():
    meta, support = drawn(LEARNER.init_meta(KEY)), mc.Examples(images(0, 3), jnp.array([2, 0, 1]))
    queries = images(1, 4)
    together = predictions(LEARNER, meta, support, queries)
    alone = jnp.concatenate([predictions(LEARNER, meta, support, query[None]) for query in queries])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("start", ["fresh", "drawn"])
def test_the_meta_gradient_against_differences(start):
    """Through five steps of two heads on four slots, so that slots are used again."""
    fresh = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), LEARNER.init_meta(KEY))
    meta = fresh if start == "fresh" else drawn(fresh)
    support = mc.Examples(images(0, 6), jnp.array([0, 1, 2, -1, 2, 1]))
    task = mc.Task(support, mc.Examples(images(1, 4), jnp.array([0, 1, 2, 0])))
    mc.Unroll().check(LEARNER, meta, task)
    direction = drawn(meta, seed=1)

    @jax.jit
    def loss(shift):
        moved = jax.tree.map(lambda m, d: m + shift * d, meta, direction)
        # With the estimator's own key, so that the support set comes in the same order.
        adapted = LEARNER.adapt(jax.random.split(KEY, 3)[1], moved, task.support)
        return LEARNER.loss(KEY, moved, adapted, task)[0]

    gradient = jax.jit(lambda meta: mc.Unroll().estimate(KEY, LEARNER, meta, (), task)[0].gradient)(meta)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))
    along = sum(float(jnp.vdot(g, d)) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    assert along == pytest.approx(float(loss(1e-6) - loss(-1e-6)) / 2e-6, rel=1e-6)


def test_a_last_layer_that_does_not_tell_its_size_is_refused():
    bare = mc.sequential(lambda key: [jnp.ones(()), jnp.ones((4, 2))], [lambda w, x, _: w * x, lambda w, x, _: x @ w])
    with pytest.raises(ValueError, match=r"no dict with a 'weight' \[features, outputs\].*make it so, or take one"):
        mc.MemoryAugmented(bare, mc.cross_entropy).init_meta(KEY)


@pytest.mark.parametrize("part", ["keys", "controller"])
def test_keys_of_zero_have_a_gradient(part):
    """Their direction is not defined: the gradient must be finite all the same."""
    meta = drawn(LEARNER.init_meta(KEY))
    meta[-1][part] = jax.tree.map(jnp.zeros_like, meta[-1][part])
    task = mc.Task(*(mc.Examples(images(seed, 3), jnp.array([2, 0, 1])) for seed in (0, 1)))
    gradient = jax.jit(lambda meta: mc.Unroll().estimate(KEY, LEARNER, meta, (), task)[0].gradient)(meta)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_it_learns_to_remember_what_the_support_set_calls_its_images():
    """Two classes around two random points, new ones for every task: what names them is the support set alone."""

    def points(key):
        key_points, key_noise = jax.random.split(key)
        centres = jax.random.normal(key_points, (2, 1, 2, 4, 1))
        seen = centres + 0.1 * jax.random.normal(key_noise, (2, 3, 2, 4, 1))
        query = mc.Examples(seen[:, 1:].reshape(4, 2, 4, 1), jnp.array([0, 0, 1, 1]))
        return mc.Task(mc.Examples(seen[:, 0], jnp.array([0, 1])), query)

    method = mc.MANN(hidden=20, slots=6, width=8, reads=2, outer_rate=1e-2)
    algorithm = method.build(mc.pixels((2, 4, 1), 2), points, loss=mc.cross_entropy)
    state = eqx.filter_jit(algorithm.init)(KEY)
    state, _ = jax.jit(lambda s: jax.lax.scan(lambda s, k: algorithm.step(k, s), s, jax.random.split(KEY, 400)))(state)

    @jax.jit
    def accuracy(keys, turned):
        def of_one(key):
            task = points(key)
            support = task.support._replace(targets=jnp.where(turned, 1 - task.support.targets, task.support.targets))
            logits = algorithm.predict(algorithm.adapt(key, state.meta, support), task.query.inputs)
            return jnp.mean(logits.argmax(axis=1) == task.query.targets)

        return jnp.mean(jax.vmap(of_one)(keys))

    keys = jax.random.split(jax.random.key(1), 200)
    # Chance is ½. Under exchanged names the same answers are wrong.
    assert float(accuracy(keys, False)) > 0.9
    assert float(accuracy(keys, True)) < 0.1
