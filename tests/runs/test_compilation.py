"""The compilation cache: where it is, what it respects, and that it cannot break a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metaception.runs.compilation import default_cache_folder

_PRINT = """
import jax
{before}
from metaception.runs.compilation import use_compilation_cache
print(use_compilation_cache())
print(jax.jit(lambda x: x + 1)(1))
"""


def _process(before="", **environment) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("METACEPTION_CACHE", "XDG_CACHE_HOME")} | environment
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PRINT.format(before=before)],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"METACEPTION_CACHE": "/a/b"}, Path("/a/b")),
        ({"METACEPTION_CACHE": ""}, None),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/metaception/xla")),
        ({"HOME": "/home/me"}, Path("/home/me/.cache/metaception/xla")),
    ],
)
def test_where_the_cache_is(monkeypatch, environment, folder):
    for name in ("METACEPTION_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_cache_folder() == folder


def test_programs_are_kept_even_if_something_was_compiled_before(tmp_path):
    folder = tmp_path / "cache"
    assert _process("jax.jit(lambda x: x * 2)(1)", METACEPTION_CACHE=str(folder)) == str(folder)
    assert any(path.name.startswith("jit_") for path in folder.iterdir())


def test_a_cache_that_the_user_has_set_stays(tmp_path):
    own = tmp_path / "own"
    said = _process(
        f"jax.config.update('jax_compilation_cache_dir', {str(own)!r})", METACEPTION_CACHE=str(tmp_path / "x")
    )
    assert said == str(own)
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_written_means_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    assert _process(METACEPTION_CACHE=str(tmp_path / "file" / "cache")) == "None"
