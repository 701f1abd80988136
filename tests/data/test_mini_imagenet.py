"""mini-ImageNet: every layout gives the same images, and what is not whole is refused."""

import csv
import io
import os
import re

import numpy as np
import pytest
from data.real import real
from PIL import Image

from metaception.data import folders, mini_imagenet
from metaception.data.mini_imagenet import load_mini_imagenet
from metaception.data.places import DataError


@pytest.fixture(scope="module")
def validation():
    return load_mini_imagenet(real("mini_imagenet/mini84_q88_val.npz").parent.parent, subset="val")


def test_real_images_are_those_of_the_packed_file(validation):
    path = real("mini_imagenet/mini84_q88_val.npz")
    assert repr(validation) == "ImageSet(mini-ImageNet val: 16 classes, 9,600 images of 84×84×3)"
    assert "not commercial" in validation.licence
    with open(real("mini_imagenet/ravi_val.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    with np.load(path) as arrays:
        header, data, offset = arrays["header"].tobytes(), arrays["data"], arrays["offset"]
        names = [name.decode() for name in arrays["filename"]]
    for row in (0, 599, 600, 5123, 9599):
        # The file's own list of names, and the list of Ravi and Larochelle, say which class an image belongs to.
        label = next(entry["label"] for entry in rows if entry["filename"] == names[row])
        jpeg = io.BytesIO(header + data[offset[row] : offset[row + 1]].tobytes())
        np.testing.assert_array_equal(validation.of(label)[row % 600], np.asarray(Image.open(jpeg)))


WNIDS = ("n02", "n01")  # not sorted, unlike what is returned
RNG = np.random.default_rng(0)


def jpeg(size=(84, 84)):
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).resize(size[::-1]).save(file, "jpeg", quality=88)
    return file.getvalue()


JPEGS = {(label, f"{label}_{i}.jpg"): jpeg() for label in WNIDS for i in (1, 2, 10)}


@pytest.fixture(autouse=True)
def _small(request, monkeypatch):
    """Two classes of three images, for tests without real data."""
    if "real" not in request.node.name:
        monkeypatch.setattr(mini_imagenet, "CLASSES", {"train": 2, "val": 2, "test": 2})
        monkeypatch.setattr(mini_imagenet, "IMAGES", 3)


def put_packed(root, subset="train", **changes):
    root.mkdir(parents=True, exist_ok=True)
    labels = sorted(WNIDS)
    ordered = sorted(JPEGS, key=lambda key: key[1][-5])  # classes mixed; the loader sorts them
    sizes = [len(JPEGS[key]) - 100 for key in ordered]
    header = next(iter(JPEGS.values()))[:100]
    assert all(content[:100] == header for content in JPEGS.values())
    arrays = {
        "header": np.frombuffer(header, np.uint8),
        "data": np.frombuffer(b"".join(JPEGS[key][100:] for key in ordered), np.uint8),
        "offset": np.concatenate([[0], np.cumsum(sizes)]),
        "label": np.array([labels.index(label) for label, _ in ordered], np.uint8),
        "wnid": np.array(labels, "S9"),
    }
    np.savez(root / f"mini84_q88_{subset}.npz", **{**arrays, **changes})
    return [name for _, name in ordered]


def put_lists(root, name="train.csv", jpegs=JPEGS, header="filename,label"):
    (root / "images").mkdir(parents=True, exist_ok=True)
    for (_, file), content in jpegs.items():
        (root / "images" / file).write_bytes(content)
    (root / name).write_text("\n".join([header, *(f"{file},{label}" for label, file in jpegs)]) + "\n")


def put_folders(root, subset="train"):
    for (label, file), content in JPEGS.items():
        (root / subset / label).mkdir(parents=True, exist_ok=True)
        (root / subset / label / file).write_bytes(content)


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("put", [put_packed, put_lists, put_folders])
@pytest.mark.parametrize("below", ["", "mini_imagenet", "miniImageNet"])
def test_every_layout_gives_the_same(tmp_path, put, below):
    put(tmp_path / below)
    images = load_mini_imagenet(tmp_path)
    assert images.name == "mini-ImageNet train"
    assert images.classes == ("n01", "n02")
    assert images.counts.tolist() == [3, 3]
    for label in images.classes:
        expected = {pixels(content).tobytes() for (owner, _), content in JPEGS.items() if owner == label}
        assert {image.tobytes() for image in images.of(label)} == expected
    with pytest.raises(DataError, match="mini-ImageNet val is not in"):
        load_mini_imagenet(tmp_path, subset="val")


def test_single_files_are_decoded_once_and_in_order(tmp_path, monkeypatch):
    put_lists(tmp_path, "ravi_train.csv")
    first = load_mini_imagenet(tmp_path)
    for row, name in enumerate(["n01_1.jpg", "n01_2.jpg", "n01_10.jpg", "n02_1.jpg", "n02_2.jpg", "n02_10.jpg"]):
        np.testing.assert_array_equal(first.images[row], pixels(JPEGS[name[:3], name]))
    with monkeypatch.context() as patch:
        patch.setattr(folders, "read_image", None)
        second = load_mini_imagenet(tmp_path)
    np.testing.assert_array_equal(second.images, first.images)
    assert len(list(tmp_path.glob("decoded84_train_*.npy"))) == 1
    # Another image, of the same size in bytes (what follows an image is not read) and of a later time.
    path, other = tmp_path / "images" / "n01_2.jpg", jpeg()
    length, time = path.stat().st_size, path.stat().st_mtime
    if len(other) > length:
        path.write_bytes(JPEGS["n01", "n01_2.jpg"] + bytes(len(other) - length))
        os.utime(path, (time, time))
        load_mini_imagenet(tmp_path)
    path.write_bytes(other.ljust(length, b"\0"))
    os.utime(path, (time + 1, time + 1))
    np.testing.assert_array_equal(load_mini_imagenet(tmp_path).images[1], pixels(other))
    assert len(list(tmp_path.glob("decoded84_train_*.npy"))) == 1


def test_larger_images_are_resized(tmp_path):
    large = jpeg((200, 150))
    put_lists(tmp_path, jpegs=JPEGS | {("n01", "n01_1.jpg"): large})
    expected = Image.open(io.BytesIO(large)).resize((84, 84), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(load_mini_imagenet(tmp_path).images[0], np.asarray(expected))


def test_what_is_absent_has_to_be_fetched_by_hand(tmp_path):
    with pytest.raises(DataError) as error:
        load_mini_imagenet(tmp_path, subset="test")
    told, root = str(error.value), tmp_path / "mini_imagenet"
    assert told.startswith(
        f"mini-ImageNet test is not in {tmp_path} nor in {root}. It has to be fetched by hand, for ImageNet"
    )
    assert "https://image-net.org/download" in told
    assert f"at {root}/images/*.jpg with the list at {root}/test.csv, or at {root}/test/CLASS/*.jpg." in told


def test_what_is_not_whole_is_refused_with_counts(tmp_path):
    put_folders(tmp_path / "folders")
    (tmp_path / "folders/train/n02/n02_2.jpg").unlink()
    short = {key: content for key, content in JPEGS.items() if key != ("n02", "n02_2.jpg")}
    put_lists(tmp_path / "lists", jpegs=short)
    for name in ("folders", "lists"):
        message = (
            f"mini-ImageNet train in {tmp_path / name}: found 2 classes and 5 images; expected 2 classes of 3 images, 6 in "
            "all. Not 3 images: n02 has 2. It has to be"
        )
        with pytest.raises(DataError, match=re.escape(message)):
            load_mini_imagenet(tmp_path / name)
    put_lists(tmp_path / "lists")
    (tmp_path / "lists/images/n01_1.jpg").unlink()
    with pytest.raises(DataError, match=r"n01_1.jpg: cannot be read \(No such file or directory\)"):
        load_mini_imagenet(tmp_path / "lists")
    (tmp_path / "lists/images/n01_1.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"n01_1.jpg: not an image that can be read"):
        load_mini_imagenet(tmp_path / "lists")
    put_lists(tmp_path / "lists", header="file,class")
    with pytest.raises(DataError, match=r"train.csv: not a list with columns filename and label \(KeyError"):
        load_mini_imagenet(tmp_path / "lists")
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"label": np.array([0, 0, 0, 0, 1, 1])},
            "found 2 classes and 6 images; .* Not 3 images: n01 has 4, n02 has 2",
        ),
        (
            {"label": np.array([0, 0, 0, 1, 1, 2])},
            "its arrays header, data, offset, label, wnid do not belong together",
        ),
        ({"label": np.array([0, 0, 0, 1, 1])}, "do not belong together; get it again"),
        ({"wnid": np.array(["n02", "n01"], "S9")}, "do not belong together"),
        ({"data": np.zeros(1000, np.uint8)}, "do not belong together"),
        (
            {"header": np.zeros(100, np.uint8)},
            r"mini84_q88_train.npz, image 1: not an image that can be read \(of no format that is known",
        ),
    ],
)
def test_packed_files_that_are_altered_are_told(tmp_path, changes, message):
    put_packed(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        load_mini_imagenet(tmp_path)


def test_packed_files_that_are_cut_short_are_told(tmp_path):
    put_packed(tmp_path)
    path = tmp_path / "mini84_q88_train.npz"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"damaged, or without the arrays header, data, .* Get it again"):
        load_mini_imagenet(tmp_path)
