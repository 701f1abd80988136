"""Omniglot: every layout gives the same images, the splits are those published, and what is not whole is refused."""

import hashlib
import http.server
import io
import os
import re
import shutil
import threading
import zipfile
from functools import partial

import numpy as np
import pytest
from data.real import real
from PIL import Image

from metaception.data import omniglot, places
from metaception.data.omniglot import load_omniglot, omniglot_split
from metaception.data.places import DataError


def lines(name):
    return real(f"omniglot/{name}").read_text().split()


@pytest.fixture(scope="module")
def packed():
    """The packed file as it is, without the loader."""
    with np.load(real("omniglot/omniglot28.npz")) as file:
        names = file["alphabet_names"][file["alphabet"]]
        labels = [f"{name}/character{number:02d}" for name, number in zip(names, file["character"], strict=True)]
        return dict(zip(labels, file["images"], strict=True))


@pytest.fixture(scope="module")
def everything():
    return load_omniglot(real("omniglot/omniglot28.npz").parent.parent, subset="all")


def test_splits_are_those_of_the_lists():
    for subset, labels in omniglot_split("maml").items():
        assert labels == sorted(lines(f"split_maml1200_seed1_{subset}.txt"))
    for subset, labels in omniglot_split("vinyals").items():
        assert labels == sorted({line.rsplit("/", 1)[0] for line in lines(f"split_vinyals_{subset}.txt")})


def test_splits_are_disjoint_and_the_same_everywhere():
    # 1,100 + 100 + 423 as in Finn et al. (2017), §5.2, with validation taken from training; 1,028 + 172 + 423 as in the lists
    # of Vinyals et al. (2016). The hashes are of the lists that `test_splits_are_those_of_the_lists` compares with.
    for split, sizes, digest in [
        ("maml", [1100, 100, 423], "d16d64de795d4a26020c97794c837deee84c43ce96829fbd09cd2566513167b6"),
        ("vinyals", [1028, 172, 423], "f688929dbac47bb510493d3bd74c1ec9c69b7bfb820ead1656bc23c1ab8a9ee8"),
    ]:
        parts = omniglot_split(split)
        assert [len(parts[subset]) for subset in ("train", "val", "test")] == sizes
        assert len(set().union(*parts.values())) == 1623
        text = "\n".join(label for subset in ("train", "val", "test") for label in parts[subset])
        assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_real_images_are_the_packed_ones(packed, everything):
    assert repr(everything) == "ImageSet(Omniglot: 1,623 classes, 32,460 images of 28×28×1)"
    assert list(everything.classes) == sorted(packed)
    assert everything.groups == tuple(label.split("/")[0] for label in everything.classes)
    assert "MIT" in everything.licence
    assert "https://github.com/brendenlake/omniglot" in everything.licence
    for label in ("Angelic/character01", "Tifinagh/character55", "ULOG/character26"):
        np.testing.assert_array_equal(everything.of(label)[..., 0], packed[label])
    assert 15 < everything.images.mean() < 30  # 8 % ink: it is high, not the paper


def test_real_originals_come_out_as_the_packed_images(packed, tmp_path, monkeypatch):
    alphabets = {"Tagalog": 17, "Tengwar": 25}  # one of the background, one of the evaluation set
    monkeypatch.setattr(omniglot, "ALPHABETS", alphabets)
    labels = list(packed)
    with np.load(real("omniglot/omniglot105_1bit.npz")) as file:
        bits = file["packed"]
    for half, alphabet in zip(omniglot.HALVES, alphabets, strict=True):
        for row in (row for row, label in enumerate(labels) if label.startswith(f"{alphabet}/")):
            folder = tmp_path / half / labels[row]
            folder.mkdir(parents=True)
            for drawer, flat in enumerate(bits[row], 1):
                ink = np.unpackbits(flat)[: 105 * 105].reshape(105, 105).astype(bool)
                Image.fromarray(~ink).save(folder / f"{row + 1:04d}_{drawer:02d}.png")
    images = load_omniglot(tmp_path, subset="all")
    assert len(images.classes) == 42
    for label in images.classes:
        np.testing.assert_array_equal(images.of(label)[..., 0], packed[label])


