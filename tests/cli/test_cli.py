"""The command line from train to cite, in this process, on a preset made tiny."""

import dataclasses
import io
import json
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

import metaception as mc
from metaception.cli.console import ResultsTable, console
from metaception.cli.main import main
from metaception.runs.metrics import clock, read_rows
from metaception.runs.pictures import over_time
from metaception.runs.presets import PRESETS
from metaception.runs.testing import Results, published

TINY = (
    *("--widths", "4", "--meta-batch-size", "2", "--shots", "3", "--queries", "3", "--validation-tasks", "4"),
    *("--test-shots", "3", "5", "--test-tasks", "6", "--test-steps", "2", "--test-queries", "7"),
)
STEPS = ("--steps", "6")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "maml"
    assert main(["train", "maml-sinusoid", *STEPS, *TINY, "--seeds", "2", "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pretrain"
    assert main(["train", "pretrain-sinusoid", *STEPS, *TINY, "--out", str(folder), "--quiet"]) == 0
    return folder


def test_train_leaves_results_and_pictures(trained):
    results = json.loads((trained / "results" / "test.json").read_text())
    assert (results["name"], results["method"], results["seeds"], results["step"]) == (
        "maml-sinusoid",
        "maml",
        [0, 1],
        6,
    )
    # 1 × 4 + 4 weights and biases, 4 × 1 + 1 of the output.
    assert results["parameters"] == 13
    assert [curve["shots"] for curve in results["curves"]] == [3, 5]
    assert all(len(curve["mean"]) == 3 and curve["tasks"] == 6 for curve in results["curves"])
    for name in ("adaptation", "inner_steps", "training"):
        assert (trained / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_results_are_those_of_the_library(trained):
    run = mc.load_run(trained)
    tasks = mc.Sinusoids(shots=5, queries=7, grid=True)
    expected = mc.evaluate(run.algorithm, run.metas(), tasks, steps=2, count=6)
    results = json.loads((trained / "results" / "test.json").read_text())
    np.testing.assert_allclose(results["curves"][1]["mean"], expected.mean, rtol=1e-6)
    np.testing.assert_allclose(results["curves"][1]["interval"], expected.interval, rtol=1e-6)


def test_a_baseline_gets_its_rate_from_validation_tasks(baseline):
    results = json.loads((baseline / "results" / "test.json").read_text())
    assert all(1e-4 <= curve["rate"] <= 9.3 for curve in results["curves"])


def test_load_run_rebuilds_flags_and_all(trained):
    run = mc.load_run(trained)
    assert run.seeds == [0, 1]
    assert run.preset.network.widths == (4,)
    assert run.preset.tasks == mc.Sinusoids(shots=3, queries=3)
    assert run.adapt([[0.0]], [[1.0]])([[0.5], [1.0]]).shape == (2, 1)


def test_evaluate_takes_other_shots_and_steps(trained, capsys):
    flags = ["--test-shots", "4", "--test-steps", "1", "--test-tasks", "5", "--test-seed", "3"]
    assert main(["evaluate", str(trained), *flags]) == 0
    out = capsys.readouterr().out
    assert re.search(r"maml-sinusoid │ +13 │ +4 │ +[\d.]+ ± [\d.]+ │ +[\d.]+ ± [\d.]+ │", out)
    assert (
        "5 held-out tasks × 2 seeds, ± half a 95 % interval over tasks; the meta-parameters best on validation, "
        "6 outer steps" in out
    )


def test_compare_prints_one_table(trained, baseline, capsys):
    assert main(["compare", str(trained), str(baseline)]) == 0
    out = capsys.readouterr().out
    assert (
        len(re.findall(r"│ maml-sinusoid +│ +13 │", out)) == len(re.findall(r"│ pretrain-sinusoid +│ +13 │", out)) == 2
    )
    assert "not comparable" not in out


def test_compare_draws_what_validation_said_over_the_minutes(trained, baseline, tmp_path, capsys):
    picture = tmp_path / "pictures" / "methods.png"
    assert main(["compare", str(trained), str(baseline), "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"Picture: {picture}" in capsys.readouterr().out
    figure = over_time({"maml": trained, "pretrain": baseline})
    (axis,) = figure.axes
    assert axis.get_ylabel() == "validation loss after adaptation"
    for line, folder in zip(axis.get_lines(), (trained, baseline), strict=True):
        rows = [row for row in read_rows(folder / "metrics.jsonl") if "validation_after" in row]
        np.testing.assert_allclose(line.get_ydata(), [np.mean(row["validation_after"]) for row in rows])
        np.testing.assert_allclose(line.get_xdata(), [clock(folder)[row["step"]] / 60 for row in rows])
    assert main(["compare", str(trained), "--picture", "methods.jpg"]) == 2
    assert "expected the name of a PNG file" in capsys.readouterr().err


def test_on_a_narrow_terminal_intervals_stand_below_the_means():
    curve = {"shots": 5, "mean": [3.0] * 11, "interval": [0.125] * 11, "median": [2.0] * 11}
    curve |= {"rate": 0.0055, "diverged": [0], "tasks": 600}
    results = Results("pretrain-sinusoid", "pretrain", "mse", "", 1761, 70_000, 70_000, [0], "best", {}, {}, [curve])
    lines = {}
    for width in (80, 130):
        out = Console(width=width, record=True, file=io.StringIO())
        out.print(ResultsTable([results], "Test losses"))
        lines[width] = out.export_text().splitlines()
    assert any(re.search(r"pretrain-sinusoid +1,761 +5( +3\.000){4} 0\.0055 +0$", line) for line in lines[80])
    assert any(re.search(r"^ +± 0\.125 ± 0\.125 ± 0\.125 +± 0\.125 +of 600$", line) for line in lines[80])
    assert any(line.count("3.000 ± 0.125") == 4 for line in lines[130])


def test_runs_tested_to_different_ends_show_both_and_no_rate_where_none_was_tuned():
    def results(steps):
        curve = {
            "shots": 1,
            "mean": [0.5] * (steps + 1),
            "interval": [0.01] * (steps + 1),
            "median": [0.5] * (steps + 1),
        }
        curve |= {"rate": None, "diverged": [0], "tasks": 600}
        return Results(
            f"to-{steps}", "maml", "accuracy", "", 1761, 10, 10, [0], "best", {}, {"images": "glyphs"}, [curve]
        )

    out = Console(width=160, record=True, file=io.StringIO())
    out.print(ResultsTable([results(3), results(50)], "Tests"))
    text = out.export_text()
    for step in ("0 steps", "1 step", "3 steps", "5 steps", "10 steps", "50 steps"):
        assert f" {step} " in text
    assert "rate" not in text
    (short,) = (line for line in text.splitlines() if "to-3 " in line)
    assert short.count("50.00 ± 1.00") == 3


def test_compare_says_when_tasks_differ(trained, tmp_path, capsys):
    other = tmp_path / "copy"
    shutil.copytree(trained, other)
    assert main(["evaluate", str(other), "--test-seed", "3", "--save"]) == 0
    assert main(["compare", str(trained), str(other)]) == 0
    out = capsys.readouterr().out
    assert "were not tested on the same tasks; the rows are not comparable." in out
    # Two runs of one preset are told apart by their folders.
    assert f"│ {trained} " in out
    assert f"│ {other} " in out


def test_plot_draws_again(trained, capsys):
    picture = trained / "pictures" / "adaptation.png"
    before = picture.read_bytes()
    picture.unlink()
    assert main(["plot", str(trained)]) == 0
    assert str(picture) in capsys.readouterr().out
    assert picture.read_bytes() == before


def test_cite_prints_the_entries(trained, capsys):
    assert main(["cite", str(trained)]) == 0
    assert re.findall(r"@\w+\{(\w+),", capsys.readouterr().out) == ["metaception", "finn2017maml"]


def test_resume_goes_on_and_refuses_other_settings(trained, capsys):
    flags = ["train", "maml-sinusoid", *STEPS, *TINY, "--seeds", "2", "--out", str(trained), "--quiet", "--resume"]
    assert main(flags) == 0
    capsys.readouterr()
    assert main([*flags, "--inner-rate", "0.5", "--amplitude", "1", "2"]) == 2
    said = capsys.readouterr().err
    assert "was started with another configuration:\n" in said
    assert re.search(r"\n  preset\.method\.inner_rate: [\d.]+ -> 0\.5\n", said)
    assert "\n  preset.tasks.amplitude: [0.1, 5.0] -> [1.0, 2.0]\n" in said


def test_resume_of_a_run_that_is_not_there_starts_one_and_says_so(tmp_path, capsys):
    folder = tmp_path / "new"
    assert main(["train", "maml-sinusoid", *STEPS, *TINY, "--out", str(folder), "--quiet", "--resume"]) == 0
    assert f"{folder} does not exist yet: starting a new run." in capsys.readouterr().err
    assert mc.load_run(folder).step == 6


def test_a_folder_that_exists_is_refused(trained, capsys):
    assert main(["train", "maml-sinusoid", *STEPS, *TINY, "--out", str(trained)]) == 2
    assert f"error: {trained} exists already. Go on with that run (--resume)" in capsys.readouterr().err


def test_no_training_at_all_is_a_run_too(tmp_path):
    folder = tmp_path / "random"
    assert main(["train", "random-sinusoid", *TINY, "--out", str(folder), "--quiet"]) == 0
    assert json.loads((folder / "results" / "test.json").read_text())["step"] == 0
    assert not (folder / "pictures" / "training.png").exists()


def test_a_run_that_is_not_at_its_end_is_shown_as_such_and_tested_anew_later(tmp_path, capsys, trained):
    folder = tmp_path / "part"
    shutil.copytree(trained, folder)
    path = folder / "results" / "test.json"
    results = json.loads(path.read_text())
    path.write_text(json.dumps(results | {"step": 6, "planned": 30}))
    # The checkpoint is further on than the stored results: they are made again.
    assert main(["compare", str(folder)]) == 0
    assert json.loads(path.read_text())["step"] == results["step"]
    shown = ResultsTable([Results(**results | {"step": 6, "planned": 30})], "title")
    capsys.readouterr()
    console().print(shown)
    assert "(step 6 of 30)" in capsys.readouterr().out


def test_without_a_terminal_training_is_quiet(trained, capfd, tmp_path):
    flags = ["--steps", "20", "--widths", "4", "--meta-batch-size", "2", "--test-tasks", "4", "--validation-tasks", "4"]
    assert main(["train", "maml-sinusoid", *flags, "--out", str(tmp_path / "run")]) == 0
    out, err = capfd.readouterr()
    assert "steps/s" not in out + err
    assert "held-out tasks" in out


@pytest.mark.parametrize(
    ("preset", "changes", "beside"),
    [
        ("maml-sinusoid", {}, True),
        ("oracle-sinusoid", {}, False),  # the table of the paper has no five-shot figures of the oracle
        ("maml-sinusoid", {"parameters": 13}, False),
        ("maml-sinusoid", {"tasks": {"told": True}}, False),
        ("maml-sinusoid", {"tasks": {"inputs": (-1.0, 1.0)}}, False),
    ],
)
def test_the_papers_figures_stand_beside_the_papers_setting_alone(preset, changes, beside):
    chosen = PRESETS[preset]
    tasks = {"family": "Sinusoids", **dataclasses.asdict(chosen.test_distribution(5)), **changes.pop("tasks", {})}
    count = mc.count_parameters(chosen.build().learner.model)
    values = {
        "name": preset,
        "method": chosen.method.name,
        "measure": "mse",
        "statistics": "",
        "parameters": count,
        "step": 1,
        "planned": 1,
        "seeds": [0],
    }
    results = Results(**values | changes, which="best", test={}, tasks=tasks, curves=[])
    assert (published(results, 5, 1) is not None) == beside
