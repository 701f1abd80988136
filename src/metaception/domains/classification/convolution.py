"""Convolution as a leaf of ours: on a CPU each of its three maps in the way that is fastest for it, else as XLA has it.

A convolution is bilinear in images and kernel, and so are the two maps that its derivatives are made of: what it hands
back to the images, and what it hands back to the kernel. Each derivative of one of the three, of any order and in either
mode, is again made of these three. So they are declared to JAX as three bilinear primitives that know each other, and each
is computed in the way that is fastest for it, instead of in the way that JAX would derive from the forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Algorithm = Literal["auto", "split", "xla"]
Precision = Literal["float32", "bfloat16"]

FEW = 8
"""Below so many channels, patches are copied by rows of an image: a pixel's channels are too short to copy at once."""
PATCHES = 2**21
"""Bytes of patches that are made at a time: about what a core's cache holds."""


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
        algorithm: `split`: the convolution and the two maps of its derivative each in its own way, as an XLA convolution or as
            patches times a matrix. `xla`: `lax.conv_general_dilated`, and what JAX derives from it. `auto`: split on a CPU,
            where XLA's own derivatives, and kernels that differ from task to task, are many times slower
            (`docs/convolution.md` has the measurement); XLA's elsewhere.
        precision: of the factors in every product, forward and backward; sums are in the images' own type. `bfloat16` keeps 3
            significant digits of each factor; it is made for accelerators.

    Returns:
        [n, ⌈height / stride⌉, ⌈width / stride⌉, filters].

    Examples:
        >>> import jax.numpy as jnp, metaception as mc
        >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> mc.convolve(image, jnp.ones((3, 3, 1, 1)))[0, 1, 1].tolist()  # the sum of all
        [36.0]
    """
    if algorithm == "auto":
        algorithm = "split" if jax.default_backend() == "cpu" else "xla"
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
    channels, filters = kernel.shape[2:]
    padding = _padding(size, window, stride)
    if 1 < channels < FEW:
        covered, places = _planes(images, window, stride, padding)
        return _product(covered.T, kernel.reshape(-1, filters)).reshape(*places, filters)
    return _xla(images, kernel, stride, padding)


def _to_kernel(images: Array, outputs: Array, stride: int, size: tuple[int, ...], window: tuple[int, ...]) -> Array:
    """What cotangents of the outputs hand back to the kernel: patches times outputs, for a few images at a time."""
    n, channels, filters = images.shape[0], images.shape[-1], outputs.shape[-1]
    features = window[0] * window[1] * channels
    padding = _padding(size, window, stride)

    def some(images: Array, outputs: Array) -> Array:
        if channels < FEW:
            return _product(_planes(images, window, stride, padding)[0], outputs.reshape(-1, filters))
        covered = _patches(images, window, stride, padding)
        # The barrier keeps XLA from turning the product round, where its CPU kernel was found slower.
        return jax.lax.optimization_barrier(_product(outputs.reshape(-1, filters).T, covered)).T

    together = n
    if isinstance(n, int):  # it has no number yet where a program for any number of images is exported
        most = max(1, PATCHES // (features * outputs[0].size // filters * images.dtype.itemsize))
        together = max(count for count in range(1, min(most, n) + 1) if n % count == 0)
    if together == n:
        whole = some(images, outputs)
    else:
        parts = tuple(a.reshape(n // together, together, *a.shape[1:]) for a in (images, outputs))
        start = jnp.zeros((features, filters), _sums(images))
        whole, _ = jax.lax.scan(lambda total, part: (total + some(*part), None), start, parts)
    return whole.reshape(*window, channels, filters)


def _to_images(outputs: Array, kernel: Array, stride: int, size: tuple[int, ...], window: tuple[int, ...]) -> Array:
    """What cotangents of the outputs hand back to the images.

    An image row a, counted with the padding before it, is covered by the kernel's rows i = a mod stride, + stride, …: rows
    of one remainder form a convolution of the outputs, without a gap, with every stride-th row of the kernel. So nothing is
    scattered: one convolution for each pair of remainders, then the results are interleaved.
    """
    (top, _), (left, _) = _padding(size, window, stride)
    # Reversed: the kernel's later rows meet the earlier outputs. Without the barriers XLA would fold the reversal into its
    # convolution, and then not take its fast kernel.
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    if stride == 1:
        ends = [(length - 1 - before, before) for length, before in zip(window, (top, left), strict=True)]
        return _xla(outputs, jax.lax.optimization_barrier(turned), 1, ends)
    high, wide = (-(-(before + length) // stride) for before, length in ((top, size[0]), (left, size[1])))
    n, channels = outputs.shape[0], kernel.shape[2]
    rows = []
    for row in range(stride):
        columns = []
        for column in range(stride):
            part = turned[(window[0] - 1 - row) % stride :: stride, (window[1] - 1 - column) % stride :: stride]
            taps = part.shape[:2]
            if 0 in taps:
                columns.append(jnp.zeros((n, high, wide, channels), _sums(outputs)))
                continue
            ends = [(taps[0] - 1, high - outputs.shape[1]), (taps[1] - 1, wide - outputs.shape[2])]
            columns.append(_xla(outputs, jax.lax.optimization_barrier(part), 1, ends))
        rows.append(columns)
    whole = jnp.stack([jnp.stack(columns, axis=3) for columns in rows], axis=2)
    whole = whole.reshape(n, high * stride, wide * stride, channels)
    return whole[:, top : top + size[0], left : left + size[1]]


def _xla(images: Array, kernel: Array, stride: int, padding: Sequence[tuple[int, int]]) -> Array:
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=_sums(images),
    )


def _patches(images: Array, window: tuple[int, ...], stride: int, padding: Sequence[tuple[int, int]]) -> Array:
    """What the window covers at each place, side by side: [n · … · …, rows · columns · channels]."""
    slices = _shifted(jnp.pad(images, ((0, 0), *padding, (0, 0))), (1, 2), window, stride)
    return jnp.concatenate(slices, axis=-1).reshape(-1, len(slices) * images.shape[-1])


def _planes(
    images: Array, window: tuple[int, ...], stride: int, padding: Sequence[tuple[int, int]]
) -> tuple[Array, tuple[int, ...]]:
    """The same, transposed, so that what is copied at once is a row of an image and not a pixel's channels; and [n, …, …]."""
    padded = jnp.pad(images.transpose(3, 0, 1, 2), ((0, 0), (0, 0), *padding))
    # The barrier has the planes made once, and not again for each slice.
    slices = _shifted(jax.lax.optimization_barrier(padded), (2, 3), window, stride)
    return jnp.stack(slices).reshape(len(slices) * images.shape[-1], -1), slices[0].shape[1:]