ALPHABETS = {"Big": 2, "small": 1}
RNG = np.random.default_rng(0)
INK = {
    (f"{name}/character{number:02d}", f"{name}_{drawer:02d}.png"): RNG.random((105, 105)) < 0.1
    for name, count in ALPHABETS.items()
    for number in range(1, count + 1)
    for drawer in (1, 2)
}
EXPECTED = np.stack(
    [
        255 - np.asarray(Image.fromarray(~ink).convert("L").resize((28, 28), Image.Resampling.LANCZOS))
        for ink in INK.values()
    ]
)


def png(ink):
    file = io.BytesIO()
    Image.fromarray(~ink).save(file, "png")
    return file.getvalue()


PNGS = {f"{'/'.join(key)}": png(ink) for key, ink in INK.items()}


@pytest.fixture(autouse=True)
def _small(request, monkeypatch):
    """Three characters of two drawers, for tests without real data."""
    if "real" not in request.node.name and "splits" not in request.node.name:
        monkeypatch.setattr(omniglot, "ALPHABETS", ALPHABETS)
        monkeypatch.setattr(omniglot, "DRAWERS", 2)


def halves():
    """What each archive or folder has: an alphabet each."""
    for half, alphabet in zip(omniglot.HALVES, ALPHABETS, strict=True):
        yield half, {path: content for path, content in PNGS.items() if path.startswith(alphabet)}


def put_folders(root, replaced=()):
    for half, files in halves():
        for path, content in (files | dict(replaced)).items():
            if path.split("/")[0] not in ALPHABETS or path in files:
                (root / half / path).parent.mkdir(parents=True, exist_ok=True)
                (root / half / path).write_bytes(content)
        (root / half / "Big").mkdir(exist_ok=True)
    return root


def put_archives(root):
    root.mkdir(parents=True, exist_ok=True)
    for half, files in halves():
        with zipfile.ZipFile(root / f"{half}.zip", "w") as file:
            for path, content in reversed(files.items()):  # an archive has its own order
                file.writestr(f"{half}/{path}", content)
            file.writestr(f"__MACOSX/{half}/Big/character01/._Big_01.png", b"not a picture")
    return root


@pytest.mark.parametrize("put", [put_folders, put_archives])
@pytest.mark.parametrize("below", ["", "omniglot"])
def test_every_layout_gives_the_same(tmp_path, put, below):
    put(tmp_path / below)
    first = load_omniglot(tmp_path, subset="all")
    assert first.classes == ("Big/character01", "Big/character02", "small/character01")
    assert first.groups == ("Big", "Big", "small")
    np.testing.assert_array_equal(first.images[..., 0], EXPECTED)
    # The second time from what was packed beside them.
    for entry in (tmp_path / below).iterdir():
        if entry.name != "omniglot28.npz":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    second = load_omniglot(tmp_path, subset="all")
    assert second.classes == first.classes
    assert second.groups == first.groups
    np.testing.assert_array_equal(second.images, first.images)


def test_an_archive_and_a_folder_go_together(tmp_path):
    put_archives(put_folders(tmp_path))
    shutil.rmtree(tmp_path / "images_background")
    (tmp_path / "images_evaluation.zip").unlink()
    np.testing.assert_array_equal(load_omniglot(tmp_path, subset="all").images[..., 0], EXPECTED)


def test_a_folder_that_cannot_be_written_will_do(tmp_path, monkeypatch):
    def refuse(path, content):
        raise PermissionError(13, "read-only", str(path.parent))

    monkeypatch.setattr(places, "write_atomically", refuse)
    put_archives(tmp_path)
    np.testing.assert_array_equal(load_omniglot(tmp_path, subset="all").images[..., 0], EXPECTED)
    assert sorted(os.listdir(tmp_path)) == ["images_background.zip", "images_evaluation.zip"]


def test_what_is_absent_is_told(tmp_path):
    with pytest.raises(DataError) as error:
        load_omniglot(tmp_path)
    assert str(error.value) == (
        f"Omniglot is not in {tmp_path} nor in {tmp_path / 'omniglot'}: missing images_background and images_evaluation. "
        "Fetch it: `metaception data omniglot` (in Python download=True). Or get "
        f"{omniglot.URL}/images_background.zip and {omniglot.URL}/images_evaluation.zip and put "
        f"them in {tmp_path / 'omniglot'} by hand."
    )
    put_archives(tmp_path)
    (tmp_path / "images_background.zip").unlink()
    with pytest.raises(
        DataError,
        match=re.escape(
            ": missing images_background. Fetch it: `metaception data omniglot` (in Python download=True). Or get "
        ),
    ):
        load_omniglot(tmp_path)


