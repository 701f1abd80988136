"""Measuring implementations against each other: each in a process of its own, taking turns."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from work import Implementation


@dataclass(frozen=True)
class Effort:
    """How carefully to measure.

    Attributes:
        rounds: how often every implementation gets its turn.
        seconds: how long a turn is.
    """

    rounds: int = 5
    seconds: float = 0.3


@dataclass(frozen=True)
class Figures:
    """What was measured of one implementation.

    Attributes:
        times: seconds an outer step, one for each round.
        peak_mib: what the outer steps need at their peak, above what the process held before; nan off Linux.
        compile_s: seconds until the first step was done, once the parameters were there.
        versions: of the packages it rests on.
        program_mib: the temporary buffers of the compiled program, where the compiler says so.
    """

    times: list[float]
    peak_mib: float
    compile_s: float
    versions: dict[str, str]
    program_mib: float | None = None

    @property
    def seconds(self) -> float:
        """The median of `times`."""
        return statistics.median(self.times)

    def ratio(self, other: Figures) -> float:
        """How many times longer than `other` it takes: the median over the rounds, in each of which both had their turn."""
        return statistics.median(a / b for a, b in zip(self.times, other.times, strict=True))


class Worker:
    """An implementation in a process of its own, on one core or on all, which does one thing at a time when told to."""

    def __init__(self, name: str, workload: Any, threads: int):
        context = multiprocessing.get_context("spawn")
        self.name, self.steps = name, 1
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, workload, threads))
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()

    def ask(self, what: str, *arguments: Any) -> Any:
        """The answer to one question (see `_serve`); an error over there is raised here."""
        self._connection.send((what, arguments))
        return self.answer()

    def answer(self) -> Any:
        """Wait for the next answer; the first says that the implementation is set up."""
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def calibrate(self, seconds: float) -> None:
        """Find how many outer steps fill a turn."""
        while (taken := self.ask("time", self.steps)) < seconds / 4:
            self.steps *= 2
        self.steps = max(1, round(self.steps * seconds / taken))


def measure(names: Sequence[str], workload: Any, threads: int, effort: Effort) -> dict[str, Figures]:
    """Measure implementations side by side; before that, check that all peers have the meta-gradient of the first.

    Raises:
        AssertionError: where they do not.
    """
    workers: list[Worker] = []
    try:
        for name in names:
            # One after the other, so that no compiler disturbs another one's.
            workers.append(Worker(name, workload, threads))
            workers[-1].answer()
        for worker in workers[1:]:
            if not worker.name.startswith("metaception"):
                check(workers[0], worker, workload.tolerance)
        for worker in workers:
            worker.calibrate(effort.seconds)
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(effort.rounds):
            for worker in workers:
                times[worker.name].append(worker.ask("time", worker.steps) / worker.steps)
        return {w.name: Figures(times[w.name], w.ask("peak", min(w.steps, 20)), **w.ask("facts")) for w in workers}
    finally:
        for worker in workers:
            worker.close()


def check(ours: Worker, peer: Worker, tolerance: float) -> None:
    """Assert that a peer's meta-gradient, on a meta-batch that it drew, is ours, and that the meta-batch is of sinusoids."""
    batch, theirs = peer.ask("estimate")
    same(ours.ask("meta_gradient", batch), theirs, peer.name, tolerance)


def same(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], name: str, tolerance: float) -> None:
    """Assert that two meta-gradients are equal, relative to their norm."""
    a, b = (np.concatenate([np.ravel(part).astype(np.float64) for part in parts]) for parts in (ours, theirs))
    error = np.linalg.norm(a - b) / np.linalg.norm(a)
    assert error < tolerance, f"{name}: its meta-gradient is {error:.2g} off ours, relative to the norm"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(connection: Connection, name: str, workload: Any, threads: int) -> None:
    # Before anything counts the cores.
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        implementation = workload.load(name)
        connection.send(None)
        while True:
            what, arguments = connection.recv()
            doing = {"time": _time, "peak": _peak}.get(what)
            if doing:
                connection.send(doing(implementation, *arguments))
            else:
                connection.send(getattr(implementation, what)(*arguments))
    except EOFError:
        pass
    except Exception as error:
        connection.send(RuntimeError(f"{name}, {workload}: {type(error).__name__}: {error}"))


def _time(implementation: Implementation, steps: int) -> float:
    start = time.perf_counter()
    implementation.run(steps)
    return time.perf_counter() - start


def _peak(implementation: Implementation, steps: int) -> float:
    """The high-water mark of this process's memory during outer steps above the mark before, in MiB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")

    def mark() -> int:
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        assert found
        return int(found[1])

    # From here on what is freed goes back to the system at once, in every thread (M_TRIM_THRESHOLD is -1): one step does so
    # with what earlier steps left behind. Then the mark goes down to what is held now.
    libc = ctypes.CDLL(None)
    libc.mallopt(-1, 1 << 16)
    implementation.run(1)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = mark()
    implementation.run(steps)
    return (mark() - before) / 1024
