"""What a person sees of a run while it trains: a live display on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

LINES = 10
"""About how many lines of progress are written where there is no terminal."""


@dataclass
class Seen:
    """The figures that are shown, the mean over the seeds.

    Attributes:
        step, steps: outer steps done and planned.
        rate: outer steps a second in this process.
        row: the latest row of metrics.
    """

    step: int
    steps: int
    rate: float
    row: dict[str, Any]

    def figure(self, name: str) -> float | None:
        """The mean over the seeds of a column of the row; not a number where the row has null."""
        return float(np.mean(np.asarray(self.row[name], float))) if name in self.row else None

    @property
    def pace(self) -> str:
        """Steps a second, or seconds a step, whichever is the larger number."""
        if 0 < self.rate < 1:
            return f"{1 / self.rate:.1f} s/step"
        return f"{self.rate:,.3g} steps/s" if self.rate < 100 else f"{self.rate:,.0f} steps/s"

    @property
    def left(self) -> str:
        """The time left, in words."""
        return duration((self.steps - self.step) / self.rate) if self.rate > 0 else "?"

    @property
    def validation(self) -> str | None:
        """The validation losses before and after adaptation, in words."""
        before, after = self.figure("validation_before"), self.figure("validation_after")
        return None if before is None or after is None else f"{before:.4g} → {after:.4g}"


def duration(seconds: float) -> str:
    """A time in words: 45 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress(ABC):
    """Where progress is shown."""

    @abstractmethod
    def start(self, what: str, step: int, steps: int) -> None:
        """The run begins, at `step`."""

    @abstractmethod
    def update(self, step: int, row: dict[str, Any]) -> None:
        """So many outer steps are done, and this is the latest row of metrics."""

    @abstractmethod
    def stop(self) -> None:
        """Nothing more comes."""


class Silent(Progress):
    """Nothing is shown."""

    def start(self, what: str, step: int, steps: int) -> None:
        del what, step, steps

    def update(self, step: int, row: dict[str, Any]) -> None:
        del step, row

    def stop(self) -> None:
        pass


class _Clocked(Progress):
    """What both displays share: the pace of this process, without the time that compiling took."""

    def start(self, what: str, step: int, steps: int) -> None:
        self.steps, self.first, self.began = steps, step, time.monotonic()
        self.seen = Seen(step, steps, 0.0, {})
        self.title = what
        self._marks: list[tuple[float, int]] = []

    def update(self, step: int, row: dict[str, Any]) -> None:
        # The first steps of a process are mostly compilation.
        if step > self.first:
            self._marks = [*self._marks[-50:], (time.monotonic(), step)]
        (t0, s0), (t1, s1) = (self._marks[0], self._marks[-1]) if self._marks else ((0.0, 0), (0.0, 0))
        self.seen = Seen(step, self.steps, (s1 - s0) / (t1 - t0) if t1 > t0 else 0.0, row)


class Lines(_Clocked):
    """A start line, about ten lines of progress, an end line."""

    def __init__(self, console: Console):
        self._console = console

    def start(self, what: str, step: int, steps: int) -> None:
        super().start(what, step, steps)
        self._next = step + max(1, steps // LINES)
        begins = f"from outer step {step:,}" if step else "compiling"
        self._say(f"{what}: {steps:,} outer steps, {begins}")

    def update(self, step: int, row: dict[str, Any]) -> None:
        super().update(step, row)
        if step < self._next or step >= self.steps or not row:
            return
        self._next = step + max(1, self.steps // LINES)
        self._say(f"  {step:,} / {self.steps:,}  " + self._figures() + f"  {self.seen.left} left")

    def stop(self) -> None:
        took = duration(time.monotonic() - self.began)
        self._say(f"{self.title}: {self.seen.step:,} outer steps in {took}  " + self._figures())

    def _figures(self) -> str:
        parts = []
        if (loss := self.seen.figure("loss")) is not None:
            parts.append(f"loss {loss:.4g}")
        if self.seen.validation:
            parts.append(f"validation {self.seen.validation}")
        if skipped := sum(self.seen.row.get("skipped", [])):
            parts.append(f"skipped {skipped}")
        parts.append(self.seen.pace)
        return "  ".join(parts)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Display(_Clocked):
    """A live display on a terminal."""

    def __init__(self, console: Console):
        self._console = console

    def start(self, what: str, step: int, steps: int) -> None:
        super().start(what, step, steps)
        self._live = Live(console=self._console, refresh_per_second=8, get_renderable=self._picture)
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def _picture(self) -> Table:
        seen = self.seen
        grid = Table.grid(padding=(0, 2))
        grid.add_row(f"[bold]{self.title}[/bold]", ProgressBar(seen.steps or 1, seen.step, width=30))
        grid.add_row("outer steps", f"{seen.step:,} of {seen.steps:,}")
        if seen.rate:
            grid.add_row("pace", f"{seen.pace}, {seen.left} left")
        elif seen.step < seen.steps:
            grid.add_row("pace", f"compiling, {duration(time.monotonic() - self.began)}")
        if (loss := seen.figure("loss")) is not None:
            grid.add_row("training loss", f"{loss:.4g}")
        if seen.validation:
            grid.add_row("validation loss", f"{seen.validation}  (before → after adaptation)")
        if skipped := sum(seen.row.get("skipped", [])):
            grid.add_row("[yellow]skipped[/yellow]", f"{skipped} steps whose meta-gradient was not finite")
        return grid


def choose(show: bool | None) -> Progress:
    """Where progress goes: False: nowhere. True: the terminal, or plain lines where there is none. None: the terminal alone."""
    if show is False:
        return Silent()
    console = Console(stderr=True)
    if console.is_terminal:
        return Display(console)
    return Lines(console) if show else Silent()
