"""Downloads over every kind of bad line, and archives that want to write elsewhere."""

import errno
import fcntl
import hashlib
import http.server
import io
import os
import re
import socket
import stat
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from metaception.data import download as module
from metaception.data.download import download, extract
from metaception.data.places import DataError, check_choice, check_counts, data_dir, kept, try_to_write

CONTENT = np.random.default_rng(0).bytes(300_000)  # more than one chunk
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Served(http.server.ThreadingHTTPServer):
    """Answers with CONTENT, in the way that the path names; notes what it was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str, str | None]] = []

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, format, *args):
        del format, args

    def do_GET(self):
        way, asked = self.path.strip("/"), self.headers.get("Range")
        self.server.asked.append((way, asked))
        if way in ("404", "403", "503"):
            return self.send_error(int(way))
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and way != "no-range" else 0
        if way == "416" and start:
            return self.send_error(416)
        if way == "other-range" and start:
            start += 1
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        rest = CONTENT[start:]
        if way != "no-length":
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if way == "drops" or (way == "drops-once" and len(self.server.asked) == 1):
            rest = rest[:100_000]
        if way == "resets":
            self.wfile.write(rest[:50_000])
            self.wfile.flush()
            # Closing with a lingering time of nought sends a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.shutdown(socket.SHUT_RD)
            return None
        self.wfile.write(rest)
        return None


@pytest.fixture
def server():
    with Served() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.mark.parametrize("expected", [{"md5": MD5}, {"sha256": SHA256.upper()}])
@pytest.mark.parametrize("way", ["plain", "no-length"])
def test_what_comes_is_the_file_and_it_comes_once(server, tmp_path, way, expected):
    target, seen = tmp_path / "new" / "file.bin", []
    for _ in range(2):
        assert (
            download(server.url(way), target, **expected, progress=lambda *now: seen.append(now), timeout=5.0) == target
        )
    assert target.read_bytes() == CONTENT
    assert server.asked == [(way, None)]
    assert os.listdir(target.parent) == ["file.bin"]
    assert seen[-1] == (len(CONTENT), None if way == "no-length" else len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.parametrize(
    ("way", "asked"),
    [
        ("plain", ["bytes=1000-"]),
        ("no-range", ["bytes=400000-"]),  # answers 200 with everything
        ("416", ["bytes=400000-", None]),
        ("other-range", ["bytes=400000-", None]),
    ],
)
def test_goes_on_from_the_part_or_starts_anew(server, tmp_path, way, asked):
    target = tmp_path / "file.bin"
    part = tmp_path / "file.bin.part"
    # Where the server goes on, these bytes are kept; where it starts anew, none of the many may remain.
    part.write_bytes(CONTENT[:1000] if way == "plain" else b"?" * 400_000)
    download(server.url(way), target, sha256=SHA256, pause=0.01, timeout=5.0)
    assert target.read_bytes() == CONTENT
    assert not part.exists()
    assert [range_ for _, range_ in server.asked] == asked


def test_a_part_that_is_whole_needs_no_server(tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    download("http://127.0.0.1:1/", tmp_path / "file", md5=MD5, attempts=1)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_dropped_connections_are_taken_up_again(server, tmp_path):
    download(server.url("drops"), tmp_path / "a", md5=MD5, pause=0.01, timeout=5.0)
    assert [range_ for _, range_ in server.asked] == [None, "bytes=100000-", "bytes=200000-"]
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "case",
    [
        ("drops", 2, "the connection was closed after 200,000 of 300,000 bytes", 200_000, 2),
        ("503", 3, "HTTP Error 503", 0, 3),
        ("404", 3, "HTTP Error 404", 0, 1),  # no use asking again
    ],
)
def test_what_cannot_be_had_is_told_and_the_part_kept(server, tmp_path, case):
    way, attempts, reason, kept_bytes, asked = case
    target = tmp_path / "file"
    with pytest.raises(DataError) as error:
        download(server.url(way), target, md5=MD5, attempts=attempts, pause=0.01, timeout=5.0)
    told = str(error.value)
    assert told.startswith(f"could not download {server.url(way)} to {target}: {reason}")
    kept = f" {kept_bytes:,} bytes are kept in file.part; run it again to go on from there"
    assert told.endswith(f"{kept if kept_bytes else '. Run it again'}, or put the file there by hand (md5 {MD5}).")
    part = tmp_path / "file.part"
    assert (part.read_bytes() if part.exists() else b"") == CONTENT[:kept_bytes]
    assert part.exists() == bool(kept_bytes)
    assert len(server.asked) == asked


def test_a_reset_or_absent_server_is_told(server, tmp_path):
    with pytest.raises(DataError, match="could not download"):
        download(server.url("resets"), tmp_path / "a", md5=MD5, attempts=1, timeout=5.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    (tmp_path / "b").write_bytes(b"another")
    found = hashlib.md5(b"another").hexdigest()
    with pytest.raises(DataError, match=f"The file that is there now has md5 {found}. Run it again"):
        download(url, tmp_path / "b", md5=MD5, attempts=2, pause=0.01, timeout=5.0)
    assert (tmp_path / "b").read_bytes() == b"another"


def test_a_silent_server_is_left(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(DataError, match="timed out"):
            download(url, tmp_path / "a", md5=MD5, attempts=1, timeout=0.05)


@pytest.mark.parametrize("size", [None, 1000])
def test_another_file_is_refused_and_deleted(server, tmp_path, size):
    with pytest.raises(DataError) as error:
        download(server.url("plain"), tmp_path / "file", sha256="0" * 64, size=size, timeout=5.0)
    told = str(error.value)
    assert f"; expected {'0' * 64}. It was deleted." in told
    assert size is not None or f"what came (300,000 bytes) has sha256 {SHA256}" in told
    assert f"put it at {tmp_path / 'file'} by hand" in told
    assert os.listdir(tmp_path) == []


def test_an_altered_file_is_replaced(server, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT[:-1])
    download(server.url("plain"), tmp_path / "file", md5=MD5, timeout=5.0)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_full_disk_is_told_and_the_part_kept(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda path: NamedTuple("Usage", [("free", int)])(299_999))
        with pytest.raises(DataError, match=r"the disk is full: .* needs 300,000 more bytes and 299,999 are free"):
            download(server.url("plain"), tmp_path / "file", md5=MD5, timeout=5.0)

    class Full(module.FileIO):
        def write(self, data):
            if self.tell() + len(data) > 200_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:1000])  # as a file may, only a part

    monkeypatch.setattr(module, "FileIO", Full)
    with pytest.raises(DataError, match=r"the disk is full. What came of .* is kept; free some space"):
        download(server.url("plain"), tmp_path / "file", md5=MD5, timeout=5.0)
    part = (tmp_path / "file.part").read_bytes()
    assert part == CONTENT[: len(part)]
    monkeypatch.undo()
    download(server.url("plain"), tmp_path / "file", md5=MD5, timeout=5.0)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_two_processes_do_not_write_one_file(tmp_path):
    with open(tmp_path / "file.part", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"another process is downloading .*file; wait until it is done"):
            download("http://127.0.0.1:1/", tmp_path / "file", md5=MD5)


@pytest.mark.parametrize("hashes", [{}, {"md5": MD5, "sha256": SHA256}])
def test_a_download_is_checked_by_one_hash(tmp_path, hashes):
    with pytest.raises(ValueError, match="give exactly one of md5 and sha256"):
        download("http://127.0.0.1:1/", tmp_path / "file", **hashes)


def test_only_the_web_and_only_files(tmp_path):
    (tmp_path / "here").write_bytes(CONTENT)
    with pytest.raises(DataError, match="expected an address that begins with http:// or https://"):
        download((tmp_path / "here").as_uri(), tmp_path / "file", md5=MD5)
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "folder", tmp_path / "here" / "file"):
        with pytest.raises(DataError, match=f"cannot write {re.escape(str(target))}: .*METACEPTION_DATA"):
            download("http://127.0.0.1:1/", target, md5=MD5)


def a_zip(path, members):
    """Names are put in as they are; a mode makes a member a link or a device."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content, mode in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr, info.compress_type = name, mode << 16, zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def a_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as file:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind or tarfile.REGTYPE, "/etc/passwd" if kind else "", len(content)
            file.addfile(info, io.BytesIO(content))
    return path


