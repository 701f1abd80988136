"""Every experiment runs from start to end at its smallest: with `--quick` nothing in results/ changes."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# Some of what each one must have measured.
EXPECTED = {
    "claims": {
        ("periodicity", "maml"),
        ("periodicity", "pretrain"),
        ("sensitivity", "random"),
        ("activations", "relu"),
    },
    "reptile_expansion": {("expansion", "reptile"), ("alignment", "joint_sgd"), ("alignment", "maml")},
    "hessian": {("one step", "tanh"), ("two steps", "tanh"), ("episodes", "deterministic policy")},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_quick(name, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "results").rglob("*")}
    # Pictures want a folder to keep their fonts' list in.
    environment = {**os.environ, "TMPDIR": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    command = [sys.executable, "-W", "error", str(ROOT / "experiments" / f"{name}.py"), "--quick"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    (table,) = tmp_path.glob("*/*.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["experiment"], row["method"]) for row in rows} >= EXPECTED[name]
    assert all(row["mean"] and row["machine"] and row["command"] for row in rows)
    # Each table of the page was filled anew.
    pages = (table.with_suffix(".md"), ROOT / "results" / table.with_suffix(".md").name)
    new, old = (re.findall(r"<!-- table .*?<!-- end -->", page.read_text(), flags=re.DOTALL) for page in pages)
    assert new
    assert all("| --- |" in here and here != there for here, there in zip(new, old, strict=True))
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "results").rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "method", "arguments"),
    [
        ("sinusoid", "random", ["--only", "random"]),
        ("tuning", "maml", ["--only", "maml"]),
        ("glyphs", "anil", ["glyphs", "--only", "anil"]),
        ("representation", "maml", []),
    ],
)
def test_quick_one_method(name, method, arguments, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    script = {"glyphs": "images"}.get(name, name)
    command = [sys.executable, str(ROOT / "experiments" / f"{script}.py"), *arguments, "--quick"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    (table,) = tmp_path.glob("*/*.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["experiment"], row["method"]) for row in rows} == {(name, method)}
    assert all(row["mean"] and row["setting"] and row["machine"] and row["command"] for row in rows)
