"""The command line in processes of its own: exit codes after signals, and training in two processes."""

import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from running import environment

import metaception as mc
from metaception.cli.main import main

TINY = (
    *("--widths", "4", "--meta-batch-size", "4", "--shots", "3", "--queries", "3", "--validation-tasks", "4"),
    *("--test-shots", "3", "--test-tasks", "6", "--test-steps", "2", "--test-queries", "7"),
)


def _start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "metaception", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_says_how_to_resume_and_sets_the_exit_code(tmp_path, number, code):
    folder = tmp_path / "run"
    flags = ["train", "maml-sinusoid", *TINY, "--steps", "10000000", "--log-every", "1000000", "--out", str(folder)]
    process = _start(*flags)
    while not (folder / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=240)
    assert process.returncode == code
    assert "Traceback" not in err
    said = re.search(
        r"stopped: SIG\w+: stopped after [\d,]+ of 10,000,000 outer steps, and saved\. To go on:\n  (.*)\n", err
    )
    assert said
    assert said[1] == f"metaception {' '.join(flags)} --resume"


def _start_both(*flags: str) -> list[subprocess.Popen]:
    """The same training in two processes that join over loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    joined = ["--distributed", "--coordinator", coordinator, "--processes", "2", "--process"]
    return [_start(*flags, *joined, str(index)) for index in range(2)]


def test_two_processes_told_to_stop_go_on_and_agree_with_one(tmp_path):
    """It is the process that writes nothing which is told to stop."""
    folder = tmp_path / "both"
    flags = ["train", "maml-sinusoid", *TINY, "--steps", "300", "--log-every", "5"]
    assert main([*flags, "--out", str(tmp_path / "alone")]) == 0
    both = _start_both(*flags, "--out", str(folder))
    rows = folder / "metrics.jsonl"
    while not rows.exists() or rows.read_text().count("\n") < 2:
        assert all(process.poll() is None for process in both), [process.communicate() for process in both]
        time.sleep(0.01)
    both[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [143, 143], said
    assert "To go on:\n  metaception train maml-sinusoid" in said[0][1]
    assert 0 <= mc.load_run(folder).step < 300

    again = _start_both(*flags, "--out", str(folder), "--resume")
    said = [process.communicate(timeout=240) for process in again]
    assert [process.returncode for process in again] == [0, 0], said
    # The second process writes nothing and reports nothing; what it says of its network is not ours.
    assert "held-out tasks" in said[0][0]
    assert "held-out tasks" not in said[1][0]
    one = mc.load_run(tmp_path / "alone")
    two = mc.load_run(folder, one.algorithm)
    assert one.step == two.step == 300
    assert [row["step"] for row in two.rows] == list(range(0, 301, 5))
    for mine, theirs in zip(jax.tree.leaves(one.metas("last")), jax.tree.leaves(two.metas("last")), strict=True):
        scale = np.abs(mine).max()
        np.testing.assert_allclose(theirs, mine, rtol=1e-5, atol=1e-5 * scale)
