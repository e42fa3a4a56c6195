"""Fetching files: over HTTPS alone, checked, resumed, no larger than announced.

pooch keeps the cache and verifies checksums. What is added here: a download that was broken off
goes on where it stopped (a `.part` file and an HTTP range), redirects must stay on HTTPS, and
neither a wrong size nor a wrong checksum ever leaves a file under its final name.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tarfile
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from chainrule.data.notices import notice
from chainrule.errors import DataError, DownloadError
from chainrule.files import atomic_path, file_error, make_folder

CHUNK = 1 << 15  # what is lost at most when a connection breaks
TIMEOUT = (5, 60)  # seconds to connect, and between two pieces
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Remote:
    """A file on the net.

    Arguments:
        name: its name in the cache.
        size: its exact length in bytes.
        sha256: its checksum.
        urls: where it is, in the order of trying.
    """

    name: str
    size: int
    sha256: str
    urls: tuple[str, ...]


class _Refused(Exception):
    """This address will not do: the next one may."""


def cache_folder() -> Path:
    """Where downloads are kept: the user's cache folder of the system."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("chainrule", appauthor=False)) / "data"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def download(
    remote: Remote,
    folder: Path,
    *,
    attempts: int = 4,
    pause: float = 1.0,
    _http_on_loopback: bool = False,
) -> Path:
    """The path of a file in `folder`, fetched if it is not there with the right checksum.

    Arguments:
        remote: what to fetch.
        folder: where to keep it.
        attempts: tries in a row that may bring nothing new, for each address.
        pause: seconds before a try after a server's error, doubled each time.

    Raises:
        DownloadError: if no address gave the file; what came is kept for the next time.
        FileError: if the folder cannot be written to.
    """
    import pooch

    make_folder(folder)
    reasons = []
    for url in remote.urls:
        with _quiet(pooch.get_logger()):
            fetcher = _Fetcher(remote, folder, attempts, pause, _http_on_loopback)
            try:
                known = f"sha256:{remote.sha256}"
                path = pooch.retrieve(url, known, remote.name, folder, downloader=fetcher)  # type: ignore
                fetcher.drop_part()
                return Path(path)
            except _Refused as error:
                reasons.append(f"{_host(url)}: {error}")
            except ValueError:
                fetcher.drop_part()
                reasons.append(f"{_host(url)}: the file had a wrong SHA-256 and was deleted")
            except OSError as error:
                raise file_error("write", folder / remote.name, error) from error
    kept = length(folder / f"{remote.name}.part")
    raise DownloadError(
        f"could not fetch {remote.name} ({megabytes(remote.size)}): {'; '.join(reasons)}. "
        + (f"{megabytes(kept)} are kept, and the next try goes on from there. " if kept else "")
        + "Without a network, use the data set 'digits', which comes with scikit-learn, or put "
        "the file into a folder and name that folder in the environment variable CHAINRULE_DATA."
    )


