"""Downloads that can be interrupted, and are checked; archives that may only write where they are told to."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import lzma
import os
import shutil
import ssl
import stat
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from io import FileIO
from pathlib import Path
from typing import IO, NamedTuple

from metaception._version import __version__
from metaception.core.files import is_full
from metaception.data.places import DataError

CHUNK = 1 << 18

Progress = Callable[[int, int | None], object]
"""Called with the bytes that are there and how many there will be (None if that is not known)."""


def download(
    url: str,
    target: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    progress: Progress | None = None,
    timeout: float = 30.0,
    attempts: int = 4,
    pause: float = 0.5,
) -> Path:
    """Fetch a file once, whatever happens on the way: what came is kept in `target`.part, and the next call goes on from there.

    Args:
        url: http or https.
        target: the file; where it is there with the right hash, nothing is fetched.
        md5: the expected hash of the whole file; give this or `sha256`.
        sha256: the same.
        size: bytes expected, for `progress` and for a server that does not tell; more than that are not fetched.
        progress: called after every chunk with (bytes there, bytes in all or None).
        timeout: seconds without a byte after which a connection counts as dropped.
        attempts: how often in a row to connect; each goes on where the one before stopped.
        pause: seconds before the second attempt, doubled before each further one.

    Returns:
        `target`.

    Raises:
        DataError: where the file cannot be had, is not the expected one, or the disk is full.
        ValueError: where not exactly one hash is given.
    """
    if (md5 is None) == (sha256 is None):
        raise ValueError("download: give exactly one of md5 and sha256; a file that is not checked may be any file.")
    kind, expected = ("md5", md5) if md5 is not None else ("sha256", sha256)
    assert expected is not None
    if not url.startswith(("http://", "https://")):
        raise DataError(f"cannot download {url}: expected an address that begins with http:// or https://.")
    by_hand = f"or put the file there by hand ({kind} {expected.lower()})"
    there = ""
    if target.is_file():
        found = _hash(target, kind)
        if found == expected.lower():
            return target
        there = f" The file that is there now has {kind} {found}."
    part = target.with_name(target.name + ".part")
    with _open_part(part, url, target) as file:
        if not (os.fstat(file.fileno()).st_size and _hash(part, kind) == expected.lower()):
            error = _fetch_in_turns(url, file, size, progress, timeout, attempts=attempts, pause=pause)
            if error is not None:
                done = os.fstat(file.fileno()).st_size
                again = f"{done:,} bytes are kept in {part.name}; run it again to go on from there"
                if not done:
                    part.unlink()
                    again = "Run it again"
                raise DataError(f"could not download {url} to {target}: {error}.{there} {again}, {by_hand}.") from error
        found = _hash(part, kind)
        if found != expected.lower():
            done = os.fstat(file.fileno()).st_size
            part.unlink()
            raise DataError(
                f"{url}: what came ({done:,} bytes) has {kind} {found}; expected {expected.lower()}. It was deleted. Run it "
                f"again, in case the transfer was at fault; else get the file elsewhere and put it at {target} by hand."
            )
        os.fsync(file.fileno())
        os.replace(part, target)
    return target


def _hash(path: Path, kind: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


@contextlib.contextmanager
def _open_part(part: Path, url: str, target: Path) -> Iterator[FileIO]:
    """The unfinished file, locked: two processes that append to it would spoil it for both."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder")
        while True:
            file = FileIO(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.close()
                raise DataError(f"another process is downloading {url} to {target}; wait until it is done.") from error
            except OSError:  # a file system without locks
                break
            # Who held the lock before may have finished and renamed the file; then this one is not the unfinished file.
            if part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat()):
                break
            file.close()
    except OSError as error:
        raise DataError(
            f"cannot write {target}: {error}. Choose a folder that can be written (an argument, or METACEPTION_DATA)."
        ) from error
    with file:
        yield file


def _fetch_in_turns(
    url: str, file: FileIO, size: int | None, progress: Progress | None, timeout: float, *, attempts: int, pause: float
) -> Exception | None:
    """Fetch until all is there or the attempts are used up; returns the last error."""
    error: Exception | None = None
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            _fetch(url, file, size, progress, timeout)
            return None
        except urllib.error.HTTPError as refused:
            refused.close()
            error = refused
            if refused.code < 500 and refused.code not in (408, 429):
                break
        except (OSError, http.client.HTTPException) as dropped:
            error = dropped
            if isinstance(getattr(dropped, "reason", None), ssl.SSLCertVerificationError):
                break
    return error


