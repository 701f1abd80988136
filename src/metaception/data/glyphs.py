"""Glyphs: characters of many scripts, a few-shot image set that needs no download."""

from __future__ import annotations

import functools
import unicodedata
from importlib import resources
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int, UInt8

from metaception.data.images import ImageSet

DRAWINGS = 20  # a class, as in Omniglot
SIDE = 28
LICENCE = "Drawn from fonts that matplotlib ships: DejaVu (Bitstream Vera terms, changes public domain) and STIX (SIL OFL 1.1)"

PITCH = 2.4  # master pixels a pixel of the image: a glyph 44 long becomes 18
BLOCK = 256  # drawings at a time, so that the intermediate arrays stay in the cache
EDGE = np.pad(np.zeros((SIDE - 2, SIDE - 2), bool), 1, constant_values=True)
SEEDS = {"train": 0, "val": 1, "test": 2}


@functools.cache
def load_glyphs(subset: Literal["train", "val", "test"]) -> ImageSet:
    """Characters of many scripts, 28 × 28, ink high, 20 drawings a class; no script is in two subsets.

    A drawing is one of the character's font styles, turned, scaled, sheared, bent and shifted at random; always the same
    20. Of characters that look alike (A, Alpha; o, O, 0), in whichever script, the set has the first. `groups` are the scripts.

    Raises:
        ValueError: for another subset.

    Examples:
        >>> from metaception.data.glyphs import load_glyphs
        >>> test = load_glyphs("test")
        >>> test.images.shape[1:], set(test.counts.tolist()), test.classes[0]
        ((28, 28, 1), {20}, 'Georgian/GEORGIAN CAPITAL LETTER GAN')
    """
    if subset not in SEEDS:
        raise ValueError(f"load_glyphs: there is no subset {subset!r}; expected 'train', 'val' or 'test'.")
    with resources.files("metaception.data").joinpath("glyphs.npz").open("rb") as file, np.load(file) as arrays:
        points, subsets, scripts, styles = (arrays[name] for name in ("points", "subsets", "scripts", "styles"))
        masters = np.unpackbits(arrays["masters"], axis=-1)
    chosen = np.flatnonzero(subsets == subset)
    styles = styles.astype(np.int64)
    starts = np.cumsum(styles) - styles
    groups = tuple(scripts[chosen].tolist())
    names = [unicodedata.name(chr(point)) for point in points[chosen].tolist()]
    # By turns, so that a class shows all its styles about equally often.
    rows = (starts[chosen, None] + np.arange(DRAWINGS) % styles[chosen, None]).ravel()
    first = int(rows.min())
    images = _draw(_soften(masters[first : rows.max() + 1]), rows - first, SEEDS[subset])
    images.flags.writeable = False  # one array for all callers
    return ImageSet(
        f"Glyphs ({subset})",
        images,
        np.full(len(chosen), DRAWINGS),
        tuple(f"{script}/{name}" for script, name in zip(groups, names, strict=True)),
        groups,
        LICENCE,
    )


def _soften(masters: UInt8[np.ndarray, "n side side"]) -> UInt8[np.ndarray, "n side side"]:
    """Blurred by [1, 2, 1] ⊗ [1, 2, 1], 16 for full ink: against aliasing when only every second pixel is looked at."""
    rows = masters * np.uint8(2)
    rows[:, 1:] += masters[:, :-1]
    rows[:, :-1] += masters[:, 1:]
    both = rows * np.uint8(2)
    both[:, :, 1:] += rows[:, :, :-1]
    both[:, :, :-1] += rows[:, :, 1:]
    return both


def _draw(
    masters: UInt8[np.ndarray, "masters side side"], rows: Int[np.ndarray, " n"], seed: int
) -> UInt8[np.ndarray, "n 28 28 1"]:
    """Drawing i of `masters[rows[i]]`; sums and products of float32 alone, which come out the same on every machine."""
    random = np.random.Generator(np.random.PCG64(seed)).random((len(rows), 13)).astype(np.float32) * 2 - 1
    images = np.empty((len(rows), SIDE, SIDE, 1), np.uint8)
    todo = np.arange(len(rows))
    while len(todo):
        for start in range(0, len(todo), BLOCK):
            block = todo[start : start + BLOCK]
            images[block, ..., 0] = _sample(masters, rows[block], random[block])
        # What was bent or shifted over the edge is drawn again with less of everything.
        edges = images[todo][:, EDGE].reshape(len(todo), -1)
        todo = todo[edges.any(-1)]
        random[todo] *= np.float32(0.75)
    return images


def _sample(
    masters: UInt8[np.ndarray, "masters side side"], rows: Int[np.ndarray, " n"], random: Float32[np.ndarray, "n 13"]
) -> Float32[np.ndarray, "n 28 28"]:
    side = masters.shape[-1]
    flat = masters.ravel()
    x, y = _coordinates(random[:, :12], side)
    left, top = x.astype(np.int32), y.astype(np.int32)
    x -= left
    y -= top
    place = top * np.int32(side) + left + (rows * (side * side))[:, None, None]
    above, below = flat[place], flat[place + side]
    upper = above + x * (flat[place + 1].astype(np.float32) - above)
    lower = below + x * (flat[place + side + 1].astype(np.float32) - below)
    # Full ink from a level on that differs from drawing to drawing: a thicker or a thinner pen.
    pen = np.float32(21) + 6 * random[:, 12]
    return np.minimum((upper + y * (lower - upper)) * pen[:, None, None], 255)


def _coordinates(
    random: Float32[np.ndarray, "n 12"], side: int
) -> tuple[Float32[np.ndarray, "n 28 28"], Float32[np.ndarray, "n 28 28"]]:
    """Where in the master each pixel of a drawing lies: (x, y), within it."""
    grid = (np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)) / np.float32(SIDE / 2)
    turn, size, stretch, shear, *shift_and_bends = (column[:, None] for column in random.T)
    half_turn = np.float32(0.11) * turn  # tangent of half the angle: no sine, whose last digit differs between machines
    norm = 1 + half_turn * half_turn
    cosine, sine = (1 - half_turn * half_turn) / norm, 2 * half_turn / norm
    reach = np.float32(PITCH * SIDE / 2) * (1 + np.float32(0.13) * size)
    wide, tall = reach * (1 + np.float32(0.18) * stretch), reach * (1 - np.float32(0.18) * stretch)
    shear = np.float32(0.3) * shear
    shift_x, shift_y, bend_x, bend_y, fan_x, fan_y, wave_x, wave_y = shift_and_bends
    middle = np.float32((side - 1) / 2)
    square, cube = grid * grid, grid * grid * grid - np.float32(0.5) * grid
    shift, bend, fan, wave = np.float32(4), np.float32(7), np.float32(0.3), np.float32(7)

    # x = middle + across · column + along · row + …, with terms that depend on row or column alone kept small until here
    by_row = (
        middle + shift * shift_x + wide * (shear * cosine - sine) * grid + bend * bend_x * square + wave * wave_x * cube
    )
    by_column = wide * cosine * grid
    x = by_row[:, :, None] + by_column[:, None, :] * (1 + fan * fan_x * grid)[:, :, None]
    by_column = middle + shift * shift_y + tall * sine * grid + bend * bend_y * square + wave * wave_y * cube
    by_row = tall * (cosine + shear * sine) * grid
    y = by_column[:, None, :] + by_row[:, :, None] * (1 + fan * fan_y * grid)[:, None, :]
    last = np.float32(side - 1.01)
    return np.clip(x, 0, last), np.clip(y, 0, last)
