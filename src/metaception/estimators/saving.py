"""A model as plain data: a program as StableHLO, its weights as safetensors, what else there is to know as JSON.

Nothing here is code of ours or a pickle, so that reading such a model runs nothing but the program itself.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from jax import export
from jaxtyping import PyTree

from metaception._version import __version__
from metaception.core.learner import Adapted, Iterative, Learner, Meta, unroll
from metaception.core.streams import stream_key
from metaception.core.task import Examples
from metaception.runs.arrays import named, unnamed
from metaception.runs.errors import UsageError
from metaception.runs.files import disk_errors, plain

FORMAT = 1
"""The version of the layout of a model's folder."""
FACTS, PROGRAM, WEIGHTS, README = "model.json", "model.stablehlo", "weights.safetensors", "README.md"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""What a program is made for, wherever it is made."""


@dataclass(frozen=True, eq=False)
class Portable:
    """A model as plain data.

    Attributes:
        program: what `jax.export` serialised, a function of the weights and the inputs.
        weights: named arrays.
        facts: what else there is to know, as plain values.
    """

    program: bytes
    weights: dict[str, np.ndarray]
    facts: dict[str, Any]

    def __call__(self, *inputs: Any) -> np.ndarray:
        """The model's outputs."""
        return np.asarray(_compiled(self.program)(self.weights, *inputs))

    def in_chunks(self, inputs: np.ndarray, size: int) -> np.ndarray:
        """The outputs of a model that takes each row by itself, `size` rows at a time.

        One program is compiled however many rows come, memory is bounded, and a row's output is the same bits beside any
        others.
        """
        call, weights = _compiled(self.program), jax.device_put(self.weights)
        outputs = []
        for start in range(0, len(inputs), size):
            rows = inputs[start : start + size]
            missing = np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)
            outputs.append(np.asarray(call(weights, np.concatenate([rows, missing])))[: len(rows)])
        return np.concatenate(outputs)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model's folder; a folder that holds such a model is replaced, any other is refused.

        Raises:
            UsageError: where something else is there.
            RunError: where it cannot be written.
        """
        folder = Path(folder)
        check_folder(folder)
        weights = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in self.weights.items()})
        digests = {PROGRAM: _digest(self.program), WEIGHTS: _digest(weights)}
        facts = {"format": FORMAT, **plain(self.facts), "weights": _shapes(self.weights), "sha256": digests}
        facts["versions"] = {name: metadata.version(name) for name in ("jax", "jaxlib", "safetensors", "scikit-learn")}
        facts["versions"]["metaception"] = __version__
        text = json.dumps(facts, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        # Written beside it and renamed, so that nobody meets half a model.
        building = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        with disk_errors(str(folder), "Choose a folder that can be written."):
            try:
                building.mkdir(parents=True)
                (building / PROGRAM).write_bytes(self.program)
                (building / WEIGHTS).write_bytes(weights)
                (building / FACTS).write_text(text, encoding="utf-8")
                (building / README).write_text(_readme(facts), encoding="utf-8")
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(building, folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Portable:
        """Read a model's folder, and check that its files are whole and belong together.

        Raises:
            UsageError: where it is no such folder, of another version, or damaged.
        """
        folder = Path(folder)
        if not (folder / FACTS).is_file():
            what = "has no model.json" if folder.is_dir() else "is not a folder"
            raise UsageError(
                f"{folder} is not a model: it {what}. Give a folder that `save` or `metaception export` made."
            )
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            version, digests = facts["format"], dict(facts["sha256"])
            content = {name: (folder / name).read_bytes() for name in (PROGRAM, WEIGHTS)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{folder} is not a whole model ({error}); save or export it again.") from error
        if version != FORMAT:
            raise UsageError(
                f"{folder} has format {version!r} and this version of Metaception reads {FORMAT}; export it again, or use the "
                "version that made it."
            )
        for name, read in content.items():
            if digests.get(name) != _digest(read):
                raise UsageError(f"{folder / name} is not the file that model.json was written with; export it again.")
        return cls(content[PROGRAM], safetensors.numpy.load(content[WEIGHTS]), facts)


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a model.

    Raises:
        UsageError: for such a folder.
    """
    if folder.is_dir() and (not any(folder.iterdir()) or _is_model(folder)):
        return
    if folder.exists():
        raise UsageError(f"{folder} exists and is not a model of Metaception's; give another folder, or remove it.")


