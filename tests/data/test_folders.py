"""Folders of images of every kind, and what is said of those that will not do."""

import os
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from metaception.data.folders import load_folder, read_image
from metaception.data.places import DataError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3), np.uint8)
GREY = RNG.integers(0, 256, (6, 9), np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def test_classes_and_files_are_in_natural_order_without_hidden_ones(tmp_path):
    for label in ("class10", "class2", "Class1"):
        for i in (10, 9, 1):
            save(tmp_path / label / f"image{i}.png", np.full((4, 5), 20 * len(label) + i, np.uint8))
    save(tmp_path / "class2" / ".hidden.png", GREY)
    save(tmp_path / "class2" / "deeper" / "x.png", GREY)
    save(tmp_path / ".cache" / "x.png", GREY)
    (tmp_path / "class2" / "notes.txt").write_text("not an image")
    (tmp_path / "README").write_text("not an image")
    images = load_folder(tmp_path)
    assert images.name == tmp_path.name
    assert images.licence == "not stated"
    assert images.classes == ("Class1", "class2", "class10")
    assert images.images[:, 0, 0, 0].tolist() == [121, 129, 130, 121, 129, 130, 141, 149, 150]
    assert images.images.shape == (9, 4, 5, 1)
    named = load_folder(str(tmp_path), name="mine", licence="CC0")
    assert (named.name, named.licence) == ("mine", "CC0")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG", ".ppm"])
def test_formats_without_loss_are_read_exactly(tmp_path, suffix):
    np.testing.assert_array_equal(read_image(save(tmp_path / f"a{suffix}", COLOUR)), COLOUR)


@pytest.mark.parametrize(("suffix", "options"), [(".jpg", {"quality": 95}), (".jpeg", {}), (".webp", {})])
def test_formats_with_loss_are_read(tmp_path, suffix, options):
    smooth = np.broadcast_to(np.arange(0, 240, 10, np.uint8)[:, None, None], (24, 24, 3))
    path = save(tmp_path / "c" / f"a{suffix}", smooth, **options)
    assert np.abs(read_image(path).astype(int) - smooth).max() < 12
    assert load_folder(tmp_path).images.shape == (1, 24, 24, 3)


def test_gif_gives_its_first_picture(tmp_path):
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(tmp_path / "a.gif"), np.full((4, 4, 3), [255, 0, 0], np.uint8))


def test_channels_are_converted(tmp_path):
    colour, grey = save(tmp_path / "a/colour.png", COLOUR), save(tmp_path / "b/grey.png", GREY)
    np.testing.assert_array_equal(read_image(grey), GREY[..., None])
    np.testing.assert_array_equal(read_image(grey, channels=3), np.repeat(GREY[..., None], 3, axis=2))
    # ITU-R 601 luma, as Pillow documents for mode L.
    luma = COLOUR @ [0.299, 0.587, 0.114]
    assert np.abs(read_image(colour, channels=1)[..., 0] - luma).max() <= 1
    both = load_folder(tmp_path)  # one colour image among them: all are colour
    np.testing.assert_array_equal(both.of("a")[0], COLOUR)
    np.testing.assert_array_equal(both.of("b")[0], np.repeat(GREY[..., None], 3, axis=2))
    assert load_folder(tmp_path, channels=1).images.shape == (2, 6, 9, 1)


def test_what_is_transparent_is_laid_on_white(tmp_path):
    alpha = np.zeros((6, 9), np.uint8)
    alpha[:, 3:] = 255
    alpha[:, 6:] = 51  # a fifth
    seen = np.where(alpha[..., None] == 0, 255, np.where(alpha[..., None] == 255, COLOUR, 204 + COLOUR / 5))
    image = read_image(save(tmp_path / "a.png", np.dstack([COLOUR, alpha])))
    assert np.abs(image - seen).max() <= 1
    assert (image[:, :3] == 255).all()
    grey = read_image(save(tmp_path / "b.png", np.dstack([GREY, alpha])))
    assert grey.shape == (6, 9, 1)
    assert (grey[:, :3] == 255).all()
    np.testing.assert_array_equal(grey[:, 3:6, 0], GREY[:, 3:6])
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putdata([0, 1])
    palette.save(tmp_path / "c.png", transparency=0)
    assert read_image(tmp_path / "c.png").tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_bits_of_other_depths(tmp_path):
    deep = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    assert read_image(save(tmp_path / "a.png", deep))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert read_image(save(tmp_path / "b.png", np.array([[True, False]])))[0, :, 0].tolist() == [255, 0]
    with pytest.raises(DataError, match="its pixels are floating-point numbers"):
        read_image(save(tmp_path / "c.tif", np.zeros((2, 2), np.float32)))


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to see it upright
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", COLOUR, exif=exif)), np.rot90(COLOUR, -1))


