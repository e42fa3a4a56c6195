"""Downloads from a server on this machine that breaks off, lies and fails in every way."""

from __future__ import annotations

import hashlib
import http.server
import io
import logging
import os
import re
import tarfile
import threading

import numpy as np
import pytest

from chainrule.data import download as module
from chainrule.data import notices
from chainrule.data.download import Remote, check_sha256, download, extract
from chainrule.errors import DataError, DownloadError, FileError

CONTENT = np.random.default_rng(0).bytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT. `plan` is what to do with each request in turn; the last goes on for ever."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list = ["serve"]
        self.requests: list = []

    def url(self, path="/file"):
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, request, client_address):
        pass  # connections that are broken off on purpose


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        todo = server.plan.pop(0) if len(server.plan) > 1 else server.plan[0]
        getattr(self, todo[0] if isinstance(todo, tuple) else todo)(
            *(todo[1:] if isinstance(todo, tuple) else ())
        )

    def serve(self, content=CONTENT, stop=None, ranges=True, encoding=None):
        asked = self.headers.get("Range")
        start = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked and ranges else 0
        if start >= len(content) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:stop])
        if stop is not None:
            self.close_connection = True

    def cut(self, stop):
        self.serve(stop=stop)

    def no_ranges(self, stop=None):
        self.serve(stop=stop, ranges=False)

    def other(self, content):
        self.serve(content)

    def gzip_header(self):
        self.serve(encoding="gzip")

    def chunked(self, content):
        """Without a length: only counting shows how much it is."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(content), 50_000):
            piece = content[start : start + 50_000]
            self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def wrong_range(self):
        self.send_response(206)
        self.send_header("Content-Range", f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - 7))
        self.end_headers()
        self.wfile.write(CONTENT[7:])

    def status(self, code):
        self.send_response(code)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"nope")

    def redirect(self, target):
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def drop(self):
        self.close_connection = True


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(notices, "_said", set())


def fetch(server, folder, *, paths=("/file",), **options):
    remote = Remote("file.gz", len(CONTENT), SHA256, tuple(server.url(path) for path in paths))
    options = {"attempts": 3, "pause": 0.0, "_http_on_loopback": True} | options
    return download(remote, folder, **options)


def left(folder):
    return sorted(os.listdir(folder))


def test_fetch_and_cache(server, tmp_path):
    path = fetch(server, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "file.gz" and path.read_bytes() == CONTENT
    assert left(path.parent) == ["file.gz"] and len(server.requests) == 1
    assert fetch(server, path.parent) == path
    assert len(server.requests) == 1  # from the cache, without a request
    path.write_bytes(CONTENT[:-1] + b"!")  # damaged on the disk
    assert fetch(server, path.parent).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_interrupted_download_goes_on(server, tmp_path):
    server.plan = [("cut", 327_680), ("cut", 655_360), "serve"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    ranges = [asked for _, asked in server.requests]
    assert ranges == [None, "bytes=327680-", "bytes=655360-"]
    assert left(tmp_path) == ["file.gz"]


def test_a_later_process_goes_on_too(server, tmp_path):
    server.plan = [("cut", 393_216), "drop"]
    with pytest.raises(DownloadError, match=r"0\.4 MB are kept, and the next try goes on"):
        fetch(server, tmp_path)
    assert left(tmp_path) == ["file.gz.part"]
    server.plan, server.requests = ["serve"], []
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/file", "bytes=393216-")]
    assert left(tmp_path) == ["file.gz"]


def test_killed_in_the_middle(server, tmp_path, monkeypatch):
    """What a kill leaves is the part file; nothing stands under the final name."""
    write = module._Sink.write

    def die(self, chunk):
        write(self, chunk)
        if self.position > 500_000:
            raise KeyboardInterrupt

    monkeypatch.setattr(module._Sink, "write", die)
    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path)
    assert left(tmp_path) == ["file.gz.part"]
    monkeypatch.setattr(module._Sink, "write", write)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][1].startswith("bytes=")


def test_server_without_ranges_begins_anew(server, tmp_path):
    server.plan = [("no_ranges", 589_824), "no_ranges"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=589824-"]


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    server.plan = [("other", CONTENT[:-1] + b"!")]
    with pytest.raises(DownloadError, match="wrong SHA-256 and was deleted"):
        fetch(server, tmp_path)
    assert left(tmp_path) == []
    server.plan = ["serve"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_damaged_part_file_is_not_kept_for_ever(server, tmp_path):
    (tmp_path / "file.gz.part").write_bytes(b"?" * 5000)
    with pytest.raises(DownloadError, match="wrong SHA-256"):
        fetch(server, tmp_path)
    assert left(tmp_path) == []
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_part_file_longer_than_the_file(server, tmp_path):
    (tmp_path / "file.gz.part").write_bytes(b"?" * (len(CONTENT) + 10))
    assert fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["other", "chunked"])
def test_too_large(server, tmp_path, kind):
    server.plan = [(kind, CONTENT + CONTENT)]
    message = "2,000,000 bytes, but 1,000,000" if kind == "other" else "more than the 1,000,000"
    with pytest.raises(DownloadError, match=message):
        fetch(server, tmp_path)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) == 0


@pytest.mark.parametrize("kind", ["other", "chunked"])
def test_too_small(server, tmp_path, kind):
    server.plan = [(kind, CONTENT[:5000])]
    with pytest.raises(DownloadError, match=r"5,000 bytes, but 1,000,000|\(3 times\)"):
        fetch(server, tmp_path)
    assert "file.gz" not in left(tmp_path)


def test_chunked_answer(server, tmp_path):
    server.plan = [("chunked", CONTENT)]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_packed_files_are_not_unpacked_on_the_way(server, tmp_path):
    server.plan = ["gzip_header"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_wrong_range(server, tmp_path):
    (tmp_path / "file.gz.part").write_bytes(CONTENT[:100])
    server.plan = ["wrong_range"]
    with pytest.raises(DownloadError, match="asked for the bytes from 100, got those from 7"):
        fetch(server, tmp_path)


def test_server_errors(server, tmp_path):
    server.plan = [("status", 503), ("status", 500), "serve"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    server.plan, server.requests = [("status", 503)], []
    with pytest.raises(DownloadError, match=r"the server answered 503 .*\(3 times\)"):
        fetch(server, tmp_path / "again")
    assert len(server.requests) == 3
    server.plan, server.requests = [("status", 404)], []
    with pytest.raises(DownloadError, match="404"):
        fetch(server, tmp_path / "again")
    assert len(server.requests) == 1  # asking again would not help


def test_the_next_address_is_tried(server, tmp_path):
    server.plan = [("status", 404), "serve"]
    assert fetch(server, tmp_path, paths=("/gone", "/there")).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/gone", "/there"]


def test_connections_that_break(server, tmp_path):
    server.plan = ["drop", "drop", "serve"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_offline_names_the_embedded_data_set(tmp_path):
    remote = Remote("file.gz", 9, "0" * 64, ("http://127.0.0.1:9/file",))
    with pytest.raises(DownloadError, match=r"'digits'.*CHAINRULE_DATA") as caught:
        download(remote, tmp_path, pause=0.0, _http_on_loopback=True)
    assert "no connection (is there a network?)" in str(caught.value)
    assert isinstance(caught.value, OSError)


def test_only_https(server, tmp_path):
    with pytest.raises(DownloadError, match="not an HTTPS address"):
        fetch(server, tmp_path, _http_on_loopback=False)
    assert server.requests == []
    for url in ("http://example.com/x", "ftp://127.0.0.1/x", "file:///etc/passwd"):
        remote = Remote("file.gz", 9, "0" * 64, (url,))
        with pytest.raises(DownloadError, match="not an HTTPS address"):
            download(remote, tmp_path, _http_on_loopback=True)


def test_redirects(server, tmp_path):
    server.plan = [("redirect", "/elsewhere"), "serve"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/file", "/elsewhere"]
    # Away from HTTPS: refused before the request is made.
    server.plan = [("redirect", "http://example.com/file")]
    with pytest.raises(DownloadError, match=r"example\.com/file is not an HTTPS address"):
        fetch(server, tmp_path / "other")
    server.plan = [("redirect", "/file")]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path / "other")


def test_two_at_once(server, tmp_path):
    """Two processes that fetch one file write the same bytes: both end with the file."""
    results, errors = [], []

    def run():
        try:
            results.append(fetch(server, tmp_path).read_bytes())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and results == [CONTENT] * 3
    assert left(tmp_path) == ["file.gz"]


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FileError, match="a part of the path is a file"):
        fetch(server, tmp_path / "file" / "cache")


def test_full_disk(server, tmp_path, monkeypatch):
    def full(self, chunk):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module._Sink, "write", full)
    with pytest.raises(FileError, match="the disk is full"):
        fetch(server, tmp_path)
    assert "file.gz" not in left(tmp_path)


def test_one_line_is_said(server, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        fetch(server, tmp_path)
    assert [r.getMessage() for r in caplog.records] == [
        f"fetching file.gz (1.0 MB) from 127.0.0.1:{server.server_address[1]}"
    ]


def test_check_sha256(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    check_sha256(path, SHA256)
    with pytest.raises(DataError, match="is not the official file"):
        check_sha256(path, "0" * 64)
    with pytest.raises(FileError):
        check_sha256(tmp_path / "none", SHA256)


# --- archives -------------------------------------------------------------------------------------


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
    return path


def test_extract_takes_what_is_asked_for(tmp_path):
    path = archive(tmp_path / "a.tar.gz", {"top/one.bin": b"11", "top/two.bin": b"222"})
    paths = extract(path, {"top/two.bin": 3}, tmp_path / "out")
    assert paths == [tmp_path / "out" / "two.bin"] and paths[0].read_bytes() == b"222"
    assert left(tmp_path / "out") == ["two.bin"]


def test_extract_cannot_escape(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"1234")
    path = archive(
        tmp_path / "a.tar.gz",
        {"../evil": b"x", "/abs/evil": b"x", "link.bin": str(secret), "ok.bin": b"ok"},
    )
    # Only what was asked for is written, under its last name, and a link is no file.
    extract(path, {"../evil": 1, "/abs/evil": 1, "ok.bin": 2}, tmp_path / "out")
    assert left(tmp_path / "out") == ["evil", "ok.bin"]
    assert left(tmp_path) == ["a.tar.gz", "out", "secret"]
    with pytest.raises(DataError, match=r"'link.bin' .* is not a file of 4 bytes"):
        extract(path, {"link.bin": 4}, tmp_path / "out")


def test_extract_names_what_is_wrong(tmp_path):
    path = archive(tmp_path / "a.tar.gz", {"one.bin": b"1" * 5000})
    with pytest.raises(DataError, match=r"lacks .*two.bin"):
        extract(path, {"two.bin": 1}, tmp_path / "out")
    with pytest.raises(DataError, match="is not a file of 4,999 bytes"):
        extract(path, {"one.bin": 4999}, tmp_path / "out")
    for content in (b"no archive", b"", path.read_bytes()[:40]):
        damaged = tmp_path / "damaged.tar.gz"
        damaged.write_bytes(content)
        with pytest.raises(DataError, match=r"is damaged|lacks"):
            extract(damaged, {"one.bin": 5000}, tmp_path / "out")
    with pytest.raises(FileError):
        extract(tmp_path / "none.tar", {"one.bin": 1}, tmp_path / "out")
    assert not (tmp_path / "out").exists() or left(tmp_path / "out") == []
