"""Writing files so that a kill at any moment leaves the old one or the new one, never a half."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from chainrule.errors import FileError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your quota is used up; free some space or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission was denied; choose a folder that you may write to",
    errno.EPERM: "permission was denied; choose a folder that you may write to",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "the path is a folder, not a file",
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "a file of that name is in the way",
}


def file_error(action: str, path: str | os.PathLike[str], error: OSError) -> FileError:
    """A one-sentence error for an `OSError`: what was tried, on which path, why it failed."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return FileError(f"cannot {action} {os.fspath(path)!r}: {reason}.")


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and its parents; a folder that is there already is fine."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error("make the folder", folder, error) from error
    return folder


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Windows cannot open a folder, and needs no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """The temporary files that `atomic_path` left in a folder when its process was killed."""
    return sorted(Path(folder).glob(".*-*.part*"))


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it into place.

    On any exception the temporary file is removed and what was at `path` before stays untouched.
    The temporary name keeps the suffix, because libraries that write files choose the format by it.
    """
    target = Path(path)
    make_folder(target.parent)
    # Named before it is made, so that no interrupt can come between the two and leave it behind.
    name = f".{target.stem}-{os.urandom(6).hex()}.part{target.suffix}"
    temporary = target.with_name(name)
    try:
        open(temporary, "xb").close()
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except FileError:
        raise
    except OSError as error:
        raise file_error("write", target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path` in one atomic step."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
