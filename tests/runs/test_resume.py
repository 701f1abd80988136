"""Resuming is bit for bit: wherever a run was killed, it ends with the bytes of a run that was not."""

import random
import signal
import time
from functools import partial

import pytest
from running import algorithm, same_bits, training

import metaception as mc

STEPS, LOG_EVERY = 60, 4
users_training = partial(training, steps=STEPS, log_every=LOG_EVERY, quick=False)  # compiled as a user's runs are


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    process = users_training(folder)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out.split() == ["ready", "done", str(STEPS)]
    return folder


def test_killed_at_random_moments_and_resumed(unbroken, tmp_path):
    folder = tmp_path / "killed"
    rows = folder / "metrics.jsonl"
    moments = random.Random(0)
    for on_the_way in (False, True, False, True):
        # The four last so long together that at most 13 of the 15 rows are there, and none is done before it is killed.
        process = users_training(folder, pause=0.3)
        assert process.stdout.readline() == "ready\n"
        if on_the_way:  # and not before it has gone further than the one before it
            before = rows.stat().st_size if rows.exists() else 0
            while not rows.exists() or rows.stat().st_size <= before:
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.3 if on_the_way else 2.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = users_training(folder)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err

    assert (folder / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    mine, other = mc.load_run(folder, algorithm()), mc.load_run(unbroken, algorithm())
    assert mine.step == other.step == STEPS
    assert same_bits(mine.snapshot, other.snapshot)
    # Whatever died half-written is cleared away.
    assert {path.name for path in (folder / "checkpoints").iterdir()} <= {str(step) for step in range(STEPS + 1)}


def test_resuming_a_run_that_is_done_changes_nothing(unbroken):
    before = (unbroken / "metrics.jsonl").read_bytes()
    process = users_training(unbroken)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out.split()[-1]) == (0, str(STEPS)), err
    assert (unbroken / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_tells_how_to_resume(tmp_path, number):
    folder = tmp_path / "stopped"
    # So many steps that it cannot be done before the signal comes.
    process = training(folder, steps=10_000_000, log_every=1_000_000, checkpoint_seconds=1e6)
    while not (folder / "metrics.jsonl").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=240)
    assert process.returncode != 0
    assert "stopping after this stretch" in err
    last = err.strip().splitlines()[-2:]
    assert f"{number.name}: stopped after" in last[0]
    assert "of 10,000,000 outer steps, and saved. To go on:" in last[0]
    checkpoint = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert f"after {checkpoint:,} of" in last[0]
    assert 0 < checkpoint < 10_000_000


def test_a_second_signal_stops_at_once(tmp_path):
    folder = tmp_path / "stopped"
    process = training(folder, steps=10_000_000, log_every=1_000_000, checkpoint_seconds=1e6)
    while not (folder / "metrics.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    # The second must not arrive before the first was taken from the pipe, or they are one.
    assert process.stderr.readline() == "\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=240)
    assert process.returncode == 130


def test_two_processes_never_write_one_run(tmp_path):
    folder = tmp_path / "run"
    first = training(folder, steps=10_000_000, log_every=1_000_000)
    while not (folder / "metrics.jsonl").exists():
        time.sleep(0.05)
    second = training(folder, steps=10_000_000, log_every=1_000_000)
    _, err = second.communicate(timeout=240)
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert f"another process is writing {folder} (process {first.pid} on " in err
    assert "Wait for it, stop it, or take another folder (--out)." in err
