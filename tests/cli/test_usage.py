"""What the command line says: help, and errors that name what was given, what was expected and the remedy."""

import subprocess
import sys

import pytest

import metaception as mc
from metaception.cli.main import _ALL, main
from metaception.runs.presets import PRESETS


def _run(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(list(arguments))
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["trian"],
            f"error: unknown command 'trian'; expected one of {', '.join(_ALL)}. Did you mean train?",
        ),
        (
            ["train", "maml-sinusod"],
            "error: unknown preset 'maml-sinusod'. Did you mean maml-sinusoid or imaml-sinusoid or fomaml-sinusoid? "
            f"`metaception list` shows all {len(PRESETS)}.",
        ),
        (["train", "zzz"], f"error: unknown preset 'zzz'. `metaception list` shows all {len(PRESETS)}."),
        (["train", "maml-sinusoid", "--steps", "-1"], "error: steps=-1; expected a whole number, 0 or more."),
        (["train", "maml-sinusoid", "--seeds", "0"], "error: seeds=0; expected a whole number, 1 or more."),
        (
            ["train", "maml-sinusoid", "--meta-batch-size", "0"],
            "error: meta_batch_size=0; an outer step needs at least one task.",
        ),
        (
            ["train", "maml-sinusoid", "--mapping", "chunked:0"],
            "error: unknown mapping 'chunked:0'; expected one of: auto, sequential, vectorised, chunked:SIZE (for example "
            "chunked:8), sharded.",
        ),
        (
            ["train", "maml-sinusoid", "--process", "1"],
            "error: --coordinator, --processes and --process go with --distributed; add it, or leave them out.",
        ),
        (
            ["train", "maml-sinusoid", "--distributed", "--process", "1"],
            "error: give --coordinator HOST:PORT, --processes N and --process I together, or none of them.",
        ),
        (
            ["evaluate", "/nowhere/run"],
            "error: /nowhere/run is not a run: it does not exist. Give a folder that `metaception train` has made.",
        ),
        (
            ["train", "maml-glyphs", "--test-shots", "60"],
            "error: the test of this run: Episodes: 252 of 252 classes of Glyphs (test) have fewer than the 60 + 5 images "
            "that an episode takes of a class ('Georgian/GEORGIAN CAPITAL LETTER GAN' among them; the smallest has 20); take "
            "fewer shots or queries, or leave those classes out.",
        ),
        (
            ["train", "protonet-glyphs", "--test-statistics", "per_step"],
            "error: the test of this run: per_step_statistics: Prototypes does not adapt a model by steps.",
        ),
        (
            ["train", "maml-glyphs", "--statistics", "support", "--test-statistics", "per_step"],
            "error: the test of this run: per_step_statistics: the learner has the policy 'support'; give one that was "
            "trained with 'batch'.",
        ),
        (
            ["train", "maml-glyphs", "--batches", "16"],
            "error: maml: batches=16 is for pretraining on all classes (multiclass_pretrain); in a batch of all classes there "
            "is no support set to learn a task from. Leave it out.",
        ),
        (["compare"], "error: compare: no run given; give one or more run folders."),
    ],
)
def test_bad_usage_is_told_without_a_traceback(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = _run(capsys, *arguments)
    assert (code, out, err) == (2, "", message + "\n")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--inner-rate", "nan"], "maml: inner_rate=nan; expected a finite step size, not negative."),
        (["--outer-rate", "-0.1"], "maml: outer_rate=-0.1; expected a finite step size, not negative."),
        (["--inner-steps", "-2"], "maml: inner_steps=-2; expected 0 or more."),
        (["--shots", "0"], "shots=0, queries=10; a task needs at"),
        (["--amplitude", "5", "1"], "amplitude=(5.0, 1.0); expected (low, high)"),
        (["--test-shots", "0"], "test_shots=[0]; expected at least one"),
        (["--test-tasks", "0"], "test_tasks=0; expected 1 or more."),
        (["--inner-rat", "0.1"], "--inner-rate"),
        (["--activation", "gelu"], "relu"),
    ],
)
def test_flags_are_checked_as_they_are_read(capsys, flags, message):
    code, _, err = _run(capsys, "train", "maml-sinusoid", *flags)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


@pytest.mark.parametrize("flag", ["--data-dir=", "--data_dir=", "--data-dir ", "--data_dir "])
def test_the_folder_of_the_data_is_taken_however_it_is_spelt(capsys, tmp_path, monkeypatch, flag):
    monkeypatch.setenv("METACEPTION_DATA", "elsewhere")
    code, out, _ = _run(capsys, "data", *f"{flag}{tmp_path}".split())
    assert code == 0
    assert str(tmp_path) in "".join(out.split("\n"))


def test_help_tells_a_newcomer_where_to_start(capsys):
    code, out, _ = _run(capsys, "--help")
    assert code == 0
    for word in ("list", "train PRESET", "evaluate RUN", "compare RUN ...", "plot RUN", "cite RUN", "To start with:"):
        assert word in out
    assert _run(capsys) == (2, out, "")


def test_help_of_train_lists_the_presets(capsys):
    code, out, _ = _run(capsys, "train", "--help")
    assert code == 0
    assert "usage: metaception train PRESET [OPTIONS]" in out
    for preset in PRESETS.values():
        assert preset.name in out
        assert preset.description in out


def test_help_of_a_preset_has_flat_flags_and_its_values(capsys):
    code, out, _ = _run(capsys, "train", "imaml-sinusoid", "--help")
    assert code == 0
    for flag in ("--inner-rate", "--shots", "--widths", "--steps", "--seeds", "--out", "--resume", "--test-shots"):
        assert flag in out
    assert f"(default: {PRESETS['imaml-sinusoid'].method.strength})" in out
    assert "--preset" not in out
    assert "--name" not in out


@pytest.mark.parametrize("command", sorted(set(_ALL) - {"train"}))
def test_every_command_has_help(capsys, command):
    code, out, _ = _run(capsys, command, "--help")
    assert code == 0
    assert f"usage: metaception {command}" in out


def test_list_has_every_preset(capsys):
    code, out, _ = _run(capsys, "list")
    assert code == 0
    assert [name for name in PRESETS if name not in out] == []


def test_list_takes_words_of_names(capsys):
    code, out, _ = _run(capsys, "list", "omniglot", "20w")
    assert code == 0
    assert [name for name in PRESETS if name in out] == [n for n in PRESETS if "omniglot" in n and "20w" in n]
    code, _, err = _run(capsys, "list", "nonsense")
    assert code == 2
    assert "no preset has nonsense in its name" in err


def test_version(capsys):
    assert _run(capsys, "--version") == (0, f"metaception {mc.__version__}\n", "")


def test_nothing_uses_jax_before_the_processes_have_joined():
    # jax.distributed.initialize must come before anything else that JAX does.
    code = (
        "import metaception.cli.main, metaception.runs.presets; from jax._src import xla_bridge; "
        "raise SystemExit(xla_bridge.backends_are_initialized())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