def _is_model(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    return FACTS in names and names <= {FACTS, PROGRAM, WEIGHTS, README}


def adapted_model(learner: Learner, adapted: PyTree, inputs: tuple[int, ...], facts: dict[str, Any]) -> Portable:
    """An adapted learner: a program of its weights and float32 inputs [n, ...]."""
    # As values, by which the program is found again where it was made before: many estimators differ in weights alone.
    leaves, structure = jax.tree.flatten(learner)
    constants = tuple((array.tobytes(), array.dtype.str, array.shape) for array in map(np.asarray, leaves))
    shapes, tree = jax.tree.flatten(_shapes_of(adapted))
    program = _predictor(structure, constants, tree, tuple(shapes), inputs=inputs)
    return Portable(program, named(adapted), {"kind": "adapted", "inputs": inputs, **facts})


@functools.lru_cache(maxsize=64)
def _predictor(
    structure: Any,
    constants: tuple[tuple[bytes, str, tuple[int, ...]], ...],
    tree: Any,
    shapes: tuple[Any, ...],
    *,
    inputs: tuple[int, ...],
) -> bytes:
    arrays = [np.frombuffer(data, kind).reshape(shape) for data, kind, shape in constants]
    learner, adapted = jax.tree.unflatten(structure, arrays), jax.tree.unflatten(tree, shapes)

    def predict(weights: dict[str, Any], inputs: Any) -> Any:
        return learner.predict(unnamed(weights, adapted), inputs)

    (n,) = export.symbolic_shape("n")
    return _export(predict, adapted, jax.ShapeDtypeStruct((n, *inputs), np.float32))


def meta_model(
    learner: Learner, meta: PyTree, *, support: Examples, steps: int | None, facts: dict[str, Any]
) -> Portable:
    """A learner before it adapts: a program of its weights, support inputs [k, ...], their targets and inputs [n, ...].

    Args:
        learner: the learner.
        meta: its meta-parameters.
        support: arrays, or shapes, like those that it adapts to.
        steps: inner steps; None for a learner without.
        facts: what else there is to know.
    """
    shapes, key = _shapes_of(meta), stream_key(0, "test")  # as the estimators

    def learn(weights: dict[str, Any], support_inputs: Any, support_targets: Any, inputs: Any) -> Any:
        data = Examples(support_inputs, support_targets)
        return learner.predict(adapt(learner, key, unnamed(weights, shapes), data, steps), inputs)

    k, n = export.symbolic_shape("k, n")
    inputs, targets = (
        [jax.ShapeDtypeStruct((rows, *array.shape[1:]), array.dtype) for rows in (k, n)] for array in support
    )
    program = _export(learn, shapes, inputs[0], targets[0], inputs[1])
    row = {"shape": targets[0].shape[1:], "dtype": str(targets[0].dtype)}
    more = {"kind": "meta", "inputs": inputs[0].shape[1:], "targets": row, "steps": steps}
    return Portable(program, named(meta), {**more, **facts})


def adapt(learner: Learner, key: Any, meta: Meta, data: Examples, steps: int | None) -> Adapted:
    """The adapted learner after so many inner steps; None for a learner without steps."""
    if steps is None:
        return learner.adapt(key, meta, data)
    assert isinstance(learner, Iterative)
    return learner.output(meta, unroll(learner, key, meta, data, length=steps))


def _export(function: Callable[..., Any], weights: PyTree, *arguments: Any) -> bytes:
    exported = export.export(jax.jit(function), platforms=PLATFORMS)(named(weights, shapes_only=True), *arguments)
    return bytes(exported.serialize())


def _shapes_of(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


@functools.lru_cache(maxsize=64)
def _compiled(program: bytes) -> Any:
    try:
        return jax.jit(export.deserialize(bytearray(program)).call)
    except Exception as error:  # whatever an older or a newer reader stumbles over
        raise UsageError(
            f"the model's program cannot be read by this JAX ({jax.__version__}): {error}. Export it again with it; the "
            "weights can be read by any version."
        ) from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _shapes(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in weights.items()}


def _readme(facts: dict[str, Any]) -> str:
    row = ", ".join(map(str, facts["inputs"]))
    if facts["kind"] == "adapted":
        what, arguments = "an adapted model", "inputs"
        shapes = f"`inputs` is float32 [n, {row}], n any number"
    else:
        what, arguments = (
            "a meta-learned model, which adapts inside the program",
            "support_inputs, support_targets, inputs",
        )
        target = f"{facts['targets']['dtype']} [{', '.join(['k', *map(str, facts['targets']['shape'])])}]"
        shapes = (
            f"`support_inputs` is float32 [k, {row}], `support_targets` {target}, `inputs` float32 [n, {row}]; k and n any "
            "numbers"
        )
    pixels = "; pixels go from 0 to 1" if facts.get("pixels") else ""
    meaning = "" if "classes" not in facts else "\nThe first outputs are the logits of the `classes` in model.json.\n"
    return f"""\
# {what.capitalize()}, exported by Metaception {__version__}

Loads without Metaception, in the folder of this file, with JAX and safetensors:

```python
import pathlib, jax, jax.export, safetensors.numpy

weights = safetensors.numpy.load_file("{WEIGHTS}")
program = jax.export.deserialize(pathlib.Path("{PROGRAM}").read_bytes())
outputs = jax.jit(program.call)(weights, {arguments})
```

{shapes}{pixels}.
{meaning}
`{FACTS}` has the shapes, the policy of normalisation (`statistics`), the versions and the digests of both files.
`{PROGRAM}` is StableHLO as `jax.export` serialises it (for {", ".join(PLATFORMS)}); nothing here is a pickle.
"""
