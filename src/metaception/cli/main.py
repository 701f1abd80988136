"""The command line's entry: which command, and what becomes of errors.

Exit codes: 0; 1 for a failure; 2 for bad usage; 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import tyro
from rich.console import Console

from metaception._version import __version__
from metaception.cli import adapt, analyze, cite, compare, data, evaluate, export, plot, train
from metaception.cli import list as list_
from metaception.data.places import DataError
from metaception.runs.compilation import use_compilation_cache
from metaception.runs.errors import RunError, Stopped, UsageError

_COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "list": (list_.List, list_.run),
    "evaluate": (evaluate.Evaluate, evaluate.run),
    "compare": (compare.Compare, compare.run),
    "analyze": (analyze.Analyze, analyze.run),
    "plot": (plot.Plot, plot.run),
    "adapt": (adapt.Adapt, adapt.run),
    "export": (export.Export, export.run),
    "cite": (cite.Cite, cite.run),
    "data": (data.Data, data.run),
}
_ALL = ("list", "train", "evaluate", "compare", "analyze", "plot", "adapt", "export", "cite", "data")

_HELP = """\
usage: metaception COMMAND ...

Learning to learn: train a method that adapts to new tasks from a few examples, and test it.

commands:
  list               show the presets: what can be trained
  train PRESET       meta-train a preset, then test it on tasks never seen; makes a run folder
  evaluate RUN       test a run again, on other numbers of shots, steps or tasks
  compare RUN ...    one table of several runs
  analyze RUN ...    what adaptation changes, layer by layer; of several runs, how alike their layers are
  plot RUN           draw a run's pictures again
  adapt RUN          adapt to images of your own, sorted in folders, and classify others
  export RUN         the model as files that load elsewhere
  cite RUN           BibTeX for what a run used
  data [SET]         show the image sets and their licences, or fetch one

options:
  -h, --help         show this; `metaception COMMAND --help` says more about a command
  --version          show the version

To start with:
  metaception train maml-sinusoid --steps 5000 --out runs/first
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    warnings.showwarning = _warn
    try:
        return _dispatch(arguments)
    except (UsageError, DataError) as error:
        _say("error", error)
        return 2
    except RunError as error:
        _say("error", error)
        return 1
    except Stopped as stopped:
        _say("stopped", stopped)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has read enough.
        sys.stdout = None
        return 0


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        print(f"metaception {__version__}")
        return 0
    if name not in _ALL:
        near = difflib.get_close_matches(name, _ALL, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"unknown command {name!r}; expected one of {', '.join(_ALL)}.{meant}")
    _use_data_dir(rest)
    use_compilation_cache()
    if name == "train":
        return train.run(rest)
    kind, run = _COMMANDS[name]
    command: Any = tyro.cli(kind, args=rest, prog=f"metaception {name}", config=(tyro.conf.FlagCreatePairsOff,))
    return run(command)


def _use_data_dir(arguments: list[str]) -> None:
    """Look for data sets where `--data-dir DIR` says; only the commands that have the flag accept it."""
    for index, argument in enumerate(arguments):
        flag, _, given = argument.partition("=")
        if flag.replace("_", "-") != "--data-dir":
            continue
        given = given or "".join(arguments[index + 1 : index + 2])
        if given:
            os.environ["METACEPTION_DATA"] = given


def _say(what: str, error: BaseException) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]{what}:[/bold red] ", end="")
    print(error, file=sys.stderr)


def _warn(message: Warning | str, *details: Any, **more: Any) -> None:
    del details, more
    print(f"warning: {message}", file=sys.stderr)
