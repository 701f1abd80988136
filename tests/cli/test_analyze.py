"""`metaception analyze`, in this process, on tiny runs of no step: what is analysed need not have been trained."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

import metaception as mc
from metaception.analysis.representation import MEASURES, Similarity, adaptation_similarity
from metaception.cli.layers import freezing_table, similarity_table
from metaception.cli.main import main

TINY = (
    *("--meta-batch-size", "2", "--validation-tasks", "4", "--seeds", "2", "--quiet"),
    *("--test-shots", "3", "--test-tasks", "4", "--test-steps", "2", "--test-queries", "7"),
)
SINUSOID = (*TINY, "--shots", "3", "--widths", "4", "4", "--steps", "0")
FEW = ("--test-tasks", "4", "--similarity-tasks", "3", "--queries", "40")


def train(folder, preset, *flags):
    assert main(["train", preset, *flags, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def maml(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "maml", "maml-sinusoid", *SINUSOID)


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    """Of one seed."""
    flags = [
        *TINY,
        "--images",
        "glyphs",
        "--filters",
        "4",
        "--blocks",
        "1",
        "--steps",
        "0",
        "--seeds",
        "1",
        "--test-steps",
        "1",
    ]
    return train(tmp_path_factory.mktemp("runs") / "glyphs", "maml-omniglot-5w1s", *flags)


def figures(folder, name="analysis"):
    return json.loads((folder / "results" / f"{name}.json").read_text())


def test_the_figures_are_those_of_the_library(maml, capsys):
    assert main(["analyze", str(maml), *FEW]) == 0
    out, found, run = capsys.readouterr().out, figures(maml), mc.load_run(maml)
    assert (found["run"]["name"], found["steps"], found["shots"], found["queries"]) == ("maml-sinusoid", 2, 3, 40)
    many = mc.Sinusoids(shots=3, queries=40, grid=True)
    similarity = adaptation_similarity(run.algorithm, run.metas(), many, steps=2, count=3)
    for index, layer in enumerate(found["similarity"]["layers"]):
        assert (layer["neurons"], layer["rows"]) == ([4, 4, 1][index], 40)
        for measure in ("pwcca", "cka"):
            for what in ("mean", "interval", "floor", "measured"):
                expected = getattr(similarity, what)(measure)[index]
                assert layer[measure][what] == pytest.approx(expected, nan_ok=True)
            assert np.mean(layer[measure]["means"]) == pytest.approx(layer[measure]["mean"])
    # The default tasks, shots and steps are those of results/test.json.
    frozen, (curve,) = found["freezing"], figures(maml, "test")["curves"]
    assert (frozen["mean"][0], frozen["mean"][3]) == pytest.approx((curve["mean"][2], curve["mean"][0]), rel=1e-5)
    assert frozen["frozen"] == [0, 1, 2, 3]
    assert f"{frozen['mean'][0]:.3f} ± {frozen['interval'][0]:.3f}" in out
    assert re.search(
        r"^none +[\d.]+ ± [\d.]+ *\n1 .*\n1–2 .*\nall +[\d.]+ ± [\d.]+ +[+-][\d.]+ ± [\d.]+", out, re.MULTILINE
    )
    assert f"{similarity.mean('cka')[1]:.3f} ± {similarity.interval('cka')[1]:.3f}" in out
    for name in ("similarity", "freezing", "seeds"):
        assert (maml / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_tables_fit_80_columns():
    values = {name: np.array([[[0.5, -0.125], [0.25, 0.125]]]) for name in MEASURES}
    tables = [
        similarity_table(Similarity(["1", "head"], [64, 5], [132_300, 75], values, values, {}), "a title, " * 8),
        freezing_table(mc.Evaluation(np.array([[[0.5, 0.25], [1.0, 0.75]]])), "a title", percent=True),
    ]
    out = Console(width=80, record=True, file=io.StringIO())
    out.print(*tables)
    text = out.export_text()
    assert re.search(r"^1 +64( +0\.375 ± 0\.245){4}\n +132,300( +0\.375){4}$", text, re.MULTILINE)
    assert re.search(r"^all +50\.00 ± 49\.00 +-25\.00 ± 0\.00$", text, re.MULTILINE)


def test_runs_are_compared_in_pairs_on_the_same_inputs(maml, tmp_path, capsys):
    other = shutil.copytree(maml, tmp_path / "other")
    before = {path: path.read_bytes() for folder in (maml, other) for path in folder.rglob("*") if path.is_file()}
    assert main(["analyze", str(maml), str(other), *FEW, "--last", "--out", str(tmp_path / "out")]) == 0
    out, found = capsys.readouterr().out, figures(tmp_path / "out", "between_runs")
    assert [pair["runs"] for pair in found["pairs"]] == [[str(maml)] * 2, [str(maml), str(other)], [str(other)] * 2]
    assert [pair["pairs"] for pair in found["pairs"]] == [1, 4, 1]
    assert f"{maml} and {other}, before adaptation" in out
    assert "3 held-out tasks × 4 pairs of networks" in out
    assert (tmp_path / "out" / "pictures" / "between_runs.png").is_file()
    assert before == {path: path.read_bytes() for path in before}  # --out leaves the runs alone
    within, between, _ = found["pairs"]
    for seeds, runs in zip(within["layers"], between["layers"], strict=True):
        # The pairs of seeds (0, 0) and (1, 1) are of a network with its copy, (0, 1) and (1, 0) as within one run.
        assert runs["cka"]["means"] == pytest.approx([1, *seeds["cka"]["means"] * 2, 1])


def test_images_too(glyphs, capsys):
    assert main(["analyze", str(glyphs), "--test-tasks", "3", "--similarity-tasks", "2"]) == 0
    out, found = capsys.readouterr().out, figures(glyphs)
    assert found["freezing"]["measure"] == "accuracy"
    assert "accuracy in percent, 3 held-out tasks × 1 seed" in out
    assert [layer["neurons"] for layer in found["similarity"]["layers"]] == [4, 5]
    assert found["seeds"] is None


def test_what_cannot_be_measured_is_said_and_the_rest_is_shown(maml, capsys):
    assert main(["analyze", str(maml), *FEW[:4], "--queries", "5"]) == 0
    out, layer = capsys.readouterr().out, figures(maml)["similarity"]["layers"][1]
    assert layer["pwcca"] | {"means": None} == {
        "mean": None,
        "interval": None,
        "floor": None,
        "measured": 0,
        "means": None,
    }
    assert layer["cka"]["mean"] > 0
    assert re.search(r"note: layer 2, PWCCA, mean CCA: measured in 0 of 3 tasks; .*give more than \d examples", out)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "steps=0; expected 1 or more; without an inner step nothing adapts."),
        (["--test-tasks", "0"], "test_tasks=0; expected 1 or more."),
        (["--shots", "900"], "take fewer shots or queries"),
    ],
)
def test_flags_are_checked(glyphs, capsys, flags, message):
    try:
        code = main(["analyze", str(glyphs), *flags])
    except SystemExit as left:
        code = left.code
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_bad_usage_is_told(maml, glyphs, tmp_path, capsys):
    for arguments, message in (
        ([], "error: analyze: no run given; give one or more run folders."),
        (["/nowhere/run"], "error: /nowhere/run is not a run: it does not exist."),
        (
            [str(maml), str(glyphs)],
            f"error: {maml} and {glyphs} cannot be compared layer by layer on the same inputs: the one has inputs of shape "
            "(1,), the other (28, 28, 1).",
        ),
    ):
        assert main(["analyze", *arguments]) == 2
        assert message in capsys.readouterr().err
    config = json.loads((shutil.copytree(maml, tmp_path / "still") / "config.json").read_text())
    config["preset"]["test"]["test_steps"] = 0
    (tmp_path / "still" / "config.json").write_text(json.dumps(config))
    assert main(["analyze", str(tmp_path / "still")]) == 2
    assert "still: its own test takes no inner step, so nothing adapts; give --steps." in capsys.readouterr().err
