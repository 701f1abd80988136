"""How many outer steps to take at once, so that the host is met about twice a second."""

from __future__ import annotations

import time
from typing import Any

SECONDS = 0.5
"""How long a stretch should take: signals are answered, and the display moves, about that often."""


class Pace:
    """The length of the next stretch, and the clock of the rows. Neither has any influence on what is computed."""

    def __init__(self) -> None:
        self.size = 1
        self._compiled = False
        self._began = self._last = time.monotonic()
        self._last_step: int | None = None

    def observe(self, steps: int, seconds: float) -> None:
        """A stretch of so many steps took so long."""
        if self._compiled and steps:
            # What one short stretch takes is mostly noise, hence no more than eightfold at once.
            self.size = max(1, min(8 * steps, int(steps * SECONDS / max(seconds, 1e-6))))
        self._compiled = True

    def row(self, step: int) -> dict[str, Any]:
        """The clock's part of a row: seconds since this process began to train, steps a second since its last row."""
        now = time.monotonic()
        steps = 0 if self._last_step is None else step - self._last_step
        rate = steps / (now - self._last) if now > self._last else 0.0
        self._last, self._last_step = now, step
        return {"step": step, "seconds": round(now - self._began, 3), "steps_per_second": round(rate, 3)}
