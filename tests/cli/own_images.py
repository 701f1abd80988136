"""Images in folders, as a user has them, for the tests of `adapt` and `export`; and a tiny run that takes them."""

from pathlib import Path

import numpy as np
from PIL import Image

import metaception as mc
from metaception.runs.networks import Convolutional, Perceptron
from metaception.runs.preset import Preset, to_dict

GLYPHS = Preset(
    "tiny-glyphs",
    "for the tests",
    mc.MAML(inner_rate=0.4, meta_batch_size=2),
    mc.ImageTasks("glyphs", ways=3),
    Convolutional(filters=4, blocks=1),
    steps=0,
)
SINES = Preset(
    "tiny-sines",
    "for the tests",
    mc.MAML(inner_rate=0.01, meta_batch_size=2),
    mc.Sinusoids(shots=3, queries=3),
    Perceptron(widths=(4,), initialiser="he"),
    steps=0,
)


def train(preset: Preset, folder: Path) -> Path:
    """A run folder of the preset, as `metaception train` makes it."""
    mc.train(
        preset.build(),
        steps=preset.steps,
        folder=folder,
        preset=to_dict(preset),
        validation=preset.tasks.validation_tasks(),
        validation_tasks=1,
        progress=False,
    )
    return folder


def stroke(angle: int, seed: int, size: int = 28) -> np.ndarray:
    """White ink on black, uint8 [size, size]: a bar of one of four directions, its place and width drawn by the seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2 + rng.uniform(-3, 3)
    across = {0: y, 1: x, 2: x - y, 3: x + y}[angle]
    return np.where(np.abs(across) < rng.uniform(1.5, 3), 255, 0).astype(np.uint8)


def write(
    folder: Path, classes: dict[str, int], count: int, *, seed: int = 0, sort: bool = True, ink: bool = True
) -> Path:
    """`count` PNGs of each class, whose bars have these directions; `sort`ed into a folder a class, or all in one."""
    for name, angle in classes.items():
        for index in range(count):
            path = folder / name / f"{index}.png" if sort else folder / f"{name}{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = stroke(angle, 1000 * seed + 10 * index + angle)
            Image.fromarray(image if ink else 255 - image).save(path)
    return folder
