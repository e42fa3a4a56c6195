"""Compiled programs on disk, so that a second process starts in milliseconds.

An entry is one file: the object code, the tables and the constants of a program, named by the
digest of all that they were made from (`cache_keys`). It is used only if it is whole (a SHA-256 is
checked before anything is loaded), says itself that it belongs to that digest, and lies in a folder
and file that nobody but this user can write to: object code is run, so it is trusted as much as the
folder is. Whatever is wrong with an entry costs a warning and a compilation, never more.

    CHAINRULE_CACHE         the folder; 0 keeps nothing on disk
    CHAINRULE_CACHE_LIMIT   MiB that it may grow to, 512 unless said; the longest unused go first
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from chainrule.errors import ArgumentError, ChainruleWarning, FileError
from chainrule.files import atomic_path, file_error, leftovers

MAGIC = b"chainrule program 1\n"
SUFFIX = ".program"
LIMIT = 512
ABANDONED = 3600.0  # seconds after which a temporary file is nobody's any more
_HEAD = len(MAGIC) + hashlib.sha256().digest_size


class Entry(NamedTuple):
    """What is kept of a program: its tables as JSON, its object code, its constants."""

    tables: bytes
    code: bytes
    constants: bytes


class Listed(NamedTuple):
    """An entry as `chainrule cache` shows it: the file, what was compiled, bytes, last use."""

    path: Path
    title: str
    size: int
    used: float


class Damaged(Exception):
    """What is wrong with an entry."""


# --- the folder -----------------------------------------------------------------------------------


def folder() -> Path | None:
    """The folder for entries, which need not exist yet; None if nothing is to be kept."""
    wanted = os.environ.get("CHAINRULE_CACHE", "")
    if wanted == "0":
        return None
    if wanted:
        return Path(wanted).expanduser()
    return Path(platformdirs.user_cache_dir("chainrule", appauthor=False)) / "programs"


def limit() -> int:
    """How many bytes all entries may take."""
    text = os.environ.get("CHAINRULE_CACHE_LIMIT", "").strip()
    if not text:
        return LIMIT << 20
    if not (text.isascii() and text.isdigit()):
        raise ArgumentError(
            f"CHAINRULE_CACHE_LIMIT={text!r} must be a whole number of MiB, 0 or more."
        )
    return int(text) << 20


def _trusted(path: Path) -> bool:
    """Whether a folder is this user's alone; says what is wrong with it once."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    except OSError as error:
        _warn_once(path, f"{file_error('use', path, error)} Programs are not kept on disk.")
        return False
    if not stat.S_ISDIR(found.st_mode):
        _warn_once(
            path,
            f"{os.fspath(path)!r}, where compiled programs are to be kept, is a file; set "
            "CHAINRULE_CACHE to a folder.",
        )
        return False
    if _foreign(found):
        _warn_once(
            path,
            f"the folder {os.fspath(path)!r} for compiled programs is not used, because other "
            "users own it or may write to it; make it yours alone (chmod 700), or set "
            "CHAINRULE_CACHE to a folder that is.",
        )
        return False
    return True


def _foreign(found: os.stat_result) -> bool:
    """Whether somebody else owns it or may write to it. (Windows has no such bits.)"""
    user = getattr(os, "geteuid", None)
    if user is None:
        return False
    return found.st_uid != user() or bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


_warned: set[Path] = set()


def _warn_once(path: Path, text: str) -> None:
    if path not in _warned:
        _warned.add(path)
        warnings.warn(text, ChainruleWarning, stacklevel=2)


# --- reading and writing --------------------------------------------------------------------------


