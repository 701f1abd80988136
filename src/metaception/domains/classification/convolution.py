"""Convolution as a leaf of ours: on a CPU as patches times a matrix, on an accelerator as XLA has it.

A convolution is bilinear in images and kernel, and so are the two maps that its derivatives are made of: what it hands
back to the images, and what it hands back to the kernel. Each derivative of one of the three, of any order and in either
mode, is again made of these three. So they are declared to JAX as three bilinear primitives that know each other, and each
is computed in the way that is fastest for it, instead of in the way that JAX would derive from the forward pass.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Algorithm = Literal["auto", "patches", "xla"]
Precision = Literal["float32", "bfloat16"]


def convolve(
    images: Float[Array, "n height width channels"],
    kernel: Float[Array, "rows columns channels filters"],
    *,
    stride: int = 1,
    algorithm: Algorithm = "auto",
    precision: Precision = "float32",
) -> Float[Array, "n out_height out_width filters"]:
    """The cross-correlation of images with a kernel, padded so that the output has ⌈size / stride⌉ rows and columns.

    Where padding is odd, the extra row and column stand at the end, as in TensorFlow's `SAME`.

    Args:
        images: [n, height, width, channels].
        kernel: [rows, columns, channels, filters].
        stride: of rows and columns.
        algorithm: `patches`: slice out what the kernel covers and multiply matrices. `xla`: `lax.conv_general_dilated`.
            `auto`: patches on a CPU, where XLA's second derivatives, and kernels that differ from task to task, are two to four
            times slower (`docs/convolution.md` has the measurement); XLA's elsewhere.
        precision: of the factors in every product, forward and backward; sums are in the images' own type. `bfloat16` halves
            what a product costs where the processor has instructions for it, and keeps 3 significant digits of each factor.

    Returns:
        [n, ⌈height / stride⌉, ⌈width / stride⌉, filters].

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> mc.convolve(image, jnp.ones((3, 3, 1, 1)))[0, 1, 1].tolist()  # the sum of all
        [36.0]
    """
    if algorithm == "auto":
        algorithm = "patches" if jax.default_backend() == "cpu" else "xla"
    if algorithm == "xla":
        left, right = (a.astype(jnp.bfloat16) if precision == "bfloat16" else a for a in (images, kernel))
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(left, right, (stride, stride), "SAME", dimension_numbers=numbers).astype(
            images.dtype
        )
    settings = {"stride": stride, "size": images.shape[1:3], "window": kernel.shape[:2]}
    return _forward_p.bind(images, kernel, mapped=0, precision=precision, **settings)


def _forward(images: Array, kernel: Array, stride: int, size: tuple[int, ...], window: tuple[int, ...]) -> Array:
    """The convolution: [n, height, width, channels] × [rows, columns, channels, filters] → [n, …, …, filters]."""
    covered = _patches(images, window, stride, *_padding(size, window, stride))
    return _product(covered, kernel.reshape(-1, kernel.shape[-1]))


def _to_kernel(images: Array, outputs: Array, stride: int, size: tuple[int, ...], window: tuple[int, ...]) -> Array:
    """What cotangents of the outputs hand back to the kernel."""
    covered = _patches(images, window, stride, *_padding(size, window, stride))
    features, filters = covered.shape[-1], outputs.shape[-1]
    product = _product(outputs.reshape(-1, filters).T, covered.reshape(-1, features))
    # The barrier keeps XLA from turning the product round, where its CPU kernel was found slower.
    return jax.lax.optimization_barrier(product).T.reshape(*window, images.shape[-1], filters)


def _to_images(outputs: Array, kernel: Array, stride: int, size: tuple[int, ...], window: tuple[int, ...]) -> Array:
    """What cotangents of the outputs hand back to the images.

    An image row a, counted with the padding before it, is covered by the kernel's rows i = a mod stride, + stride, …: rows
    of one remainder form a convolution of the outputs, without a gap, with every stride-th row of the kernel. So nothing is
    scattered: one product for each pair of remainders, then the results are interleaved.
    """
    (top, _), (left, _) = _padding(size, window, stride)
    high, wide = (-(-(before + length) // stride) for before, length in ((top, size[0]), (left, size[1])))
    n, channels, _filters = outputs.shape[0], kernel.shape[2], kernel.shape[3]
    rows = []
    for row in range(stride):
        columns = []
        for column in range(stride):
            # Reversed: the kernel's later rows meet the earlier outputs.
            part = kernel[row::stride, column::stride][::-1, ::-1]
            taps = part.shape[:2]
            if 0 in taps:
                columns.append(jnp.zeros((n, high, wide, channels), _sums(outputs)))
                continue
            ends = (high - outputs.shape[1], wide - outputs.shape[2])
            covered = _patches(outputs, taps, 1, (taps[0] - 1, ends[0]), (taps[1] - 1, ends[1]))
            columns.append(_product(covered, part.swapaxes(2, 3).reshape(-1, channels)))
        rows.append(columns)
    if stride == 1:
        whole = rows[0][0]
    else:
        whole = jnp.stack([jnp.stack(columns, axis=3) for columns in rows], axis=2)
        whole = whole.reshape(n, high * stride, wide * stride, channels)
    return whole[:, top : top + size[0], left : left + size[1]]


def _product(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, preferred_element_type=_sums(left))


def _sums(factors: Array) -> Any:
    """The type that products of such factors are summed in."""
    return jnp.float32 if factors.dtype == jnp.bfloat16 else factors.dtype


def _padding(size: tuple[int, ...], window: tuple[int, ...], stride: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows before and after, columns before and after."""

    def one(length: int, covered: int) -> tuple[int, int]:
        total = max((-(-length // stride) - 1) * stride + covered - length, 0)
        return total // 2, total - total // 2

    return one(size[0], window[0]), one(size[1], window[1])


def _patches(
    images: Array, window: tuple[int, ...], stride: int, rows: tuple[int, int], columns: tuple[int, int]
) -> Array:
    """What a window covers at each place of the padded images, side by side: [n, …, …, rows · columns · channels].

    Negative padding after the images cuts off what no window starts in.
    """
    zero = jnp.zeros((), images.dtype)
    padded = jax.lax.pad(images, zero, ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
    n, height, width, channels = padded.shape
    down, across = (height - window[0]) // stride, (width - window[1]) // stride
    slices = [
        jax.lax.slice(
            padded,
            (0, row, column, 0),
            (n, row + down * stride + 1, column + across * stride + 1, channels),
            (1, stride, stride, 1),
        )
        for row in range(window[0])
        for column in range(window[1])
    ]
    return slices[0] if len(slices) == 1 else jnp.concatenate(slices, axis=-1)


def _bilinear(name: str, compute: Any) -> Primitive:
    """A primitive of two arrays that `compute` gives the meaning of; `mapped` leading axes of both are mapped over."""
    primitive = Primitive(f"metaception_convolution_{name}")

    def whole(left: Array, right: Array, *, mapped: int, precision: Precision, **settings: Any) -> Array:
        function = partial(compute, **settings)
        if precision == "bfloat16":
            left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
        for _ in range(mapped):
            function = jax.vmap(function)
        return function(left, right)

    def shape(left: Any, right: Any, **settings: Any) -> Any:
        out = jax.eval_shape(partial(whole, **settings), left, right)
        return left.update(shape=out.shape, dtype=out.dtype, weak_type=False)

    def batch(arguments: Any, axes: Any, *, mapped: int, **settings: Any) -> Any:
        (size,) = {a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if axis is not None}
        left, right = (
            jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
            for a, axis in zip(arguments, axes, strict=True)
        )
        return primitive.bind(left, right, mapped=mapped + 1, **settings), 0

    primitive.def_impl(jax.jit(whole, static_argnames=("stride", "size", "window", "mapped", "precision")))
    primitive.def_abstract_eval(shape)
    mlir.register_lowering(primitive, mlir.lower_fun(whole, multiple_results=False))
    batching.primitive_batchers[primitive] = batch
    return primitive


_forward_p, _to_images_p, _to_kernel_p = (
    _bilinear(name, compute)
    for name, compute in (("forward", _forward), ("to_images", _to_images), ("to_kernel", _to_kernel))
)
# The first rule of each gives back to its first argument, the second one to its second.
ad.defbilinear(
    _forward_p,
    lambda ct, images, kernel, **settings: _to_images_p.bind(ct, kernel, **settings),
    lambda ct, images, kernel, **settings: _to_kernel_p.bind(images, ct, **settings),
)
ad.defbilinear(
    _to_images_p,
    lambda ct, outputs, kernel, **settings: _forward_p.bind(ct, kernel, **settings),
    lambda ct, outputs, kernel, **settings: _to_kernel_p.bind(ct, outputs, **settings),
)
ad.defbilinear(
    _to_kernel_p,
    lambda ct, images, outputs, **settings: _to_images_p.bind(outputs, ct, **settings),
    lambda ct, images, outputs, **settings: _forward_p.bind(images, ct, **settings),
)
