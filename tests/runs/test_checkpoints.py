"""Checkpoints: what comes back is what went in; damage is found; a full disk spares what is there."""

import os
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import same_bits

import metaception as mc
from metaception.runs.checkpoints import KEEP, Checkpoints


def _tree(step: int):
    rest = {"step": jnp.asarray([step]), "half": jnp.ones((2,), jnp.bfloat16), "empty": jnp.zeros((2, 0)), "none": None}
    return [{"weight": jnp.asarray([[-0.0, step / 3]])}, rest, jnp.asarray([True, False])]


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path, writing=True)
    yield opened
    opened.close()


def _shapes(tree):
    return jax.eval_shape(lambda: tree)


def test_the_newest_comes_back_bit_for_bit_and_the_last_few_are_kept(checkpoints):
    for step in (1, 5, 9, 12):
        checkpoints.save(step, _tree(step))
    assert checkpoints.steps() == [1, 5, 9, 12][-KEEP:]
    step, tree = checkpoints.restore(_shapes(_tree(0)))
    assert step == 12
    assert same_bits(tree, jax.device_get(_tree(12)))


def test_keys_come_back_as_keys(checkpoints):
    tree = {"key": jax.random.split(jax.random.key(7), 2)}
    checkpoints.save(1, tree)
    _, back = checkpoints.restore(_shapes(tree))
    assert back["key"].dtype == tree["key"].dtype
    assert bool((back["key"] == tree["key"]).all())


def test_no_checkpoint_is_none(checkpoints):
    assert checkpoints.restore(_shapes(_tree(0))) is None


def _data_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_truncated_newest_checkpoint_falls_back_with_a_warning(tmp_path):
    saved = Checkpoints(tmp_path, writing=True)
    for step in (1, 2):
        saved.save(step, _tree(step))
    saved.close()
    files = {path: path.read_bytes() for path in _data_files(tmp_path / "2" / "snapshot") if path.parent.name == "d"}
    assert files
    for path, content in files.items():
        path.write_bytes(content[: len(content) // 2])
    opened = Checkpoints(tmp_path, writing=True)
    with pytest.warns(UserWarning, match=r"the checkpoint of step 2 in .* is damaged, and passed over: "):
        step, tree = opened.restore(_shapes(_tree(0)))
    assert step == 1
    assert same_bits(tree, jax.device_get(_tree(1)))
    # Once the run goes on from step 1, it comes by step 2 again.
    opened.discard_after(1)
    opened.save(2, _tree(2))
    assert opened.restore(_shapes(_tree(0)))[0] == 2
    opened.close()


# Orbax leaves coroutines of its own unfinished where a file that it reads is damaged.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_each_file_of_a_checkpoint_may_be_cut_without_wrong_numbers(tmp_path):
    saved = Checkpoints(tmp_path, writing=True)
    for step in (1, 2):
        saved.save(step, _tree(step))
    saved.close()
    for path in _data_files(tmp_path / "2"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        opened = Checkpoints(tmp_path, writing=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *a, **k: None)
            step, tree = opened.restore(_shapes(_tree(0)))
        opened.close()
        # Some files are not needed to read it; then it must be the newest, whole.
        assert same_bits(tree, jax.device_get(_tree(step))), path
        path.write_bytes(content)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_all_damaged_is_an_error_that_names_them(tmp_path):
    saved = Checkpoints(tmp_path, writing=True)
    saved.save(4, _tree(4))
    saved.close()
    for path in _data_files(tmp_path / "4" / "snapshot"):
        path.write_bytes(b"")
    opened = Checkpoints(tmp_path, writing=False)
    with pytest.warns(UserWarning, match="passed over"), pytest.raises(mc.RunError, match=r"damaged \(steps 4\)"):
        opened.restore(_shapes(_tree(0)))
    opened.close()


def test_another_models_checkpoint_is_not_taken_for_ours(checkpoints):
    checkpoints.save(1, {"weight": jnp.zeros((2, 3))})
    with pytest.warns(UserWarning, match="passed over"), pytest.raises(mc.RunError):
        checkpoints.restore(_shapes({"weight": jnp.zeros((2, 4))}))


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_and_spares_the_last_checkpoint(small_disk):
    opened = Checkpoints(small_disk, writing=True)
    opened.save(1, _tree(1))
    with open(small_disk / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 512)
        except OSError:
            pass
    with pytest.raises(mc.RunError) as caught:
        opened.save(1_002, _tree(2))
    assert str(caught.value) == (
        f"the disk is full: could not write the checkpoint of step 1,002 in {small_disk}. The checkpoint of step 1 is intact; "
        "free some space, then go on with --resume."
    )
    opened.close()
    os.remove(small_disk / "filler")
    again = Checkpoints(small_disk, writing=True)
    step, tree = again.restore(_shapes(_tree(0)))
    assert step == 1
    assert same_bits(tree, jax.device_get(_tree(1)))
    again.save(1_002, _tree(2))
    assert again.steps() == [1, 1_002]
    again.close()


def test_a_full_disk_by_its_error_alone(checkpoints, monkeypatch):
    # What Orbax's writer says on a full disk comes as text, not as an errno.
    def refuse(*args, **kwargs):
        raise ValueError("Error writing 'd/3f': write failed: No space left on device [source locations='…']")

    monkeypatch.setattr(checkpoints._manager, "save", refuse)
    with pytest.raises(mc.RunError, match=r"^the disk is full: .* There is no checkpoint before it; free some space"):
        checkpoints.save(3, _tree(3))


def test_digest_sees_every_kind_of_change():
    from metaception.runs.arrays import digest

    a = {"x": np.zeros(4, np.float32)}
    others = [{"y": a["x"]}, {"x": a["x"].reshape(2, 2)}, {"x": np.zeros(4, np.int32)}, {"x": -a["x"]}]
    assert all(not np.array_equal(digest(a), digest(other)) for other in others)