def _shifted(padded: Array, axes: tuple[int, int], window: tuple[int, ...], stride: int) -> list[Array]:
    """What each row and column of the window meets, over all its places along two axes."""
    down, across = ((padded.shape[axis] - length) // stride for axis, length in zip(axes, window, strict=True))

    def slice_of(row: int, column: int) -> Array:
        part = jax.lax.slice_in_dim(padded, row, row + down * stride + 1, stride, axes[0])
        return jax.lax.slice_in_dim(part, column, column + across * stride + 1, stride, axes[1])

    return [slice_of(row, column) for row in range(window[0]) for column in range(window[1])]


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


def _each(function: Any, left: Array, right: Array) -> Array:
    """One after the other: on a CPU a batch of small convolutions is slower than each alone."""
    return jax.lax.map(lambda both: function(*both), (left, right))


def _bilinear(name: str, compute: Any) -> Primitive:
    """A primitive of two arrays that `compute` gives the meaning of; `mapped` leading axes of both are mapped over."""
    primitive = Primitive(f"metaception_convolution_{name}")

    def whole(left: Array, right: Array, *, mapped: int, precision: Precision, **settings: Any) -> Array:
        function = partial(compute, **settings)
        if precision == "bfloat16":
            left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
        for _ in range(mapped):
            function = partial(_each, function)
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
