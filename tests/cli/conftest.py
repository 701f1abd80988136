import pytest
from cli.own_images import GLYPHS, SINES, train
from running import CACHE


@pytest.fixture(autouse=True)
def _cache(monkeypatch):
    monkeypatch.setenv("METACEPTION_CACHE", str(CACHE))


@pytest.fixture(scope="session")
def glyph_run(tmp_path_factory):
    return train(GLYPHS, tmp_path_factory.mktemp("runs") / "glyphs")


@pytest.fixture(scope="session")
def sine_run(tmp_path_factory):
    return train(SINES, tmp_path_factory.mktemp("runs") / "sines")
