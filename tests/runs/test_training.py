"""`train`: rows, folders, seeds, refusals, and errors that say what to do."""

import inspect
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import algorithm, environment, same_bits

import metaception as mc
from metaception.runs import loop as loop_module
from metaception.runs.folder import RunFolder

SMALL = {"steps": 12, "log_every": 5, "validation_tasks": 4, "progress": False}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return mc.train(algorithm(), folder=folder, seeds=2, seed=7, **SMALL)


def test_a_run_folder_has_all_there_is_to_know(kept):
    rows = [json.loads(line) for line in (kept.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == kept.rows
    assert [row["step"] for row in rows] == [0, 5, 10, 12]
    assert set(rows[0]) == {"step", "skipped", "validation_before", "validation_after"}
    assert set(rows[1]) == set(rows[0]) | {"loss", "gradient_norm"}
    assert all(len(values) == 2 for row in rows for name, values in row.items() if name != "step")
    timing = [json.loads(line) for line in (kept.folder / "timing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in timing] == [0, 5, 10, 12]
    assert set(timing[0]) == {"step", "seconds", "steps_per_second"}
    config = json.loads((kept.folder / "config.json").read_text())
    assert config["run"] == {
        "steps": 12,
        "seed": 7,
        "seeds": 2,
        "validation_tasks": 4,
        "log_every": 5,
        "validate_every": 5,
        "patience": 100,
    }
    assert {"python", "versions", "device", "cores", "commit", "command"} <= set(config["environment"])
    assert config["environment"]["versions"]["jax"] == jax.__version__
    assert any((kept.folder / "tensorboard").iterdir())
    assert [path.name for path in (kept.folder / "checkpoints").iterdir()] == ["12"]


def test_loading_gives_back_the_bits(kept):
    loaded = mc.load_run(kept.folder, algorithm())
    assert loaded.seeds == kept.seeds == [7, 8]
    assert loaded.rows == kept.rows
    assert same_bits(loaded.snapshot, jax.device_get(kept.snapshot))


def test_where_rows_and_checkpoints_fall_changes_no_bit(kept, tmp_path):
    others = [
        mc.train(algorithm(), seeds=2, seed=7, **SMALL | {"log_every": 1}),
        mc.train(algorithm(), seeds=2, seed=7, folder=tmp_path / "run", checkpoint_seconds=0.0, **SMALL),
    ]
    for other in others:
        assert same_bits(jax.device_get(other.snapshot.state), jax.device_get(kept.snapshot.state))


def test_validation_falls_where_it_is_asked_for():
    run = mc.train(algorithm(), validate_every=10, **SMALL)
    assert [row["step"] for row in run.rows if "validation_after" in row] == [0, 10, 12]


def test_validation_may_have_a_distribution_of_its_own():
    easy = mc.Sinusoids(shots=3, queries=3, amplitude=(0.0, 0.0))
    run = mc.train(algorithm(), validation=easy, **SMALL)
    # Targets that are all zero, and a network that starts near zero.
    assert run.rows[0]["validation_before"][0] < 0.2 * mc.train(algorithm(), **SMALL).rows[0]["validation_before"][0]


def test_no_steps_is_the_initialisation():
    a = algorithm()
    run = mc.train(a, **SMALL | {"steps": 0})
    assert run.step == 0
    assert [row["step"] for row in run.rows] == [0]
    assert len(jax.tree.leaves(run.meta("best"))) == len(jax.tree.leaves(run.meta("last")))


def test_training_learns():
    # Predicting zero costs E[A²]/2 = 4.25 on average, for A ~ U(0.1, 5).
    a = mc.MAML(outer_rate=5e-3).build(mc.mlp(1, 1, widths=(20, 20), initialiser="he"), mc.Sinusoids())
    run = mc.train(a, steps=1000, progress=False)
    assert run.rows[-1]["validation_after"][0] < 2.0 < run.rows[-1]["validation_before"][0]
    assert float(run.snapshot.best.loss[0]) == pytest.approx(min(row["validation_after"][0] for row in run.rows))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, "steps=-1; expected a whole number, 0 or more."),
        ({"seeds": 0}, "seeds=0; expected a whole number, 1 or more."),
        ({"seed": -3}, "seed=-3; expected a whole number, 0 or more."),
        ({"seed": 2**32}, "seed=4294967296; expected seeds below 2³² = 4,294,967,296."),
        ({"log_every": 0}, "log_every=0; expected a whole number, 1 or more."),
        ({"validation_tasks": 0}, "validation_tasks=0; expected a whole number, 1 or more."),
        (
            {"validate_every": 7},
            "validate_every=7 is not a multiple of log_every=5; a validation is part of a row of metrics.",
        ),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds=nan; expected 0 or more."),
        ({"resume": True}, "resume=True without a folder; give the folder of the run to go on with."),
    ],
)
def test_impossible_values_are_refused_before_any_work(settings, message, monkeypatch):
    monkeypatch.setattr("metaception.runs.training.Loop", None)
    with pytest.raises(mc.UsageError) as caught:
        mc.train(algorithm(), **SMALL | settings)
    assert str(caught.value) == message


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(mc.UsageError, match="is a file; a run needs a folder of its own"):
        mc.train(algorithm(), folder=tmp_path / "run", **SMALL)
    assert (tmp_path / "run").read_text() == "mine"


def test_a_folder_that_exists_is_refused(kept):
    with pytest.raises(mc.UsageError) as caught:
        mc.train(algorithm(), folder=kept.folder, **SMALL)
    assert str(caught.value) == (
        f"{kept.folder} exists already. Go on with that run (--resume), take another folder (--out), or remove it."
    )


def test_nobody_is_told_to_remove_what_another_process_is_writing(kept):
    with RunFolder(kept.folder).lock(), pytest.raises(mc.RunError, match="another process is writing"):
        mc.train(algorithm(), folder=kept.folder, **SMALL)


def test_resuming_what_is_not_a_run_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(mc.UsageError) as caught:
        mc.train(algorithm(), folder=tmp_path, resume=True, **SMALL)
    assert str(caught.value) == (
        f"{tmp_path} is not a run: it has no config.json. Give a folder that `metaception train` has made."
    )


def test_resuming_with_other_settings_is_refused_with_the_difference(kept):
    with pytest.raises(mc.UsageError) as caught:
        mc.train(algorithm(inner_rate=0.5), folder=kept.folder, resume=True, seeds=2, seed=7, **SMALL | {"steps": 13})
    assert str(caught.value).splitlines() == [
        f"{kept.folder} was started with another configuration:",
        "  algorithm.values.learner.rate: 0.009999999776482582 -> 0.5",
        "  run.steps: 12 -> 13",
        "Give the settings it was started with, or another folder (--out) for a new run.",
    ]


def test_another_machine_is_told_but_not_refused(kept, monkeypatch):
    from metaception.runs import folder

    real = folder.environment()
    monkeypatch.setattr(folder, "environment", lambda: real | {"cores": 64})
    with pytest.warns(UserWarning, match=r"its bits may differ, for it was started with cores: \d+ -> 64"):
        mc.train(algorithm(), folder=kept.folder, resume=True, seeds=2, seed=7, **SMALL)


def test_meta_gradients_that_stay_bad_stop_the_run_and_say_what_helps(tmp_path):
    def always_bad(key):
        x = jax.random.normal(key, (3, 1))
        return mc.Task(mc.Examples(x, x), mc.Examples(x, x * jnp.nan))

    a = mc.MAML(inner_rate=0.3, inner_steps=2).build(mc.mlp(1, 1, widths=(4,)), mc.FunctionTasks(always_bad))
    with pytest.raises(mc.Diverged) as caught:
        mc.train(a, folder=tmp_path / "run", patience=6, **SMALL)
    assert str(caught.value) == (
        "stopped at outer step 6: the meta-gradient of seed 0 was not finite for 6 steps in a row, and none of them was "
        "taken. Likely remedies: a lower inner rate (now 0.3), a lower outer rate, fewer inner steps (now 2); in Python, an "
        "outer optimiser that clips (optax.clip_by_global_norm); or data without infinities."
    )
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["6"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1] == {
        "step": 5,
        "loss": [None],
        "gradient_norm": [None],
        "skipped": [5],
        "validation_before": [None],
        "validation_after": [None],
    }


@pytest.mark.parametrize(
    ("method", "knobs"),
    [
        (
            {"meta_batch_size": 8},
            [
                "fewer tasks at once: --mapping sequential, or --mapping chunked:4",
                "a cheaper inner loop, where the method has the flag: --memory rematerialise or --memory mixed",
                "a first-order method (fomaml, reptile)",
                "a smaller meta-batch (now --meta-batch-size 8)",
            ],
        ),
        (
            {"meta_batch_size": 8, "mapping": "chunked:2", "memory": "mixed"},
            [
                "smaller chunks of tasks (now --mapping chunked:2), or one at a time: --mapping sequential",
                "a first-order method (fomaml, reptile)",
                "a smaller meta-batch (now --meta-batch-size 8)",
            ],
        ),
        (
            {"meta_batch_size": 1, "mapping": "sequential", "memory": "mixed"},
            ["a first-order method (fomaml, reptile)"],
        ),
    ],
)
def test_out_of_memory_says_which_knobs_save_memory_here(method, knobs, monkeypatch):
    def refuse(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 80000000000 bytes.")

    monkeypatch.setattr(loop_module.Loop, "advance", refuse)
    with pytest.raises(mc.OutOfMemory) as caught:
        mc.train(algorithm(**method), **SMALL)
    lines = str(caught.value).splitlines()
    assert lines[0] == "out of memory. What saves memory here:"
    assert lines[1:-1] == [f"  - {knob}" for knob in knobs]
    assert lines[-1] == "(RESOURCE_EXHAUSTED: Out of memory allocating 80000000000 bytes.)"


def test_other_errors_are_not_taken_for_memory(monkeypatch):
    def refuse(*args):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(loop_module.Loop, "advance", refuse)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        mc.train(algorithm(), **SMALL)


def test_several_seeds_differ_and_are_reported_together(kept):
    assert kept.rows[-1]["loss"][0] != kept.rows[-1]["loss"][1]
    assert np.asarray(jax.tree.leaves(kept.metas())[0]).shape[0] == 2


def test_a_model_larger_than_the_memory_is_refused_before_any_work(tmp_path):
    """Sixteen terabytes; nothing is drawn, compiled or written."""
    huge = mc.MAML().build(mc.mlp(1, 1, widths=(2_000_000, 2_000_000)), mc.Sinusoids())
    with pytest.raises(
        mc.UsageError, match=r"4,000,008,000,001 meta-parameters .* GiB, and this device has .* smaller model"
    ):
        mc.train(huge, steps=1, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


_ALLOCATE = """
import resource
import jax, metaception as mc
algorithm = mc.MAML(mapping="vectorised").build(mc.mlp(1, 1, widths=(3000, 3000)), mc.Sinusoids())
jax.block_until_ready(jax.numpy.zeros(3))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
try:
    mc.train(algorithm, steps=2)
except mc.OutOfMemory as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_memory_that_really_runs_out():
    """25 copies of a model of 36 MB in a process that may take 1 GiB more."""
    run = subprocess.run(
        [sys.executable, "-c", _ALLOCATE], capture_output=True, text=True, env=environment(), check=True
    )
    assert "--mapping sequential" in run.stdout, run.stderr


def test_a_finite_set_of_tasks_needs_others_to_validate_and_test_on():
    x = np.random.default_rng(0).normal(size=(6, 4, 1)).astype(np.float32)
    train, validation, test = mc.ArrayTasks(x, x, x, x).split(2, 2, 2)
    given = mc.MAML(meta_batch_size=2).build(mc.mlp(1, 1, widths=(4,)), train)
    with pytest.warns(UserWarning, match="validation tasks are drawn from the training tasks"):
        run = mc.train(given, steps=1, validation_tasks=2)
    with pytest.raises(mc.UsageError, match="so none of it is held out; give other tasks"):
        run.evaluate()
    assert (
        mc.train(given, steps=1, validation=validation, validation_tasks=2).evaluate(test, count=2).losses.shape[1] == 2
    )


def test_a_method_that_was_not_built_is_refused():
    # Unwrapped: the checked signatures of a test run would not let it through.
    with pytest.raises(mc.UsageError, match=r"expected a MetaAlgorithm, not MAML\(.*build one first"):
        inspect.unwrap(mc.train)(mc.MAML(), steps=1)


def test_resume_starts_a_run_in_an_empty_folder(tmp_path):
    assert mc.train(algorithm(), folder=tmp_path, resume=True, **SMALL).step == 12