def load(key: str) -> Entry | None:
    """The entry of a key, or None if there is none that can be used."""
    place = folder()
    if place is None or not _trusted(place):
        return None
    path = place / (key + SUFFIX)
    try:
        content = _read(path)
        entry = _unpack(content, key)
    except FileNotFoundError:
        return None
    except (Damaged, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        with contextlib.suppress(OSError):
            path.unlink()
        warnings.warn(
            f"the compiled program in {os.fspath(path)!r} cannot be used ({why}); it is removed "
            "and compiled again.",
            ChainruleWarning,
            stacklevel=2,
        )
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return entry


def _read(path: Path) -> bytes:
    """A file's content, if it is an ordinary file of this user's alone."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise Damaged("it is no ordinary file")
        if _foreign(found):
            raise Damaged("other users own it or may write to it")
        return file.read()


def _pack(key: str, entry: Entry, title: str) -> bytes:
    sizes = [len(part) for part in entry]
    header = json.dumps({"key": key, "title": title, "sizes": sizes}).encode()
    body = b"".join((len(header).to_bytes(4, "little"), header, *entry))
    return MAGIC + hashlib.sha256(body).digest() + body


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """An entry's header and where what follows it begins."""
    if not content.startswith(MAGIC):
        raise Damaged("it is not a program that this version wrote")
    start = _HEAD + 4
    end = start + int.from_bytes(content[_HEAD:start], "little")
    try:
        header = json.loads(content[start:end])
    except ValueError as error:
        raise Damaged("its header is damaged") from error
    if not isinstance(header, dict):
        raise Damaged("its header is damaged")
    return header, end


def _unpack(content: bytes, key: str) -> Entry:
    header, start = _header(content)
    if hashlib.sha256(memoryview(content)[_HEAD:]).digest() != content[len(MAGIC) : _HEAD]:
        raise Damaged("its checksum is wrong")
    if header.get("key") != key:
        raise Damaged("it belongs to another program")
    sizes = header.get("sizes")
    if not isinstance(sizes, list) or len(sizes) != 3 or start + sum(sizes) != len(content):
        raise Damaged("its parts do not fit")
    parts = []
    for size in sizes:
        parts.append(content[start : start + size])
        start += size
    return Entry(*parts)


def store(key: str, entry: Entry, title: str) -> None:
    """Keep an entry. A disk that is full or may not be written to costs one warning."""
    place = folder()
    if place is None or not _trusted(place):
        return
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _trusted(place):  # somebody may have been faster
            return
        with atomic_path(place / (key + SUFFIX)) as temporary:
            os.chmod(temporary, 0o600)
            temporary.write_bytes(_pack(key, entry, title))
    except (FileError, OSError) as error:
        why = error if isinstance(error, FileError) else file_error("write to", place, error)
        _warn_once(
            place,
            f"compiled programs cannot be kept in {os.fspath(place)!r}: {why} Each process "
            "compiles them anew. CHAINRULE_CACHE names another folder; CHAINRULE_CACHE=0 keeps "
            "none and says nothing.",
        )
        return
    _shrink(place, limit())


def _shrink(place: Path, most: int) -> None:
    """Remove those that were not used for longest until the rest fits, and abandoned files."""
    now = time.time()
    for path in leftovers(place):
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > ABANDONED:
                path.unlink()
    found = sorted(_files(place), key=lambda x: x[1].st_mtime, reverse=True)
    total = 0
    for path, status in found:
        total += status.st_size
        if total > most:
            with contextlib.suppress(OSError):
                path.unlink()


def _files(place: Path) -> Iterator[tuple[Path, os.stat_result]]:
    with contextlib.suppress(OSError):
        for path in place.glob("*" + SUFFIX):
            if path.name.startswith("."):
                continue
            with contextlib.suppress(OSError):  # another process may be removing it
                yield path, path.lstat()


# --- `chainrule cache` ----------------------------------------------------------------------------


def entries() -> list[Listed]:
    """All entries, the last used first."""
    place = folder()
    listed = []
    for path, status in _files(place) if place is not None else ():
        try:
            with open(path, "rb") as file:
                header, _ = _header(file.read(1 << 16))
            title = str(header.get("title", ""))
        except (OSError, Damaged) as error:
            title = f"unusable: {error}"
        listed.append(Listed(path, title, status.st_size, status.st_mtime))
    return sorted(listed, key=lambda x: x.used, reverse=True)


def clear() -> tuple[int, int]:
    """Remove all entries; returns how many files and bytes.

    Raises:
        FileError: if one cannot be removed.
    """
    place = folder()
    count = size = 0
    if place is None:
        return count, size
    rest = [(path, path.lstat()) for path in leftovers(place)] if place.is_dir() else []
    for path, status in [*_files(place), *rest]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise file_error("remove", path, error) from error
        count, size = count + 1, size + status.st_size
    return count, size
