"""CIFAR-FS from a small tree in its layout."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from metaception.data import cifar_fs, folders
from metaception.data.cifar_fs import load_cifar_fs
from metaception.data.places import DataError

SPLITS = {"train": ["apple", "whale", "beaver"], "val": ["sea_otter", "bee"], "test": ["zebra"]}
RNG = np.random.default_rng(0)
IMAGES = {label: RNG.integers(0, 256, (4, 32, 32, 3), np.uint8) for labels in SPLITS.values() for label in labels}


def test_the_real_counts_are_those_of_the_paper():
    assert cifar_fs.CLASSES == {"train": 64, "val": 16, "test": 20}  # Bertinetto et al. (2019), §4
    assert cifar_fs.IMAGES == 600


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_fs, "CLASSES", {subset: len(labels) for subset, labels in SPLITS.items()})
    monkeypatch.setattr(cifar_fs, "IMAGES", 4)
    root = tmp_path / "cifar_fs"
    (root / "splits" / "bertinetto").mkdir(parents=True)
    for subset, labels in SPLITS.items():
        (root / "splits" / "bertinetto" / f"{subset}.txt").write_text("\n".join(labels) + "\n")
        for label in labels:
            (root / "data" / label).mkdir(parents=True)
            for i, image in enumerate(IMAGES[label]):
                Image.fromarray(image).save(root / "data" / label / f"{label}_s_{i}.png")
    return root


def test_every_subset_has_its_classes_and_images(root, monkeypatch):
    for _ in range(2):  # the second time from what was kept
        for subset, labels in SPLITS.items():
            images = load_cifar_fs(root.parent, subset=subset)
            assert images.name == f"CIFAR-FS {subset}"
            assert images.classes == tuple(sorted(labels))
            for label in labels:
                np.testing.assert_array_equal(images.of(label), IMAGES[label])
        monkeypatch.setattr(folders, "read_image", None)
    assert "https://github.com/bertinetto/r2d2" in images.licence
    assert len(load_cifar_fs(root, subset="test").images) == 4  # the folder itself, too
    root.rename(root.with_name("cifar100"))
    assert len(load_cifar_fs(root.parent, subset="test").images) == 4


def test_what_is_absent_has_to_be_fetched_by_hand(tmp_path):
    (tmp_path / "cifar_fs").mkdir()
    root = tmp_path / "cifar_fs"
    message = (
        f"CIFAR-FS is not in {tmp_path} nor in {root}. It has to be fetched by hand: get the archive that "
        f"https://github.com/bertinetto/r2d2 links to, and unpack it so that there are {root}/data/CLASS/*.png and "
        f"{root}/splits/bertinetto/train.txt, val.txt and test.txt."
    )
    with pytest.raises(DataError, match=re.escape(message)):
        load_cifar_fs(tmp_path)


def test_what_is_not_whole_is_refused_with_counts(root):
    (root / "data/bee/bee_s_2.png").unlink()
    shutil.rmtree(root / "data/sea_otter")
    message = (
        f"CIFAR-FS val in {root}: found 1 classes and 3 images; expected 2 classes of 4 images, 8 in all. Not 4 images: bee "
        "has 3, sea_otter has 0. It has to be fetched by hand"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        load_cifar_fs(root, subset="val")
    (root / "splits/bertinetto/val.txt").unlink()
    with pytest.raises(DataError, match=r"val.txt: cannot be read .*; expected one class a line"):
        load_cifar_fs(root, subset="val")
    (root / "data/zebra/zebra_s_1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"zebra_s_1.png: not an image that can be read"):
        load_cifar_fs(root, subset="test")
    assert len(load_cifar_fs(root, subset="train").images) == 12
