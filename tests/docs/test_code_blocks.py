"""Every Python block of every page runs, in order, page by page in one namespace; warnings are errors."""

import re
from pathlib import Path

import matplotlib as mpl
import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(p for p in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"] if "```python" in p.read_text())
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks(page, tmp_path, monkeypatch):
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    namespace = {"__name__": "__main__"}
    for block in _BLOCK.finditer(text):
        # Empty lines before the block, so that a traceback shows the page's own line numbers.
        lines = text.count("\n", 0, block.start(1))
        exec(compile("\n" * lines + block[1], str(page), "exec"), namespace)


def test_the_pages_have_blocks():
    # A slip in the pattern would leave nothing to run.
    assert len(PAGES) > 8
    assert all(_BLOCK.search(page.read_text()) for page in PAGES)
