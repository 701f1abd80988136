"""Small meta-trained models that ship with the package, so that something can be adapted in the first minute."""

from __future__ import annotations

import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaception.core.algorithm import State
from metaception.core.learner import Meta
from metaception.runs.loop import Best, Snapshot
from metaception.runs.preset import from_dict
from metaception.runs.run import TrainedRun

SHIPPED = ("glyphs",)
"""The names of the models."""


def folder_of(name: str) -> Traversable:
    """Where a model's files lie in the package."""
    return files("metaception") / "shipped" / name


def write_shipped(run: TrainedRun, folder: Path) -> None:
    """Write the best meta-parameters of a run's first seed, and its configuration, as the package holds them."""
    from safetensors.numpy import save  # noqa: PLC0415 (not everyone who imports metaception needs it)

    folder.mkdir(parents=True, exist_ok=True)
    config = {"preset": run.config["preset"], "step": int(np.asarray(run.snapshot.best.step)[0])}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    content = save({name: np.asarray(leaf) for name, leaf in _named(run.meta()).items()})
    (folder / "meta.safetensors").write_bytes(content)


def load_shipped(name: str) -> TrainedRun:
    """A model that ships with the package, as the run that it comes from.

    Args:
        name: one of `SHIPPED`.

    Examples:
        >>> from metaception.runs.shipped import load_shipped
        >>> load_shipped("glyphs").preset.tasks.images
        'glyphs'
    """
    from safetensors.numpy import load  # noqa: PLC0415

    folder = folder_of(name)
    config = json.loads((folder / "config.json").read_text())
    algorithm = from_dict(config["preset"]).build(data=False)
    shapes = jax.eval_shape(algorithm.learner.init_meta, jax.random.key(0))
    arrays = load((folder / "meta.safetensors").read_bytes())
    leaves = [jnp.asarray(arrays[path])[None] for path in _named(shapes)]
    meta = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    step, none = jnp.array([config["step"]], jnp.int32), jnp.zeros(1, jnp.int32)
    state = State(meta, outer=(), estimator=(), step=step, skipped=none, skipped_in_a_row=none)
    snapshot = Snapshot(state, sums={}, taken=none, best=Best(meta, jnp.zeros(1), step))
    return TrainedRun(algorithm, [config["preset"]["seed"]], snapshot, [], {"preset": config["preset"]})


def _named(meta: Meta) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(meta)[0]}
