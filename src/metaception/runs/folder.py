"""The folder of a run: what is where, who may write it, and whether it is the run that is asked for."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from metaception._version import __version__
from metaception.runs.errors import RunError, UsageError
from metaception.runs.files import disk_errors, plain, write_json

FORMAT = 1
"""The version of a run folder's layout."""


class RunFolder:
    """A run's folder: config.json, metrics.jsonl, timing.jsonl, tensorboard/, checkpoints/, results/, pictures/."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    @property
    def results(self) -> Path:
        """Where evaluations go."""
        return self.path / "results"

    @property
    def pictures(self) -> Path:
        """Where pictures go."""
        return self.path / "pictures"

    def config(self) -> dict[str, Any]:
        """The configuration.

        Raises:
            UsageError: where this is not the folder of a run.
        """
        file = self.path / "config.json"
        if not file.is_file():
            what = (
                "has no config.json"
                if self.path.is_dir()
                else "is not a folder"
                if self.path.exists()
                else "does not exist"
            )
            raise UsageError(f"{self.path} is not a run: it {what}. Give a folder that `metaception train` has made.")
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(
                f"{file} is not readable as JSON ({error}); it is not the configuration of a run."
            ) from error
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            found = config.get("format") if isinstance(config, dict) else None
            raise UsageError(
                f"{file} has format {found}; metaception {__version__} reads format {FORMAT}. Use the version that made the "
                "run."
            )
        return config

    def create(self, settings: dict[str, Any]) -> None:
        """Make the folder of a new run.

        Raises:
            UsageError: where there is something at its path already.
            RunError: where that is a run which another process is writing.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; a run needs a folder of its own (--out).")
        if self.path.exists() and any(self.path.iterdir()):
            if (self.path / ".lock").exists():
                with self.lock():  # so that nobody is told to remove what is still being written
                    pass
            raise UsageError(
                f"{self.path} exists already. Go on with that run (--resume), take another folder (--out), or remove it."
            )
        # Made under another name and then renamed: a run that dies here leaves no half of a folder that cannot be resumed.
        building = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with disk_errors(str(self.path), "Choose a folder that can be written (--out)."):
            for part in (self.checkpoints, self.results, self.pictures):
                (building / part.name).mkdir(parents=True, exist_ok=True)
            write_json(building / "config.json", {"format": FORMAT, **settings, "environment": environment()})
            os.rename(building, self.path)

    def compare(self, settings: dict[str, Any]) -> list[str]:
        """Refuse to go on with this run under another configuration.

        Returns:
            What is different about the machine or the versions, a line each: it does not forbid to go on, but then the
            bits may differ.

        Raises:
            UsageError: where a setting is not what it was.
        """
        config = self.config()
        was = {name: value for name, value in config.items() if name not in ("format", "environment")}
        changed = differences(was, plain(settings))
        if changed:
            listed = "".join(f"\n  {line}" for line in changed)
            raise UsageError(
                f"{self.path} was started with another configuration:{listed}\nGive the settings it was started with, or "
                "another folder (--out) for a new run."
            )
        was_here, is_here = ({k: e[k] for k in _BITS} for e in (config["environment"], plain(environment())))
        return differences(was_here, is_here)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against other writers; the system lets go of it even if the process is killed.

        Raises:
            RunError: where another process has it.
        """
        with disk_errors(str(self.path / ".lock"), "Choose a folder that can be written (--out)."):
            file = open(self.path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise RunError(
                    f"another process is writing {self.path} (process {owner}). Wait for it, stop it, or take another folder "
                    "(--out)."
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()} on {platform.node()}\n")
            file.flush()
            yield


# What the bits of a run depend on beside its settings.
_BITS = ("python", "versions", "device", "cores", "flags")


def environment() -> dict[str, Any]:
    """What a run ran on: versions, device, cores, commit, command."""
    device = jax.devices()[0]
    packages = ("metaception", "jax", "jaxlib", "equinox", "optax", "lineax", "numpy", "orbax-checkpoint")
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "device": {"kind": device.device_kind, "platform": device.platform, "count": jax.device_count()},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": {name: os.environ[name] for name in ("XLA_FLAGS", "JAX_ENABLE_X64") if name in os.environ},
        "machine": f"{platform.machine()} {platform.system()} {platform.release()}",
        "commit": _commit(),
        "command": shlex.join(sys.argv),
    }


def differences(was: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two configurations, a line each: `setting: was -> now`."""
    if isinstance(was, dict) and isinstance(now, dict):
        lines = []
        for key in [*was, *(key for key in now if key not in was)]:
            lines += differences(
                was.get(key, "(absent)"), now.get(key, "(absent)"), f"{name}.{key}" if name else str(key)
            )
        return lines
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now) > 4:
        return [
            line for i, pair in enumerate(zip(was, now, strict=True)) for line in differences(*pair, f"{name}[{i}]")
        ]
    return [] if was == now else [f"{name}: {_show(was)} -> {_show(now)}"]


def _show(value: Any) -> str:
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _version(package: str) -> str | None:
    if package == "metaception":
        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that this code runs from; None for an installed package."""
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
