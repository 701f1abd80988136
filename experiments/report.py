"""What the experiments share: the command line, intervals over seeds, tables inside a Markdown page, pictures."""

from __future__ import annotations

import argparse
import math
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.special import stdtrit
from table import RESULTS, Row, write_csv

matplotlib.use("Agg")


def is_quick(description: str | None) -> bool:
    """Read the command line; `--quick` is the only option."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test in a temporary folder")
    quick = parser.parse_args().quick
    # What a smoke test runs is tiny, and nearly all of its time is compilation.
    jax.config.update("jax_disable_most_optimizations", quick)
    return quick


def over_seeds(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The mean over seeds, and the half-width of its 95 % interval by Student's t."""
    array = np.asarray(values, np.float64)
    count = array.size
    spread = stdtrit(count - 1, 0.975) * array.std(ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return float(array.mean()), float(spread)


def figure(value: float, ci95: float | None = None) -> str:
    """A number as a table shows it: three significant digits; beside an interval, the digits that the interval leaves."""

    def short(number: float, digits: int) -> str:
        if number == 0 or not math.isfinite(number):
            return f"{number:g}"
        if not 1e-4 <= abs(number) < 1e5:
            return f"{number:.1e}"
        return f"{number:.{max(0, digits - 1 - math.floor(math.log10(abs(number))))}f}"

    if ci95 is None or not math.isfinite(ci95) or ci95 == 0:
        return short(value, 3)
    spread = short(ci95, 2)
    if "e" in spread or abs(value) < 1e-4:
        return f"{short(value, 3)} ± {spread}"
    return f"{value:.{len(spread.partition('.')[2])}f} ± {spread}"


class Report:
    """Rows for results/NAME.csv, tables inside results/NAME.md, pictures in results/pictures.

    The page's prose is written by hand; a table is what stands between `<!-- table MARK -->` and `<!-- end -->` there.

    Args:
        name: NAME.
        quick: write to a temporary folder, starting from the page as it is.
    """

    def __init__(self, name: str, quick: bool) -> None:
        self.name, self.rows, self.began = name, list[Row](), time.perf_counter()
        self.folder = RESULTS
        if quick:
            self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
            shutil.copy(RESULTS / f"{name}.md", self.folder)

    def table(self, mark: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
        """Put a table into the page.

        Raises:
            ValueError: where the page has no such mark.
        """
        page = self.folder / f"{self.name}.md"
        text = "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines))
        new, found = re.subn(
            rf"(<!-- table {mark} -->\n).*?(<!-- end -->)",
            lambda match: f"{match[1]}{text}\n{match[2]}",
            page.read_text(),
            flags=re.DOTALL,
        )
        if found != 1:
            raise ValueError(f"{page.name}: found the mark '<!-- table {mark} -->' {found} times; expected it once.")
        page.write_text(new)

    def picture(self, name: str, drawn: Figure) -> None:
        """Save a picture and close it."""
        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        # No date and no version inside: the same numbers give the same file.
        drawn.savefig(folder / f"{name}.png", dpi=90, metadata={"Software": None})
        plt.close(drawn)

    def write(self) -> None:
        """Write the rows, with the wall time of the whole experiment, and say where everything is."""
        wall = time.perf_counter() - self.began
        path = write_csv(str(self.folder / self.name), [replace(row, wall_s=wall) for row in self.rows])
        print(f"{len(self.rows)} rows in {wall:.0f} s: {path} and {self.name}.md beside it")