def test_size_resizes_all(tmp_path):
    for i, shape in enumerate([(20, 30), (8, 8), (10, 12)]):
        save(tmp_path / "a" / f"{i}.png", RNG.integers(0, 256, shape, np.uint8))
    images = load_folder(tmp_path, size=(10, 12))
    assert images.images.shape == (3, 10, 12, 1)
    with Image.open(tmp_path / "a" / "0.png") as first:
        expected = np.asarray(first.resize((12, 10), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(images.images[0, ..., 0], expected)
    # A fine chequered board becomes even grey: what is made smaller is smoothed, not sampled.
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = read_image(save(tmp_path / "board.png", board), (8, 8))
    assert np.abs(small.astype(int) - 127).max() <= 4


def test_another_size_is_named(tmp_path):
    save(tmp_path / "a/1.png", GREY)
    save(tmp_path / "a/2.png", GREY)
    save(tmp_path / "b/3.png", GREY.T)
    save(tmp_path / "b/4.png", GREY[1:])
    message = (
        f"{tmp_path}/b/3.png is 9×6 (height×width) and {tmp_path}/a/1.png is 6×9; give size=(height, width) to resize all of "
        "them."
    )
    with pytest.raises(DataError, match=re.escape(message)):
        load_folder(tmp_path)


def test_folders_that_will_not_do_are_told(tmp_path):
    with pytest.raises(DataError, match=r"absent: not a folder that can be read \(No such file or directory\)"):
        load_folder(tmp_path / "absent")
    file = save(tmp_path / "flat" / "a.png", GREY)
    with pytest.raises(DataError, match=r"a.png: not a folder that can be read"):
        load_folder(file)
    save(tmp_path / "flat" / "b.png", GREY)
    with pytest.raises(
        DataError, match="flat: 2 images lie directly in it; expected one folder a class with its images"
    ):
        load_folder(tmp_path / "flat")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="nothing: there is no folder in it; expected one folder a class"):
        load_folder(tmp_path / "nothing")
    save(tmp_path / "empty" / "full" / "a.png", GREY)
    (tmp_path / "empty" / "hollow").mkdir()
    with pytest.raises(DataError, match=r"empty/hollow: no image in it \(.png, .jpg, .*\). Fill it or delete it."):
        load_folder(tmp_path / "empty")
    save(tmp_path / "nested" / "train" / "cat" / "a.png", GREY)
    message = f"If its folders are the classes, load {tmp_path}/nested/train; else delete it."
    with pytest.raises(DataError, match=re.escape(message)):
        load_folder(tmp_path / "nested")
    for wrong, message in [
        ({"size": (0, 4)}, r"size=\(0, 4\); expected \(height, width\)"),
        ({"channels": 4}, "channels=4; e"),
    ]:
        with pytest.raises(DataError, match=message):
            load_folder(tmp_path / "empty", **wrong)


def huge_png():
    """Says that it is 20,000 pixels high and wide, and has no pixel."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_damaged_images_are_named(tmp_path):
    whole = save(tmp_path / "a" / "1.png", COLOUR).read_bytes()
    photo = save(tmp_path / "photo.jpg", np.repeat(np.repeat(COLOUR, 20, 0), 20, 1)).read_bytes()
    damaged = {
        "text.png": b"<html>not found</html>",
        "empty.png": b"",
        "short.png": whole[:-40],
        "header.png": whole[:20] + b"\xff" + whole[21:],
        "short.jpg": photo[: len(photo) // 2],
        "huge.png": huge_png(),
    }
    for name, content in damaged.items():
        path = tmp_path / "a" / name
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            load_folder(tmp_path)
        assert str(error.value).startswith(f"{path}: not an image that can be read (")
        assert str(error.value).endswith("); replace it or delete it.")
        with pytest.raises(DataError, match=re.escape(str(path))):
            read_image(path)
        path.unlink()
    os.symlink(tmp_path / "gone", tmp_path / "a" / "link.png")
    with pytest.raises(DataError, match=r"link.png: not an image that can be read \(.*No such file"):
        load_folder(tmp_path)
