"""Real data for tests: where it is, or why a test is skipped."""

import os
from pathlib import Path

import pytest

HOW = (
    "Real data is never part of the repository. To run this test, set METACEPTION_DATA to a folder that has it (or put it in "
    "../shared/data, beside the checkout): "
)
GET = {
    "omniglot/omniglot28.npz": "Omniglot packed at 28×28; load_omniglot(download=True) writes one from the originals.",
    "omniglot/omniglot105_1bit.npz": "Omniglot's originals as packed bits, [1623, 20, 1379].",
    "omniglot/split_vinyals_train.txt": "the lists of Vinyals et al. (2016), alphabet/character/rotation a line.",
    "omniglot/split_maml1200_seed1_train.txt": "the lists of the split that stands in for MAML's own.",
    "mini_imagenet/ravi_val.csv": "the list of Ravi and Larochelle (2017).",
    "mini_imagenet/mini84_q88_val.npz": "mini-ImageNet as packed JPEGs, under ImageNet's terms.",
}


def real(name: str) -> Path:
    """A file of real data; skips the test where it is absent."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    for folder in (os.environ.get("METACEPTION_DATA"), beside):
        if folder and (Path(folder) / name).is_file():
            return Path(folder) / name
    pytest.skip(f"{HOW}{name}, {GET[name]}")
