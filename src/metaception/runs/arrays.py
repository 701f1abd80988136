"""Trees of arrays as named host arrays, for files and for other processes."""

from __future__ import annotations

import hashlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def named(tree: PyTree, *, shapes_only: bool = False) -> dict[str, Any]:
    """The leaves of a tree by name, as host arrays; keys as their data; what has no elements, and so says nothing, left out."""

    def plain(leaf: Any) -> Any:
        if shapes_only:
            return jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
        return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)

    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_name(path): plain(leaf) for path, leaf in leaves if leaf.size}


def unnamed(arrays: dict[str, Any], shapes: PyTree) -> PyTree:
    """The inverse of `named`."""

    def leaf(path: Any, shape: Any) -> Any:
        if shape.size == 0:
            return np.zeros(shape.shape, shape.dtype)
        array = arrays[_name(path)]
        if _is_key(shape):
            return jax.random.wrap_key_data(jnp.asarray(array), impl=_implementation(shape))
        return array

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def on_device(tree: PyTree) -> PyTree:
    """The same arrays on this process's own device, wherever they are: on the host, or copied over many devices."""
    return jax.tree.map(lambda leaf: leaf if _is_key(leaf) else jnp.asarray(np.asarray(leaf)), tree)


def digest(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The SHA-256 digest of named arrays: names, shapes, types and bytes; [32] bytes."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name} {array.shape} {array.dtype}\n".encode())
        state.update(array.tobytes())
    return np.frombuffer(state.digest(), np.uint8)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _implementation(keys: Any) -> Any:
    """Which generator keys of this type are for; JAX tells it of arrays alone, so that one is traced."""
    found: list[Any] = []
    jax.eval_shape(lambda traced: found.append(jax.random.key_impl(traced)), keys)
    return found[0]


def describe(tree: Any) -> dict[str, Any]:
    """What can be told of an object that is not built from a preset: its structure, and its arrays' values or digests."""
    arrays = named(eqx.filter(tree, eqx.is_array))
    values = {
        name: array.tolist() if array.size <= 8 else f"sha256 {digest({name: array}).tobytes().hex()}"
        for name, array in arrays.items()
    }
    return {"structure": repr(tree).splitlines(), "values": values}