def _fetch(url: str, file: FileIO, size: int | None, progress: Progress | None, timeout: float) -> None:
    """One connection: append to the file what is missing from it."""
    start = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": f"metaception/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        error.close()
        file.truncate(0)
        return _fetch(url, file, size, progress, timeout)
    with response:
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            given = response.headers.get("Content-Range", "none")
            if not given.startswith(f"bytes {start}-"):
                file.truncate(0)
                raise ConnectionError(f"the server sent range {given} where bytes {start}- were asked for")
        else:
            start = 0
            file.truncate(0)
            file.seek(0)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdigit() else size
        free = shutil.disk_usage(file.fileno()).free
        if total is not None and free < total - start:
            raise DataError(
                f"the disk is full: {url} needs {total - start:,} more bytes and {free:,} are free. Free some space, or choose "
                "another folder (an argument, or METACEPTION_DATA), then run it again."
            )
        done = start
        while chunk := response.read1(CHUNK):
            _append(file, chunk, url)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
            if size is not None and done > size:
                return None  # not the expected file; the hash will say so
        if total is not None and done < total:
            raise ConnectionError(f"the connection was closed after {done:,} of {total:,} bytes")
    return None


def _append(file: FileIO, chunk: bytes, url: str) -> None:
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        what = "the disk is full" if is_full(error) else f"cannot write: {error}"
        raise DataError(f"{what}. What came of {url} is kept; free some space, then run it again to go on.") from error


def extract(archive: Path, folder: Path, *, limit: int = 10 * 2**30) -> Path:
    """Unpack a zip or tar archive; nothing is written before every member was checked, and `folder` appears when it is whole.

    Args:
        archive: .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz.
        folder: what it is unpacked to; must not be there, or be empty.
        limit: bytes that all members together may have when unpacked.

    Returns:
        `folder`.

    Raises:
        DataError: where the archive is damaged or too large, or a member would be written elsewhere or is a link or a device.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"cannot unpack {archive}: {folder} is there already. Delete it to unpack anew.")
    temporary = None
    try:
        with contextlib.ExitStack() as stack:
            members, total = [], 0
            for member in _members(archive, stack):
                _check_member(archive, member)
                total += member.size
                if total > limit:
                    raise DataError(
                        f"{archive}: unpacked it has more than the {limit:,} bytes allowed; nothing was written."
                    )
                members.append(member)
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            content = temporary / "content"  # with the usual permissions, unlike mkdtemp's
            content.mkdir()
            for member in members:
                path = content / member.name
                (path if member.folder else path.parent).mkdir(parents=True, exist_ok=True)
                if not member.folder:
                    source = member.open()
                    assert source is not None  # it is for links alone
                    with source, open(path, "wb") as file:
                        shutil.copyfileobj(source, file)
            os.replace(content, folder)
    except (*_BROKEN, OSError) as error:
        if is_full(error):
            raise DataError(
                f"the disk is full: {archive} needs {total:,} bytes when unpacked. Free some space."
            ) from error
        raise DataError(
            f"cannot unpack {archive} to {folder}: {error}. If it is damaged, delete it and get it again."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError)  # or a password


class _Member(NamedTuple):
    name: str
    size: int
    folder: bool
    plain: bool  # a file or a folder
    open: Callable[[], IO[bytes] | None]


def _members(archive: Path, stack: contextlib.ExitStack) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        zipped = stack.enter_context(zipfile.ZipFile(archive))
        for info in zipped.infolist():
            plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            # The name as it stands in the archive: zipfile cuts it at a null character.
            name = info.orig_filename
            yield _Member(name, info.file_size, name.endswith("/"), plain, partial(zipped.open, info))
        return
    try:
        tar = stack.enter_context(tarfile.open(archive))  # noqa: SIM115 (the stack closes it)
    except tarfile.ReadError as error:  # its message is what every compression had to say
        raise tarfile.ReadError("it is neither a zip nor a tar archive, or is cut short") from error
    for entry in tar:
        plain = entry.isfile() or entry.isdir()
        yield _Member(entry.name, entry.size, entry.isdir(), plain, partial(tar.extractfile, entry))


def _check_member(archive: Path, member: _Member) -> None:
    """On every system alike: what is harmless here may not be where backslashes separate and colons name a drive."""
    parts = member.name.split("/")
    wrong = "" if member.plain and member.size >= 0 else "a link or a device, or has no valid size"
    if not member.name or member.name.startswith("/") or ".." in parts or set(member.name) & set("\\:\0"):
        wrong = "outside the folder, or not a plain relative path"
    if wrong:
        raise DataError(
            f"{archive}: member {member.name!r} is {wrong}; nothing was written. Get the archive from its own source."
        )