def test_what_is_not_whole_is_refused_with_counts(tmp_path):
    put_folders(tmp_path)
    (tmp_path / "images_background/Big/character02/Big_02.png").unlink()
    shutil.rmtree(tmp_path / "images_evaluation/small/character01")
    message = (
        f"Omniglot in {tmp_path}: found 2 classes and 3 images; expected 3 classes of 2 images, 6 in all. Not 2 images: "
        "Big/character02 has 1, small/character01 has 0. Delete it and get https://"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        load_omniglot(tmp_path, subset="all")
    (tmp_path / "images_background/Big/character03").mkdir()
    (tmp_path / "images_background/Big/character03/x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of the characters found are none of Omniglot's: Big/character03. Delete"):
        load_omniglot(tmp_path, subset="all")
    assert not (tmp_path / "omniglot28.npz").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(np.zeros((28, 28), bool)), r"Big/character01/Big_01.png: 28×28; expected an original of 105×105"),
        (PNGS["Big/character01/Big_01.png"][:50], r"Big/character01/Big_01.png: not an image that can be read"),
    ],
)
def test_a_drawing_that_is_none_is_named(tmp_path, content, message):
    put_folders(tmp_path)
    (tmp_path / "images_background/Big/character01/Big_01.png").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_omniglot(tmp_path, subset="all")
    assert not (tmp_path / "omniglot28.npz").exists()


def test_white_on_black_is_refused(tmp_path):
    put_folders(tmp_path)
    for (label, name), ink in INK.items():
        path = next(tmp_path.glob(f"images_*/{label}/{name}"))
        path.write_bytes(png(~ink))
    with pytest.raises(DataError, match="more ink than paper, so black and white are the other way round"):
        load_omniglot(tmp_path, subset="all")


def test_damaged_archives_and_packed_files_are_told(tmp_path):
    put_archives(tmp_path)
    whole = (tmp_path / "images_background.zip").read_bytes()
    (tmp_path / "images_background.zip").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"images_background.zip: damaged .* or load with download=True"):
        load_omniglot(tmp_path, subset="all")
    (tmp_path / "images_background.zip").write_bytes(whole)
    load_omniglot(tmp_path, subset="all")
    file = tmp_path / "omniglot28.npz"
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], content[:200] + bytes([content[200] ^ 1]) + content[201:], b""):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"omniglot28.npz: damaged.*Delete it: it is made anew"):
            load_omniglot(tmp_path, subset="all")
    with np.load(io.BytesIO(content)) as arrays:
        good = dict(arrays)
    for change, message in [
        ({"images": good["images"][:, :1]}, r"images are uint8 \(3, 1, 28, 28\); expected uint8 \[1623, 20, 28, 28\]"),
        ({"images": 255 - good["images"]}, "more ink than paper"),
        (
            {"character": good["character"] + 1},
            r"2 of the characters found are none of Omniglot's: Big/character03, small/character02. Delete",
        ),
    ]:
        np.savez(file, **{**good, **change})
        with pytest.raises(DataError, match=message):
            load_omniglot(tmp_path, subset="all")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        del format, args


@pytest.fixture
def served(tmp_path):
    """The archives in a folder, and the address that they are served at."""
    folder = put_archives(tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_download_fetches_what_is_missing(tmp_path, monkeypatch, served):
    (served, url), home, seen = served, tmp_path / "home", []
    md5s = {half: hashlib.md5((served / f"{half}.zip").read_bytes()).hexdigest() for half in omniglot.HALVES}
    monkeypatch.setattr(omniglot, "HALVES", md5s)
    monkeypatch.setattr(omniglot, "URL", url)
    images = load_omniglot(home, subset="all", download=True, progress=lambda *now: seen.append(now))
    (home / "omniglot" / "omniglot28.npz").unlink()
    (home / "omniglot" / "images_evaluation.zip").unlink()
    again = load_omniglot(home, subset="all", download=True)
    for got in (images, again, load_omniglot(home, subset="all", download=True)):
        np.testing.assert_array_equal(got.images[..., 0], EXPECTED)
    assert [now for now in seen if now[0] == now[1]] == [
        ((served / f"{half}.zip").stat().st_size,) * 2 for half in omniglot.HALVES
    ]
