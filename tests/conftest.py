"""What all tests share: quick compilation, shapes checked while they run, double precision where gradients are compared."""

import atexit
import gc
import os
import shutil
import tempfile

import jax
import pytest
from compiling import QUICK
from jaxtyping import install_import_hook

# What the tests compile is not the user's to keep.
_CACHE = tempfile.mkdtemp(prefix="metaception-tests-")
os.environ.setdefault("METACEPTION_CACHE", _CACHE)
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

# JAX keeps what it has traced for as long as a process lives; looking through all of it for garbage is a tenth of the time.
gc.set_threshold(100_000, 20, 100)

# The tests' own processes inherit it, but for those that are killed and resumed, which compile as a user's do (running.py).
os.environ |= QUICK
jax.config.update("jax_disable_most_optimizations", True)
# Many tests compile the same program from functions that are other objects: each is compiled once a worker. A worker's folder
# is its own, so no half-written program is ever read.
jax.config.update("jax_compilation_cache_dir", os.path.join(_CACHE, "jit"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Before anything imports metaception: every jaxtyping annotation in it is checked on every call.
install_import_hook("metaception", "beartype.beartype")


@pytest.fixture
def float64():
    """Double precision: finite differences need it."""
    with jax.enable_x64(True):
        yield
