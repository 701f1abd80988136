"""Two devices of one process, and two processes on loopback, give what one device gives."""

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import metaception as mc

SCRIPT = Path(__file__).with_name("sharded_training.py")
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@pytest.fixture(scope="module")
def one_device():
    train = runpy.run_path(str(SCRIPT))["train"]
    results = {"float32": train(mc.Vectorised())}
    with jax.enable_x64(True):
        results["float64"] = train(mc.Vectorised())
    return results


def start(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(processes):
    try:
        for process in processes:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()


def compare(path, one_device):
    two = np.load(path)
    for name, expected in one_device.items():
        assert two[name].dtype == expected.dtype == name
        assert np.abs(expected).min() > 1e-6  # so that a relative comparison means something everywhere
        scale = np.abs(expected).max()
        np.testing.assert_allclose(two[name], expected, rtol=TOLERANCE[name], atol=TOLERANCE[name] * scale)


def test_two_devices(tmp_path, one_device):
    finish([start(tmp_path / "two.npz", 2)])
    compare(tmp_path / "two.npz", one_device)


def test_two_processes(tmp_path, one_device):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    finish([start(tmp_path / f"{index}.npz", 1, address, 2, index) for index in range(2)])
    for index in range(2):
        compare(tmp_path / f"{index}.npz", one_device)
