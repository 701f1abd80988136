"""The site builds without a warning, and a reader's browser loads nothing from elsewhere."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import metaception as mc

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    # A proxy that refuses: whatever asks for the network while building fails.
    refusing = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | refusing | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pages(site):
    return {path.relative_to(site).as_posix(): path.read_text() for path in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site):
    loads = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\bsrc=\"(?:https?:)?//[^>]*>|<link[^>]*href=\"https?://[^>]*>"
    )
    for name, html in pages(site).items():
        assert not loads.findall(html), name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", sheet.read_text()), sheet


def test_markers_and_formulas_are_replaced(site):
    for name, html in pages(site).items():
        assert "arithmatex" not in html, name
        assert not re.search(r"<!-- (results|preset|bibtex|readme):", html), name
    assert "<math" in pages(site)["concepts.html"]
    assert "inner_rate" in pages(site)["methods/maml.html"]
    assert "@inproceedings{finn2017maml" in re.sub(r"<[^>]+>", "", pages(site)["methods/maml.html"])


def test_notebook_is_a_page_with_pictures(site):
    html = pages(site)["notebooks/why_it_adapts.html"]
    pictures = re.findall(r'<img[^>]*src="([^"]+)"', html)
    assert len([p for p in pictures if p.startswith("why_it_adapts_")]) == 4
    for picture in pictures:
        assert (site / "notebooks" / picture).resolve().exists()


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "api.md").read_text()
    listed = re.findall(r"^::: metaception\.(\w+)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(set(mc.__all__) - {"__version__"}), "docs/api.md and metaception.__all__ differ"


def test_every_public_name_that_a_user_calls_has_an_example():
    returned = {mc.State, mc.Info, mc.Estimate, mc.TrainedRun}  # by what a user calls

    def is_called(value):
        if inspect.isclass(value):
            return not (inspect.isabstract(value) or issubclass(value, BaseException) or value in returned)
        return callable(value)

    called = {name for name in mc.__all__ if is_called(getattr(mc, name))}
    assert {"MAML", "Model", "Unroll", "train"} <= called
    assert called.isdisjoint({"Learner", "Initialising", "Mapping", "Diverged", "__version__"})
    assert not {name for name in called if ">>>" not in (getattr(mc, name).__doc__ or "")}
