"""What is shown of a run: a few lines without a terminal, a live display on one, nothing when quiet."""

import io

import pytest
from rich.console import Console

from metaception.runs import progress


def _row(step, loss=1.0, skipped=0):
    return {
        "step": step,
        "loss": [loss, loss + 1],
        "skipped": [skipped, 0],
        "validation_before": [3.0, 3.0],
        "validation_after": [0.5, 0.7],
    }


def _feed(shown, steps, **row):
    shown.start("maml", 0, steps)
    for step in range(0, steps + 1, max(1, steps // 100)):
        shown.update(step, _row(step, **row))
    shown.stop()


def test_without_a_terminal_there_are_about_ten_lines():
    out = Console(file=io.StringIO(), width=80)
    _feed(progress.Lines(out), 1000)
    lines = out.file.getvalue().splitlines()
    assert lines[0] == "maml: 1,000 outer steps, compiling"
    assert len(lines) <= progress.LINES + 2
    # The mean over the seeds.
    assert lines[1].startswith("  100 / 1,000  loss 1.5  validation 3 → 0.6  ")
    assert lines[1].endswith("left")
    assert lines[-1].startswith("maml: 1,000 outer steps in ")


@pytest.mark.parametrize(
    ("rate", "words"), [(0.4, "2.5 s/step"), (1.0, "1 steps/s"), (6.25, "6.25 steps/s"), (1234.0, "1,234 steps/s")]
)
def test_the_pace_of_slow_steps_is_in_seconds_a_step(rate, words):
    assert progress.Seen(1, 2, rate, {}).pace == words


def test_skipped_steps_are_shown_only_if_there_are_some():
    out = Console(file=io.StringIO(), width=80)
    _feed(progress.Lines(out), 100)
    assert "skipped" not in out.file.getvalue()
    _feed(progress.Lines(out), 100, skipped=7)
    assert "skipped 7" in out.file.getvalue()


def test_figures_that_are_null_are_shown_as_such():
    out = Console(file=io.StringIO(), width=80)
    shown = progress.Lines(out)
    shown.start("maml", 0, 10)
    shown.update(10, {"step": 10, "loss": [None], "skipped": [10]})
    shown.stop()
    assert "loss nan" in out.file.getvalue()


def test_a_terminal_gets_a_live_display():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    _feed(progress.Display(console), 200, skipped=3)
    text = console.file.getvalue()
    for words in ("200 of 200", "training loss", "before → after adaptation", "3 steps whose meta-gradient"):
        assert words in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(4.4, "4 s"), (75.0, "1 min 15 s"), (3599.9, "1 h 00 min"), (3600 * 5 + 120.0, "5 h 02 min")]
)
def test_durations(seconds, words):
    assert progress.duration(seconds) == words


def test_quiet_and_not_a_terminal_are_silent():
    assert isinstance(progress.choose(False), progress.Silent)
    assert isinstance(progress.choose(None), progress.Silent)
    assert isinstance(progress.choose(True), progress.Lines)
