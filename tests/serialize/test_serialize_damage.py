"""Damaged and foreign files, kills, full disks."""

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from serialize_tools import write_raw

import chainrule as cr
from chainrule import files
from chainrule.errors import CheckpointError, FileError
from chainrule.serialize import container, load_state, save_state


@pytest.fixture(scope="session")
def written(scratch):
    """A file of weights and one of a state, as bytes."""
    cr.save({"w": cr.ones((3, 2)), "n": cr.arange(3)}, scratch / "w", {"note": "hello"})
    save_state({"w": cr.ones((3, 2)), "lr": 0.1, "t": [1, None]}, scratch / "s")
    return (scratch / "w").read_bytes(), (scratch / "s").read_bytes()


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_is_found(scratch, written, data):
    which = data.draw(st.integers(0, 1))
    raw, read = bytearray(written[which]), (cr.load, load_state)[which]
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    path = scratch / "flipped"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="flipped"):
        read(path)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_file_that_was_cut_off_is_refused(scratch, written, data):
    which = data.draw(st.integers(0, 1))
    raw, read = written[which], (cr.load, load_state)[which]
    path = scratch / "short"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(CheckpointError, match="short"):
        read(path)
    path.write_bytes(raw + b"\0")
    with pytest.raises(CheckpointError, match="short"):
        read(path)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_noise_is_refused(scratch, noise):
    for content in (
        noise,
        len(noise).to_bytes(8, "little") + b"{" + noise,
        b"\x02" + b"\0" * 7 + b"{}",
    ):
        (scratch / "noise").write_bytes(content)
        with contextlib.suppress(CheckpointError):
            assert cr.load(scratch / "noise") == {}  # the empty file of weights is a legal one


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"abc", "cut off after 3 bytes"),
        (b"\xff" * 7 + b"\x00{" + b"x" * 99, "its header needs"),
        (b"<html><body>404 not found</body></html>", "no safetensors file"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle.*torch.load.*save_file"),
        (b"\x80\x05\x95\x00", "pickle"),
        (b"PK\x03\x04" + b"\0" * 26 + b"model/data.pkl" + b"\0" * 99, "pickle"),
        (b"\x93NUMPY\x01\x00" + b"\0" * 99, "NumPy file"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "HDF5"),
        (b"\x10\0\0\0\0\0\0\0" + b"{" * 16, "no safetensors file, or it is damaged"),
    ],
)
def test_other_formats_are_named(content, words, tmp_path):
    (tmp_path / "model.pt").write_bytes(content)
    for read in (cr.load, load_state):
        with pytest.raises(CheckpointError, match=words) as caught:
            read(tmp_path / "model.pt")
        assert str(tmp_path / "model.pt") in str(caught.value)


def test_numpys_archives_are_named(tmp_path):
    np.savez(tmp_path / "x.npz", weight=np.ones(3))
    np.save(tmp_path / "x.npy", np.ones(3))
    for name in ("x.npz", "x.npy"):
        with pytest.raises(CheckpointError, match=r"numpy\.load and store them with cr\.save"):
            cr.load(tmp_path / name)


def test_a_pickle_is_never_run(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    for protocol in range(6):
        (tmp_path / "bomb.pt").write_bytes(pickle.dumps(Bomb(), protocol))
        for read in (cr.load, load_state):
            with pytest.raises(CheckpointError):
                read(tmp_path / "bomb.pt")
    assert not (tmp_path / "exploded").exists()


def test_bools_other_than_0_and_1_are_refused(tmp_path):
    write_raw(tmp_path / "x", [("mask", "BOOL", [2], b"\x01\x02")])
    with pytest.raises(CheckpointError, match="'mask' is stored as BOOL"):
        cr.load(tmp_path / "x")


def rewrite(path, **marks):
    """Change entries of the metadata, with a checksum that fits."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    metadata = header["__metadata__"]
    metadata.pop("chainrule.sha256")
    for name, value in marks.items():
        metadata["chainrule." + name if name != "tree" else name] = value
    metadata["chainrule.sha256"] = container._checksum(header, raw[8 + length :])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def test_newer_formats_are_refused(tmp_path):
    cr.save({"x": cr.ones(1)}, tmp_path / "x")
    rewrite(tmp_path / "x", format="1")
    cr.load(tmp_path / "x")
    rewrite(tmp_path / "x", format="2")
    with pytest.raises(CheckpointError, match=r"newer chainrule wrote it \(format 2.*Upgrade"):
        cr.load(tmp_path / "x")


@pytest.mark.parametrize(
    "tree",
    [
        "", "{", "[1", '{"dict": 3}', '{"list": 3, "tuple": 4}', '{"array": "gone"}', "{}",
        '{"odd": []}', '{"float": "x"}', '{"dict": [[1]]}', '{"dict": [[[], 1]]}', "[" * 9999,
        '{"array": ["x"]}',
    ],
)  # fmt: skip
def test_damaged_trees_are_refused(tree, tmp_path):
    save_state({}, tmp_path / "x")
    rewrite(tmp_path / "x", tree=tree)
    with pytest.raises(CheckpointError, match="tree of states is damaged"):
        load_state(tmp_path / "x")


def test_a_file_that_another_program_changed_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    cr.save({"x": cr.ones(2)}, path)
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    safetensors.numpy.save_file({"x": np.zeros(2, "float32")}, path, metadata)
    with pytest.raises(CheckpointError, match="changed by another program"):
        cr.load(path)


# --- reading and writing that fails ---------------------------------------------------------------


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        cr.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(FileError, match="is a folder"):
        cr.load(tmp_path)


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(FileError, match=r"cannot make the folder .*file'"):
        cr.save({"x": cr.ones(1)}, tmp_path / "file" / "x.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="is a folder, not a file"):
        cr.save({"x": cr.ones(1)}, tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "error"),
    ],
)
@pytest.mark.parametrize("where", ["write", "fsync", "replace", "create"])
def test_the_old_file_survives_a_failure(code, words, where, tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    cr.save({"x": cr.ones(3)}, path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    class Full:
        """A file that fails after its first write."""

        def __init__(self, file):
            self.file, self.writes = file, 0

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

        def write(self, data):
            self.writes += 1
            self.file.write(data) if self.writes == 1 else fail()

    if where == "write":
        monkeypatch.setattr(
            container, "open", lambda *a: Full(open(*a)), raising=False  # noqa: SIM115
        )  # fmt: skip
    elif where == "create":
        monkeypatch.setattr(files, "open", fail, raising=False)
    else:
        monkeypatch.setattr(files.os, where, fail)
    with pytest.raises(FileError, match=words) as caught:
        cr.save({"x": cr.zeros(300)}, path)
    assert str(path) in str(caught.value)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    assert cr.load(path)["x"].tolist() == [1, 1, 1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_disk_that_fills_up_while_writing(tmp_path):
    import resource

    path = tmp_path / "x.ckpt"
    save_state({"epoch": 1}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with pytest.raises(FileError, match="cannot write"):
            save_state({"epoch": 2, "w": np.zeros(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_state(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.ckpt"]


WRITER = """
import sys, numpy as np
from chainrule.serialize import save_state
n = 0
while True:
    n += 1
    save_state({"n": n, "w": np.full(20_000, n)}, sys.argv[1])
    if n == 1:
        print("begun", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path, last = tmp_path / "run.ckpt", 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "begun\n"
        time.sleep(random.uniform(0.005, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        state = load_state(path)
        assert state["n"] >= 1 and (state["w"] == state["n"]).all()
        last = max(last, state["n"])
    assert last > 1
