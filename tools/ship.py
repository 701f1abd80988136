"""Put a run's best meta-parameters into the package: python tools/ship.py RUN NAME.

The model that ships:
    metaception train maml-glyphs --statistics support --out runs/glyphs
    python tools/ship.py runs/glyphs glyphs
"""

from __future__ import annotations

import sys
from pathlib import Path

import metaception as mc
from metaception.runs.shipped import SHIPPED, write_shipped

PACKAGE = Path(__file__).parent.parent / "src" / "metaception" / "shipped"

if __name__ == "__main__":
    run, name = sys.argv[1:]
    if name not in SHIPPED:
        raise SystemExit(f"{name}: expected one of {', '.join(SHIPPED)}.")
    write_shipped(mc.load_run(run), PACKAGE / name)