GOOD = [("top/", b"", 0), ("top/a.txt", b"first", 0), ("top/deep/er/b.bin", CONTENT[:5000], 0o100600), ("c", b"", 0)]


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:xz"])
def test_extract_gives_the_files(tmp_path, kind):
    archive, folder = tmp_path / "archive", tmp_path / "not" / "yet"
    if kind == "zip":
        a_zip(archive, GOOD)
    else:
        members = [(name.rstrip("/"), data, tarfile.DIRTYPE if name.endswith("/") else None) for name, data, _ in GOOD]
        a_tar(archive, [(".", b"", tarfile.DIRTYPE), *members], kind)
    assert extract(archive, folder) == folder
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name: content for name, content, _ in GOOD if not name.endswith("/")}
    assert os.listdir(folder.parent) == ["yet"]
    with pytest.raises(DataError, match=r"is there already. Delete it to unpack anew"):
        extract(archive, folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert sorted(os.listdir(extract(archive, empty))) == ["c", "top"]


OUTSIDE = [
    *("/abs", "../up", "a/../../up", "a/..", "..", "a\\..\\..\\up", "\\\\server\\share", "C:/x", "c:x"),
    *("a/b:stream", "nul\0l.png"),
]


@pytest.mark.parametrize("name", [*OUTSIDE, ""])
def test_members_that_would_be_written_elsewhere_are_refused(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    archives = [a_zip(inside / "a.zip", [*GOOD, (name, b"evil", 0)])]
    if "\0" not in name:  # ends a name in a tar archive
        archives.append(a_tar(inside / "a.tgz", [("good", b"1", None), (name, b"evil", None)]))
    for archive in archives:
        before = sorted(path.name for path in inside.iterdir())
        message = f"member {name!r} is outside the folder, or not a plain relative path; nothing was written"
        with pytest.raises(DataError, match=re.escape(message)):
            extract(archive, inside / "out")
        assert sorted(path.name for path in inside.iterdir()) == before
    assert os.listdir(tmp_path) == ["inside"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    modes = {tarfile.SYMTYPE: stat.S_IFLNK, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}
    archives = [
        a_tar(tmp_path / "a.tgz", [("link", b"", kind)]),
        a_zip(tmp_path / "a.zip", [("link", b"/etc/passwd", modes.get(kind, stat.S_IFIFO) | 0o777)]),
    ]
    for archive in archives:
        with pytest.raises(DataError, match=r"member 'link' is a link or a device.*; nothing was written"):
            extract(archive, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["a.tgz", "a.zip"]


def test_bombs_are_not_unpacked(tmp_path):
    bombs = [a_zip(tmp_path / "a.zip", [(str(i), bytes(10**6), 0) for i in range(3)])]
    bombs.append(a_tar(tmp_path / "a.tgz", [(str(i), bytes(10**6), None) for i in range(3)]))
    for bomb in bombs:
        assert bomb.stat().st_size < 20_000
        with pytest.raises(DataError, match="unpacked it has more than the 2,999,999 bytes allowed; nothing was writ"):
            extract(bomb, tmp_path / "out", limit=2_999_999)
        assert not (tmp_path / "out").exists()
        extract(bomb, tmp_path / bomb.suffix, limit=3_000_000)


def test_damaged_archives_leave_nothing(tmp_path):
    good = a_zip(tmp_path / "good.zip", GOOD).read_bytes()
    hit = good.index(CONTENT[2000:2010])  # random bytes are stored as they are, even in a compressed member
    tgz = a_tar(tmp_path / "good.tgz", [("a", CONTENT, None), ("b", CONTENT, None)]).read_bytes()
    damaged = {
        "flipped": good[:hit] + bytes([good[hit] ^ 1]) + good[hit + 1 :],
        "short": good[:-30],
        "tgz": tgz[: len(tgz) // 2],
        "text": b"<html>not found</html>",
        "empty": b"",
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"cannot unpack .*{name} to .*damaged, delete it and get it again"):
            extract(tmp_path / name, tmp_path / "out")
    with pytest.raises(DataError, match="No such file"):
        extract(tmp_path / "absent", tmp_path / "out")
    clash = a_zip(tmp_path / "clash", [("a", b"1", 0), ("a/b", b"2", 0)])
    with pytest.raises(DataError, match="cannot unpack"):
        extract(clash, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == sorted(["good.zip", "good.tgz", "clash", *damaged])


def test_a_disk_that_fills_up_leaves_no_half_folder(tmp_path, monkeypatch):
    def full(source, file):
        file.write(source.read(3))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.shutil, "copyfileobj", full)
    archive = a_zip(tmp_path / "a.zip", GOOD)
    with pytest.raises(DataError, match=r"the disk is full: .* needs 5,005 bytes when unpacked"):
        extract(archive, tmp_path / "out")
    assert os.listdir(tmp_path) == ["a.zip"]


def test_where_data_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("METACEPTION_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert data_dir() == tmp_path / ".cache" / "metaception" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_dir() == tmp_path / "cache" / "metaception" / "data"
    monkeypatch.setenv("METACEPTION_DATA", "")
    assert data_dir() == tmp_path / "cache" / "metaception" / "data"
    monkeypatch.setenv("METACEPTION_DATA", "~/sets")
    assert data_dir() == tmp_path / "sets"
    assert data_dir("~/given") == tmp_path / "given"
    assert data_dir(Path("given")) == Path("given")


def test_counts_and_choices_are_told():
    check_counts("set", {"a": 2, "b": 2}, 2, 2, "Get it.")
    with pytest.raises(DataError) as error:
        check_counts("set in /here", {"a": 2, "b": 1, "c": 0, "d": 3, "e": 1}, 5, 2, "Get it.")
    assert str(error.value) == (
        "set in /here: found 4 classes and 7 images; expected 5 classes of 2 images, 10 in all. Not 2 images: b has 1, c has "
        "0, d has 3 and 1 more. Get it."
    )
    with pytest.raises(
        DataError, match=r"found 1 classes and 2 images; expected 2 classes of 2 images, 4 in all. Get it"
    ):
        check_counts("set", {"a": 2}, 2, 2, "Get it.")
    with pytest.raises(DataError, match=r"subset='valid'; expected one of 'train', 'val', 'test'."):
        check_choice("subset", "valid", ("train", "val", "test"))


def test_what_is_kept_is_used_until_the_originals_change(tmp_path):
    first, second = np.full((2, 3, 4, 1), 7, np.uint8), np.full((2, 3, 4, 1), 8, np.uint8)

    def never():
        raise AssertionError("decoded again")

    np.testing.assert_array_equal(kept(tmp_path, "set_train", "k1", first.shape, lambda: first), first)
    again = kept(tmp_path, "set_train", "k1", first.shape, never)
    np.testing.assert_array_equal(again, first)
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable
    np.testing.assert_array_equal(kept(tmp_path, "set_train", "k2", first.shape, lambda: second), second)
    assert os.listdir(tmp_path) == ["set_train_k2.npy"]
    for damage in (b"", (tmp_path / "set_train_k2.npy").read_bytes()[:-1]):
        (tmp_path / "set_train_k2.npy").write_bytes(damage)
        np.testing.assert_array_equal(kept(tmp_path, "set_train", "k2", first.shape, lambda: first), first)


def test_what_cannot_be_kept_costs_only_time(tmp_path):
    def full(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    assert not try_to_write(tmp_path / "file", full)
    assert not try_to_write(tmp_path / "absent" / "file", lambda file: None)
    assert os.listdir(tmp_path) == []
    images = np.zeros((1, 2, 2, 1), np.uint8)
    assert kept(tmp_path / "absent", "set", "k", images.shape, lambda: images) is images
