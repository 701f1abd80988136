"""The compiled loop: the same bits wherever it is cut, honest sums, the best on validation, patience."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import algorithm, same_bits

import metaception as mc
from metaception.core.streams import stream_key
from metaception.runs.loop import Loop


def _loop(algorithm: mc.MetaAlgorithm, seeds=(3,), patience: int = 5) -> Loop:
    return Loop(algorithm, seeds, validation=algorithm.tasks, validation_tasks=4, patience=patience)


@pytest.fixture(scope="module")
def loop() -> Loop:
    return _loop(algorithm(), seeds=(3, 4))


def test_cuts_change_no_bit_and_compile_nothing_anew(loop):
    whole = loop.advance(loop.start(), 7)
    pieces = loop.start()
    for stop in (1, 2, 5, 5, 7):
        pieces = loop.advance(pieces, stop)
    assert whole.step == pieces.step == 7
    assert same_bits(jax.device_get(whole), jax.device_get(pieces))
    # And from host arrays, as after a checkpoint.
    again = loop.advance(loop.place(jax.device_get(loop.advance(loop.start(), 5))), 7)
    assert same_bits(jax.device_get(whole), jax.device_get(again))
    assert loop._advance._cache_size() == 1


def test_a_step_of_the_loop_is_a_step_of_the_algorithm_with_the_key_of_its_number():
    # Recomputed by hand from the algorithm's own init and step.
    a = algorithm()
    state = a.init(stream_key(3, "initialise"))
    step, losses = eqx.filter_jit(a.step), []
    for t in range(3):
        state, info = step(jax.random.fold_in(stream_key(3, "train"), t), state)
        losses.append(float(info.loss))
    loop = _loop(a)
    done = loop.advance(loop.start(), 3)
    assert np.isclose(done.sums["loss"][0], sum(losses), rtol=1e-5)
    assert int(done.taken[0]) == 3
    for mine, theirs in zip(jax.tree.leaves(done.state.meta), jax.tree.leaves(state.meta), strict=True):
        np.testing.assert_allclose(mine[0], theirs, rtol=1e-4, atol=1e-6)


def test_each_seed_is_its_own_single_run(loop):
    both = loop.advance(loop.start(), 5)
    for index, seed in enumerate((3, 4)):
        alone = _loop(algorithm(), seeds=(seed,))
        single = alone.advance(alone.start(), 5)
        for mine, theirs in zip(jax.tree.leaves(both.state.meta), jax.tree.leaves(single.state.meta), strict=True):
            np.testing.assert_allclose(mine[index], theirs[0], rtol=1e-5)
    assert not np.allclose(both.sums["loss"][0], both.sums["loss"][1])


def test_best_keeps_the_lowest_validation_loss_of_each_seed(loop):
    snapshot, seen = loop.start(), []
    for stop in (0, 10, 20, 30):
        snapshot, figures = loop.validate(loop.advance(snapshot, stop))
        seen.append((figures["validation_after"], jax.device_get(snapshot.state.meta)))
    losses = np.array([after for after, _ in seen])
    for index in range(2):
        lowest = losses[:, index].argmin()
        assert snapshot.best.loss[index] == losses[lowest, index]
        assert int(snapshot.best.step[index]) == (0, 10, 20, 30)[lowest]
        mine = jax.tree.map(lambda leaf, i=index: np.asarray(leaf)[i], snapshot.best.meta)
        theirs = jax.tree.map(lambda leaf, i=index: leaf[i], seen[lowest][1])
        assert same_bits(mine, theirs)


class _SometimesBad(mc.TaskDistribution):
    """Tasks whose targets are not numbers for a part of the keys, or for all."""

    share: float = eqx.field(static=True)

    def sample(self, key):
        x = jax.random.normal(key, (3, 1))
        bad = jax.random.uniform(jax.random.fold_in(key, 1)) < self.share
        examples = mc.Examples(x, jnp.where(bad, jnp.nan, x))
        return mc.Task(examples, examples)


def test_skipped_steps_are_counted_and_left_out_of_the_sums():
    a = mc.MAML(meta_batch_size=1).build(mc.mlp(1, 1, widths=(4,)), _SometimesBad(0.3))
    loop = _loop(a, patience=100)
    done = loop.advance(loop.start(), 40)
    skipped = int(done.state.skipped[0])
    assert 0 < skipped < 40
    assert int(done.taken[0]) == 40 - skipped
    assert np.isfinite(done.sums["loss"][0])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(done.state.meta))


def test_patience_ends_a_stretch_at_the_very_step():
    a = mc.MAML(meta_batch_size=1).build(mc.mlp(1, 1, widths=(4,)), _SometimesBad(1.0))
    loop = _loop(a, patience=5)
    assert loop.advance(loop.start(), 1000).step == 5


def test_big_arrays_are_arguments_not_constants_of_the_program():
    x = np.zeros((500, 40, 1), np.float32)
    a = mc.MAML(meta_batch_size=1).build(mc.mlp(1, 1, widths=(4,)), mc.ArrayTasks(x, x, x, x))
    loop = _loop(a)
    snapshot = loop.start()
    text = loop._advance.lower(snapshot.state, snapshot.sums, snapshot.taken, loop._constants, np.int32(1)).as_text()
    assert "tensor<500x40x1xf32>" in text
    assert not any("constant" in line and "500x40x1" in line for line in text.splitlines())
