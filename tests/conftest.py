"""What all tests share: shapes checked while they run, and double precision where gradients are compared."""

import atexit
import os
import shutil
import tempfile

import jax
import pytest
from jaxtyping import install_import_hook

# What the tests compile is not the user's to keep.
_CACHE = tempfile.mkdtemp(prefix="metaception-tests-")
os.environ.setdefault("METACEPTION_CACHE", _CACHE)
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

# Before anything imports metaception: every jaxtyping annotation in it is checked on every call.
install_import_hook("metaception", "beartype.beartype")


@pytest.fixture
def quick_compile():
    """Compile without most optimisations: for programs that are small and run once, several times faster in all."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def float64(quick_compile):
    """Double precision: finite differences need it."""
    with jax.enable_x64(True):
        yield
