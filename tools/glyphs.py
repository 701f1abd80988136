"""Render the masters of the embedded set Glyphs: `python tools/glyphs.py` writes src/metaception/data/glyphs.npz.

Run by maintainers only. The masters are shipped, so that the set is the same whatever matplotlib or FreeType a user has.
"""

from __future__ import annotations

import functools
import itertools
import sys
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageFont

from metaception.data import glyphs

TARGET = Path(__file__).parents[1] / "src" / "metaception" / "data" / "glyphs.npz"
SIDE, INK = 48, 44  # a master's side, and the longer side of the glyph in it
EM = 192  # rendered large and reduced, so that hinting does not matter

# Upright fonts alone: a slant is a shear, which the drawings have anyway, and italic Cyrillic has letters of other shapes.
FONTS = (
    "DejaVuSans",
    "DejaVuSerif",
    "STIXGeneral",
    "DejaVuSansMono",
    "DejaVuSans-Bold",
    "DejaVuSerif-Bold",
    "STIXGeneralBol",
    "DejaVuSansMono-Bold",
)
ABSENT = "\U0010fffe"  # a code point that no font has: what it looks like is the font's "missing" box

ACCENTED = ("LATIN", "GREEK", "CYRILLIC")
NO_LETTERS = "\ufe73"  # Arabic's tail fragment, which Unicode counts as a letter

# The scripts of each subset, in the order in which the first of two look-alikes is kept; by the first word of Unicode's names.
SUBSETS = {
    "train": {
        "LATIN": "Latin",
        "DIGIT": "Latin",
        "GREEK": "Greek",
        "CYRILLIC": "Cyrillic",
        "COPTIC": "Coptic",
        "OLD": "Old Italic",
        "LISU": "Lisu",
        "CANADIAN": "Canadian Aboriginal",
        "SCRIPT": "Script",
        "ACCENTED LATIN": "Latin",
        "ACCENTED GREEK": "Greek",
        "ACCENTED CYRILLIC": "Cyrillic",
    },
    "val": {"ARMENIAN": "Armenian", "LAO": "Lao", "HEBREW": "Hebrew", "NKO": "N'Ko", "OGHAM": "Ogham"},
    "test": {
        "GEORGIAN": "Georgian",
        "TIFINAGH": "Tifinagh",
        "ARABIC": "Arabic",
        "ARABIC-INDIC": "Arabic",
        "EXTENDED": "Arabic",
        "FRAKTUR": "Fraktur",
    },
}
# Alphabets that Unicode has among its mathematical symbols; their bold letters are code points of their own.
ORNATE = {
    "SCRIPT": ("MATHEMATICAL SCRIPT", "SCRIPT CAPITAL", "SCRIPT SMALL"),
    "FRAKTUR": ("MATHEMATICAL FRAKTUR", "BLACK-LETTER CAPITAL"),
}
DIFFERENT = {"within": 0.25, "across": 0.32}  # two classes of one subset, or of two, at least; see `distances`
SEPARATE = {"within": 0.03, "across": 0.05}  # and their drawings; see `separation`
SAME = 0.12  # two fonts' drawings of a character nearer than this are one style
SLENDER, SOLID = 0.16, 0.9  # bars, dashes and dots are all alike once scaled


def script_word(character: str) -> str | None:
    """The word that `SUBSETS` knows the character's script by, if it is a letter or digit in its own right."""
    name = unicodedata.name(character, "")
    if unicodedata.category(character) not in ("Lu", "Ll", "Lo", "Nd"):
        return None
    if character in NO_LETTERS:
        return None
    for word, starts in ORNATE.items():
        if name.startswith(starts):
            return word
    if name.startswith("ARABIC LETTER") and name.endswith(("INITIAL FORM", "FINAL FORM")):
        return "ARABIC"
    if unicodedata.normalize("NFKD", character) != character:  # an accent, a ligature, a presentation form
        accented = name.split()[0] in ACCENTED and unicodedata.normalize("NFKC", character) == character
        return f"ACCENTED {name.split()[0]}" if accented else None
    return name.split()[0] if name else None


def candidates() -> list[tuple[str, str, str]]:
    """(subset, script, character), in the order in which they are taken."""
    words: dict[str, list[str]] = {}
    for point in range(0x21, 0x20000):
        word = script_word(chr(point))
        if word:
            words.setdefault(word, []).append(chr(point))
    return [
        (subset, script, character)
        for subset, scripts in SUBSETS.items()
        for word, script in scripts.items()
        for character in words.get(word, [])
    ]


