"""The persistent compilation cache: a program that was compiled once starts at once the next time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


def default_cache_folder() -> Path | None:
    """$METACEPTION_CACHE, else metaception/xla in the user's cache folder; None if that variable is set but empty."""
    chosen = os.environ.get("METACEPTION_CACHE")
    if chosen is not None:
        return Path(chosen).expanduser() if chosen else None
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "metaception" / "xla"


def use_compilation_cache() -> Path | None:
    """Let JAX keep what it compiles in `default_cache_folder`, for this and later processes.

    A cache that is set in JAX already stays as it is, and a folder that cannot be written means no cache.

    Returns:
        The folder that is used, or None.
    """
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen is not None:
        return Path(chosen)
    folder = default_cache_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The mode bits do not tell the whole truth (root, read-only mounts, a full disk): a file does.
        with tempfile.NamedTemporaryFile(dir=folder) as probe:
            probe.write(b"?")
            probe.flush()
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # JAX looks once, at its first compilation, whether there is a cache; let it look again.
    compilation_cache.reset_cache()
    return folder