def length(path: Path) -> int:
    """A file's length in bytes, 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Fetcher:
    """Fetches a file for pooch: called with an address and the temporary file to fill."""

    def __init__(
        self, remote: Remote, folder: Path, attempts: int, pause: float, http_on_loopback: bool
    ):
        self.remote, self.attempts, self.pause = remote, attempts, pause
        self.http_on_loopback = http_on_loopback
        self.part = folder / f"{remote.name}.part"
        self.target = folder / remote.name

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        self._check_url(url)
        notice(f"fetching {self.remote.name} ({megabytes(self.remote.size)}) from {_host(url)}")
        failures = 0
        while not self._complete():
            before = self._length()
            try:
                self._fetch(url)
                reason = "the answer was cut short"
            except _Refused:
                raise
            except OSError as error:  # what requests raises derives from it
                reason = self._reason(error)
            # A try that brought something does not count as a failure.
            failures = 0 if self._length() > before else failures + 1
            if failures >= self.attempts:
                raise _Refused(f"{reason} ({failures} times)")
            if failures:
                time.sleep(self.pause * 2 ** (failures - 1))
        self._hand_over(output_file)

    def _length(self) -> int:
        return length(self.part)

    def _complete(self) -> bool:
        return self._length() == self.remote.size or self._elsewhere()

    def _elsewhere(self) -> bool:
        """Whether another process has fetched the same file in the meantime."""
        import pooch

        if self.part.exists() or not self.target.exists():
            return False
        return pooch.file_hash(str(self.target), alg="sha256") == self.remote.sha256

    def _reason(self, error: OSError) -> str:
        """Why a try failed, in a few words; raises if another try is pointless."""
        response = getattr(error, "response", None)
        if response is not None:
            status = f"the server answered {response.status_code} {response.reason}"
            if response.status_code < 500 and response.status_code not in (408, 416, 429):
                raise _Refused(status) from error
            return status
        if type(error).__module__.split(".")[0] != "requests":
            raise error  # a full disk or a folder without permission, not the network
        causes = [type(cause).__name__ for cause in error.args]
        if "MaxRetryError" in causes:  # what urllib3 says when no connection came about at all
            raise _Refused("no connection (is there a network?)") from error
        return f"the connection broke ({type(error).__name__})"

    def _fetch(self, url: str) -> None:
        """One request: from the end of the part file to the end of the file."""
        import pooch

        with ExitStack() as stack:
            # Not in append mode: two processes that fetch the same file write the same bytes to the
            # same places, and neither harms the other.
            descriptor = os.open(
                self.part, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644
            )
            file = stack.enter_context(open(descriptor, "r+b"))
            if file.seek(0, os.SEEK_END) > self.remote.size:
                file.truncate(file.seek(0))
            sink = _Sink(file, self.remote.size, stack.enter_context(_progress(self.remote)))
            # Content-Encoding would have requests unpack what is to be kept packed.
            headers = {"Accept-Encoding": "identity"}
            if sink.position:
                headers["Range"] = f"bytes={sink.position}-"

            def check(response: Any, *_: Any, **__: Any) -> None:
                self._check_response(response, sink)

            fetch = pooch.HTTPDownloader(
                chunk_size=CHUNK, headers=headers, hooks={"response": check}, timeout=TIMEOUT
            )
            fetch(url, sink, None)

    def _check_url(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        loopback = self.http_on_loopback and parts.hostname in LOOPBACK
        if parts.scheme != "https" and not (loopback and parts.scheme == "http"):
            raise _Refused(f"{url} is not an HTTPS address, and only those are fetched")

    def _check_response(self, response: Any, sink: _Sink) -> None:
        """Look at the head of an answer, and at where a redirect leads, before anything is read."""
        self._check_url(response.url)
        if response.is_redirect:
            target = urllib.parse.urljoin(response.url, response.headers["Location"])
            self._check_url(target)
            return
        if response.status_code == 416:  # the part file is longer than what is there
            sink.restart()
        if response.status_code not in (200, 206):
            return
        start, total = 0, response.headers.get("Content-Length")
        if response.status_code == 206:
            span = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if span is None:
                raise _Refused("it sent a part of the file without saying which")
            start, total = int(span[1]), span[2]
        if start != sink.position:
            if start:
                raise _Refused(f"asked for the bytes from {sink.position}, got those from {start}")
            sink.restart()
        if total and total.isdigit() and int(total) != self.remote.size:
            raise _Refused(
                f"the file there has {int(total):,} bytes, but {self.remote.size:,} are expected"
            )
        response.raw.headers.pop("Content-Encoding", None)

    def _hand_over(self, output_file: Any) -> None:
        """Copy the part file for pooch to check and to rename; `download` removes it afterwards.

        So at any time either the part file or the file itself is there for another process.
        """
        try:
            shutil.copyfile(self.part, output_file)
        except FileNotFoundError:
            shutil.copyfile(self.target, output_file)

    def drop_part(self) -> None:
        with suppress(OSError):  # Windows removes no file that another process has open
            self.part.unlink(missing_ok=True)


class _Sink:
    """A file that takes no more bytes than it should have in the end."""

    def __init__(self, file: IO[bytes], size: int, progress: Any):
        self.file, self.size, self.progress = file, size, progress
        self.position = file.seek(0, os.SEEK_END)
        self.progress(self.position)

    def restart(self) -> None:
        self.position = self.file.seek(0)
        self.file.truncate()

    def write(self, chunk: bytes) -> None:
        if self.position + len(chunk) > self.size:
            self.restart()
            raise _Refused(f"it sent more than the {self.size:,} bytes that are expected")
        self.file.write(chunk)
        self.position += len(chunk)
        self.progress(self.position)

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def _progress(remote: Remote) -> Iterator[Any]:
    """A function of the bytes so far, which draws a bar if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda position: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(remote.name, total=remote.size)
        yield lambda position: bars.update(task, completed=position)


def check_sha256(path: Path, sha256: str) -> None:
    """Check that a file is what it is said to be.

    Raises:
        DataError: if its checksum is another one.
    """
    import pooch

    try:
        found = pooch.file_hash(str(path), alg="sha256")
    except OSError as error:
        raise file_error("read", path, error) from error
    if found != sha256:
        raise DataError(
            f"'{path}' is not the official file: its SHA-256 is {found}, but {sha256} is expected. "
            "It is damaged or another version; delete it and fetch it again."
        )


def extract(archive: Path, members: Mapping[str, int], folder: Path) -> list[Path]:
    """Take named files out of a tar archive into `folder`; each under its own last name.

    Nothing in the archive decides where anything is written: only regular files whose full name is
    asked for are read, their size must be the expected one, and they are written atomically.

    Arguments:
        archive: a tar file, compressed or not.
        members: full names in the archive, and their sizes in bytes.
        folder: where they go.

    Raises:
        DataError: if the archive is damaged, or lacks a member, or a member has another size.
    """
    paths = []
    try:
        with tarfile.open(archive) as tar:
            for name, size in members.items():
                paths.append(folder / Path(name).name)
                entry = tar.getmember(name)
                stream = tar.extractfile(entry) if entry.isreg() else None
                if stream is None or entry.size != size:
                    raise DataError(
                        f"{name!r} in '{archive}' is not a file of {size:,} bytes; delete the "
                        "archive and fetch it again."
                    )
                with stream, atomic_path(paths[-1]) as temporary, open(temporary, "wb") as file:
                    shutil.copyfileobj(stream, file, CHUNK)
    except KeyError as error:
        raise DataError(f"the archive '{archive}' lacks {error.args[0]}.") from error
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"the archive '{archive}' is damaged: {error}. Delete it and fetch it again."
        ) from error
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise file_error("unpack", archive, error) from error
    return paths
