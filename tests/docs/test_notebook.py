"""The notebook for students: its script runs, and what is committed is that script, executed."""

import json
import runpy
from pathlib import Path

import jupytext
import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
SCRIPTS = [path for path in sorted(FOLDER.glob("*.py")) if path.name != "execute.py"]


@pytest.fixture
def agg():
    mpl.use("agg")
    yield
    plt.close("all")


def test_runs_with_few_steps(agg, monkeypatch):
    monkeypatch.setenv("METACEPTION_NOTEBOOK_STEPS", "100")
    names = runpy.run_path(str(FOLDER / "why_it_adapts.py"))
    assert len(plt.get_fignums()) == 4
    # The picture from above has its start where the dot is drawn: 20 columns from the left, and between two rows.
    height, start = names["heights"][1], names["starts"]["meta-trained"]
    here = names["loss"](start, names["task"].query)
    assert min(height[6:8, 20]) < here < max(height[6:8, 20])
    # The curve over inner steps and the walk along the gradient agree that a step helps the random start.
    assert names["losses"].shape == (3, 200, 21)
    assert names["losses"][2, :, 1].mean() < names["losses"][2, :, 0].mean()
    assert names["gradient_way"][20] < names["gradient_way"][0]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_committed_notebook_is_the_script_executed(script):
    path = script.with_suffix(".ipynb")
    committed = json.loads(path.read_text())["cells"]
    now = jupytext.read(script).cells
    remedy = "run docs/notebooks/execute.py"
    assert [(c["cell_type"], "".join(c["source"])) for c in committed] == [(c.cell_type, c.source) for c in now], remedy
    executed = [c["execution_count"] for c in committed if c["cell_type"] == "code"]
    assert executed == list(range(1, len(executed) + 1)), remedy
    assert any("image/png" in output.get("data", {}) for c in committed for output in c.get("outputs", []))
    assert path.stat().st_size < 500_000