def load_fonts() -> list[ImageFont.FreeTypeFont]:
    """The fonts of `FONTS`, from matplotlib."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [ImageFont.truetype(folder / f"{name}.ttf", EM, layout_engine=ImageFont.Layout.BASIC) for name in FONTS]


@functools.cache
def ink(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray | None:
    """The glyph cut to its bounding box, 0 to 255; None where there is nothing to see."""
    mask = font.getmask(character)
    if 0 in mask.size:
        return None
    array = np.asarray(mask, np.uint8).reshape(mask.size[::-1])
    rows, columns = np.flatnonzero(array.max(1) > 127), np.flatnonzero(array.max(0) > 127)
    return array[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else None


def fit(glyph: np.ndarray, side: int, longest: int, aspect: float = 1) -> np.ndarray:
    """[side, side] in [0, 1]: the glyph in the middle, its longer side `longest` pixels, its proportions to this power."""
    height, width = (max(1, round(longest * (length / max(glyph.shape)) ** aspect)) for length in glyph.shape)
    small = np.asarray(Image.fromarray(glyph).resize((width, height), Image.Resampling.BOX), np.float32) / 255
    canvas = np.zeros((side, side), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = small
    return canvas


def descriptor(glyph: np.ndarray) -> np.ndarray:
    """[400], of length 1: the glyph on 20 × 20 pixels.

    It is blurred and half way to a square, so that a stroke's exact place and the proportions (o, O, 0) count for less.
    """
    # By way of 40 × 40: a rounded half pixel in 16 would be as much as two letters differ by.
    small = fit(glyph, 40, 32, aspect=0.5).reshape(20, 2, 20, 2).mean((1, 3))
    for axis in (0, 1):
        small = (np.roll(small, 1, axis) + 2 * small + np.roll(small, -1, axis)) / 4
    return small.ravel() / np.linalg.norm(small)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[m, n] between descriptors [m, 400] and [n, 400]: 0 for the same up to scale, √2 for no common ink."""
    return np.sqrt(np.maximum(2 - 2 * first @ second.T, 0))


def forms(character: str) -> list[str]:
    """The code points that draw it: the character and, of the ornate alphabets, its bold."""
    word = script_word(character)
    if word not in ORNATE:
        return [character]
    return [
        character,
        unicodedata.lookup(" ".join(["MATHEMATICAL BOLD", word, *unicodedata.name(character).split()[-2:]])),
    ]


def render(character: str, fonts: list[ImageFont.FreeTypeFont]) -> tuple[np.ndarray, np.ndarray]:
    """Masters [styles, SIDE, SIDE] of bool, and their descriptors [styles, 400]; no styles where no font has it."""
    masters: list[np.ndarray] = []
    descriptors: list[np.ndarray] = []
    for font, form in itertools.product(fonts, forms(character)):
        glyph, box = ink(font, form), ink(font, ABSENT)
        if glyph is None or (box is not None and np.array_equal(glyph, box)):
            continue
        if min(glyph.shape) < SLENDER * max(glyph.shape) or glyph.mean() > SOLID * 255:
            continue
        new = descriptor(glyph)
        if not descriptors or distances(new[None], np.stack(descriptors)).min() > SAME:
            descriptors.append(new)
            masters.append(fit(glyph, SIDE, INK) > 0.5)
    return np.array(masters, bool).reshape(-1, SIDE, SIDE), np.array(descriptors, np.float32).reshape(-1, 400)


def separation(masters: list[np.ndarray], drawings: int = 100) -> np.ndarray:
    """[classes, classes]: between mean drawings, the squared distance over the variance within the two classes.

    Letters that differ by less than what jitter does to each (ì and í) are near 0, 1 is far apart.
    """
    styles = np.array([len(drawn) for drawn in masters])
    rows = (np.cumsum(styles) - styles)[:, None] + np.arange(drawings) % styles[:, None]
    images = glyphs._draw(glyphs._soften(np.concatenate(masters).astype(np.uint8)), rows.ravel(), seed=3)
    images = images.reshape(len(masters), drawings, -1)
    means = np.stack([drawn.mean(0) for drawn in images])
    variances = np.array([drawn.var(0, ddof=1).sum() for drawn in images])
    squares = (means**2).sum(1)
    spread = variances[:, None] + variances
    return (squares[:, None] + squares - 2 * means @ means.T - spread / drawings) / spread


def distinct(subsets: list[str], apart: np.ndarray) -> list[int]:
    """The classes that are separate from all classes kept before them."""
    kept: list[int] = []
    for i, subset in enumerate(subsets):
        if all(apart[i, j] >= SEPARATE["within" if subsets[j] == subset else "across"] for j in kept):
            kept.append(i)
    return kept


def build() -> dict[str, np.ndarray]:
    """The arrays of the file: code point, subset, script and number of styles of each class, and all masters."""
    fonts = load_fonts()
    found: list[tuple[str, str, str]] = []
    masters: list[np.ndarray] = []
    seen = {subset: np.zeros((0, 400), np.float32) for subset in SUBSETS}
    for subset, script, character in candidates():
        drawn, descriptors = render(character, fonts)
        near = any(
            distances(descriptors, others).min(initial=9) < DIFFERENT["within" if other == subset else "across"]
            for other, others in seen.items()
        )
        if len(drawn) and not near:
            found.append((subset, script, character))
            masters.append(drawn)
            seen[subset] = np.concatenate([seen[subset], descriptors])
    kept = distinct([subset for subset, _, _ in found], separation(masters))
    subsets, scripts, characters = zip(*(found[i] for i in kept), strict=True)
    return {
        "points": np.array([ord(character) for character in characters], np.int32),
        "subsets": np.array(subsets),
        "scripts": np.array(scripts),
        "styles": np.array([len(masters[i]) for i in kept], np.uint8),
        "masters": np.packbits(np.concatenate([masters[i] for i in kept]), axis=-1),
    }


def main() -> None:
    """Build, write, and say what came out."""
    arrays = build()
    np.savez_compressed(TARGET, **arrays)
    counts = {subset: int((arrays["subsets"] == subset).sum()) for subset in SUBSETS}
    sys.stdout.write(f"{TARGET}: {counts}, {len(arrays['masters'])} masters, {TARGET.stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
