import pytest
from running import CACHE


@pytest.fixture(autouse=True)
def _cache(monkeypatch):
    monkeypatch.setenv("METACEPTION_CACHE", str(CACHE))
