"""What is measured, the same for every implementation: one outer step of sinusoid MAML, sampling and Adam included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SHOTS = QUERIES = 10
AMPLITUDE, PHASE, INPUTS = (0.1, 5.0), (0.0, 3.141592653589793), (-5.0, 5.0)
INNER_RATE, OUTER_RATE = 0.01, 1e-3

# Weight [in, out] and bias [out] of each layer in turn.
Parameters = list[np.ndarray]
# Support inputs and targets, query inputs and targets, each [tasks, points, 1].
Batch = list[np.ndarray]


@dataclass(frozen=True)
class Workload:
    """The size of one outer step of MAML; the defaults are those of Finn et al. 2017, section 5.1.

    Attributes:
        inner_steps: gradient steps on the support set, differentiated through.
        tasks: tasks an outer step, each with 10 support and 10 query points.
        width: units of each of the two hidden layers (ReLU).
    """

    inner_steps: int = 1
    tasks: int = 25
    width: int = 40

    def __str__(self) -> str:
        steps = "1 inner step" if self.inner_steps == 1 else f"{self.inner_steps} inner steps"
        return f"{steps}, {self.tasks} tasks, width {self.width}"

    @property
    def tolerance(self) -> float:
        """How far a peer's meta-gradient may be from ours, relative to the norm."""
        return 1e-4

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Rows and columns of each layer's weight."""
        return [(1, self.width), (self.width, self.width), (self.width, 1)]

    def parameters(self) -> Parameters:
        """Where every implementation starts: of a size at which the second-order term is not small and nothing diverges."""
        draw = np.random.default_rng(0)
        arrays = []
        for rows, columns in self.sizes:
            arrays.append(draw.standard_normal((rows, columns)) * (0.3 if rows == 1 else rows**-0.5))
            arrays.append(0.1 * draw.standard_normal(columns))
        return [array.astype(np.float32) for array in arrays]

    def load(self, name: str) -> Implementation:
        """The implementation of that name, set up: `metaception …` (see ours.py) or a peer (see peers.py).

        Raises:
            ImportError: where a package that it needs is missing.
        """
        if name.startswith("metaception"):
            from ours import Ours

            return Ours(name, self)
        from peers import PEERS

        return PEERS[name](self)


class Implementation:
    """One way to do the work. `__init__(workload)` sets it up, everything compiled, at `workload.parameters()`."""

    def estimate(self) -> tuple[Batch, Parameters]:
        """Draw a meta-batch as an outer step does, and the mean meta-gradient on it at the parameters of now."""
        raise NotImplementedError

    def run(self, steps: int) -> None:
        """Take outer steps, and wait for the last of them."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """What it knows of itself: `versions`, `compile_s`, and `program_mib` where the compiler says it."""
        raise NotImplementedError
