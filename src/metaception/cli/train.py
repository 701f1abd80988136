"""`metaception train`."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from metaception.cli.console import ResultsTable, caption, console
from metaception.core.algorithm import MetaAlgorithm
from metaception.core.task import TaskDistribution
from metaception.runs import processes
from metaception.runs.errors import Stopped, UsageError
from metaception.runs.preset import Preset, called_by_its_images, to_dict
from metaception.runs.presets import PRESETS
from metaception.runs.testing import check_test, meta_test, save_results
from metaception.runs.training import train


@dataclass(frozen=True)
class Train:
    """Meta-train, then test on tasks never seen: a run folder with metrics, checkpoints, results and pictures.

    Attributes:
        preset: the preset.
        out: the run folder; runs/PRESET-seedS unless given.
        resume: go on with the run in that folder after its last checkpoint; bit for bit as if it had not stopped.
        data_dir: the folder of the data sets, for presets of images; METACEPTION_DATA, or metaception/data in your cache
            folder, unless given.
        quiet: no progress display; there is none anyway where the output is not a terminal.
        checkpoint_seconds: the least time between two checkpoints.
        distributed: train in several processes, one a machine or device, which share the tasks of each outer step. Started
            under SLURM, Open MPI or Kubernetes they find each other; else give the three flags below to each.
        coordinator: HOST:PORT of process 0.
        processes: how many processes there are.
        process: which of them this is, from 0.
    """

    preset: Annotated[Preset, tyro.conf.arg(name="")]
    out: Path | None = None
    resume: bool = False
    data_dir: Path | None = None
    quiet: bool = False
    checkpoint_seconds: float = 30.0
    distributed: bool = False
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None


def run(arguments: list[str]) -> int:
    """Train a preset, as the arguments after `train` say."""
    if not arguments or arguments[0] in ("-h", "--help"):
        _help()
        return 0 if arguments else 2
    name, *flags = arguments
    if name.startswith("-"):
        raise UsageError(f"train: {name} before the preset; the preset comes first: metaception train PRESET {name} …")
    if name not in PRESETS:
        raise UsageError(unknown_preset(name))
    command = tyro.cli(
        Train,
        default=Train(PRESETS[name]),
        args=flags,
        prog=f"metaception train {name}",
        description=f"{PRESETS[name].description}.\n\n{(Train.__doc__ or '').splitlines()[0]}",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    return _train(dataclasses.replace(command, preset=called_by_its_images(command.preset, PRESETS[name])), arguments)


def _train(command: Train, arguments: list[str]) -> int:
    preset = command.preset
    if command.distributed:
        preset = dataclasses.replace(preset, method=dataclasses.replace(preset.method, mapping="sharded"))
        _join(command)
    elif any(value is not None for value in (command.coordinator, command.processes, command.process)):
        raise UsageError("--coordinator, --processes and --process go with --distributed; add it, or leave them out.")
    out = command.out or Path("runs") / f"{preset.name}-seed{preset.seed}"
    if command.resume and not out.exists() and processes.writes():
        print(f"{out} does not exist yet: starting a new run.", file=sys.stderr)
    algorithm = build(preset)
    check_test(algorithm, preset)
    trained = train(
        algorithm,
        steps=preset.steps,
        seed=preset.seed,
        seeds=preset.seeds,
        folder=out,
        resume=command.resume,
        validation=validation(preset),
        validation_tasks=preset.validation_tasks,
        log_every=preset.log_every,
        validate_every=preset.validate_every,
        checkpoint_seconds=command.checkpoint_seconds,
        progress=False if command.quiet else None,
        preset=to_dict(preset),
        resume_command=_resume_command(arguments, out),
    )
    if not processes.writes():
        return 0
    # Only here: matplotlib takes a moment to import.
    from metaception.runs.pictures import draw_pictures  # noqa: PLC0415

    say = console()
    try:
        with contextlib.nullcontext() if command.quiet else say.status("testing on tasks never seen, and drawing"):
            results = meta_test(trained, preset)
            save_results(out, results)
            pictures = draw_pictures(trained, preset, results)
    except KeyboardInterrupt as error:
        again = f"metaception evaluate {shlex.quote(str(out))} --save"
        message = f"SIGINT: trained and saved, but not tested. To test it:\n  {again}"
        raise Stopped(signal.SIGINT, trained.step, message) from error
    say.print(ResultsTable([results], preset.description))
    say.print(caption(results))
    say.print(f"Run folder: {out}; pictures: {', '.join(str(path.relative_to(out)) for path in pictures)}")
    return 0


def build(preset: Preset) -> MetaAlgorithm:
    """The preset's algorithm; settings that cannot work are the user's error."""
    try:
        return preset.build()
    except ValueError as error:
        raise UsageError(str(error)) from error


def validation(preset: Preset) -> TaskDistribution:
    """What the preset's validation tasks are drawn from; data that is not there is the user's to bring."""
    try:
        return preset.tasks.validation_tasks()
    except ValueError as error:
        raise UsageError(str(error)) from error


def unknown_preset(name: str) -> str:
    """The message for a preset that there is not."""
    near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.5)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"unknown preset {name!r}.{meant} `metaception list` shows all {len(PRESETS)}."


def _join(command: Train) -> None:
    """Join the other processes; this must come before JAX is used for anything."""
    given = (command.coordinator, command.processes, command.process)
    if None in given and given != (None, None, None):
        raise UsageError("give --coordinator HOST:PORT, --processes N and --process I together, or none of them.")
    # JAX would take SIGTERM for itself, and a process that gets it before it trains would go on as if nothing had come.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(*given)
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"--distributed: the processes could not find each other ({error}). Start them under SLURM, Open MPI or "
            "Kubernetes, or give each --coordinator HOST:PORT --processes N --process I."
        ) from error


def _resume_command(arguments: list[str], out: Path) -> str:
    extra = [] if any(flag.split("=")[0] == "--out" for flag in arguments) else ["--out", str(out)]
    kept = [flag for flag in arguments if flag != "--resume"]
    return shlex.join(["metaception", "train", *kept, *extra, "--resume"])


def _help() -> None:
    say = console()
    say.print("usage: metaception train PRESET [OPTIONS]\n")
    say.print("Meta-train a preset, then test it on tasks never seen. Every setting of a preset is a flag;")
    say.print("`metaception train PRESET --help` lists them with what they are set to. For example:\n")
    say.print("  metaception train maml-sinusoid --steps 5000 --inner-rate 0.02 --seeds 3 --out runs/try\n")
    say.print("presets:")
    for preset in PRESETS.values():
        say.print(f"  {preset.name:30} {preset.description}")
