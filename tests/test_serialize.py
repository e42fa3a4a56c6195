"""Files of weights and states: round trips, damage, kills, full disks."""

import contextlib
import errno
import json
import math
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
from hypothesis.extra import numpy as hnp

import chainrule as cr
from chainrule import files
from chainrule.errors import ArgumentError, CheckpointError, DTypeError, FileError
from chainrule.serialize import container, load_state, save_state

DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32",
    "float64",
]  # fmt: skip


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("serialize")


def arrays(dtypes=tuple(DTYPES)):
    return hnp.arrays(
        st.sampled_from(dtypes), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
    )


def layouts(array):
    """The same values in other layouts."""
    yield array
    yield array.astype(array.dtype.newbyteorder(">"))
    if array.ndim:
        yield np.asfortranarray(array)
        yield np.repeat(array, 2, axis=-1)[..., ::2]
        yield array[::-1][::-1]


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# --- weights --------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(max_size=8).filter(lambda s: s != "__metadata__"), arrays()))
@settings(max_examples=60, deadline=None)
def test_weights_come_back(scratch, weights):
    path = scratch / "w.safetensors"
    cr.save(weights, path)
    loaded = cr.load(path)
    assert list(loaded) == list(weights)
    for name, value in weights.items():
        assert isinstance(loaded[name], cr.Tensor) and not loaded[name].requires_grad
        assert same_bits(loaded[name].numpy(), value)


@given(arrays())
@settings(max_examples=30, deadline=None)
def test_any_layout(scratch, array):
    path = scratch / "layout.safetensors"
    for value in layouts(array):
        cr.save({"x": value}, path)
        assert same_bits(cr.load(path)["x"].numpy(), array)


def test_tensors_of_all_kinds(tmp_path):
    path = tmp_path / "made" / "on the way" / "x.safetensors"
    x = cr.asarray(np.arange(6.0).reshape(2, 3), requires_grad=True)
    tensors = {
        "leaf": x, "computed": x.T * 2, "slice": x[:, 1], "constant": cr.zeros((2, 3)),
        "scalar": cr.asarray(3), "empty": cr.zeros((0, 4)), "number": np.float64(0.1),
    }  # fmt: skip
    cr.save(tensors, str(path))
    for name, value in cr.load(str(path)).items():
        expected = tensors[name]
        expected = expected.detach().numpy() if isinstance(expected, cr.Tensor) else expected
        assert same_bits(value.numpy(), np.asarray(expected)), name


def test_loaded_tensors_are_tensors_like_any_other(tmp_path):
    cr.save({"x": cr.ones(3)}, tmp_path / "x.safetensors")
    x = cr.load(tmp_path / "x.safetensors")["x"].requires_grad_()
    cr.sum(x * x).backward()
    assert x.grad.tolist() == [2.0, 2.0, 2.0]
    with cr.no_grad():
        x[0] = 5.0
    assert x.detach().tolist() == [5.0, 1.0, 1.0]


def test_the_library_reads_our_files_and_we_read_its(tmp_path):
    weights = {d: np.arange(5).astype(d) for d in DTYPES}
    cr.save(weights, tmp_path / "ours.safetensors", {"who": "us"})
    for name, value in safetensors.numpy.load_file(tmp_path / "ours.safetensors").items():
        assert same_bits(value, weights[name])
    safetensors.numpy.save_file(weights, tmp_path / "theirs.safetensors", {"who": "them"})
    loaded, metadata = cr.load(tmp_path / "theirs.safetensors", metadata=True)
    assert metadata == {"who": "them"}
    assert all(same_bits(loaded[d].numpy(), weights[d]) for d in DTYPES)


def test_arrays_lie_aligned(tmp_path):
    cr.save({"a": np.ones(3, "uint8"), "b": np.ones(2), "c": np.ones(5, "int16")}, tmp_path / "x")
    raw = (tmp_path / "x").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    assert header["b"]["data_offsets"] == [0, 16]
    assert header["c"]["data_offsets"] == [16, 26]


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_a_header_whose_length_looks_like_another_format(length, tmp_path):
    cr.save({}, tmp_path / "x", {"data.pkl": "", ".npy": ""})
    size = int.from_bytes((tmp_path / "x").read_bytes()[:8], "little")
    filler = "-" * (length // 8 * 8 - size)
    metadata = {"data.pkl": filler, ".npy": ""}
    cr.save({}, tmp_path / "x", metadata)
    assert int.from_bytes((tmp_path / "x").read_bytes()[:8], "little") == length // 8 * 8
    assert cr.load(tmp_path / "x", metadata=True) == ({}, metadata)


def test_equal_contents_make_equal_files(tmp_path):
    metadata = {str(i): str(i) for i in range(20)}
    for name in "ab":
        cr.save({"x": cr.arange(5), "y": cr.ones(2)}, tmp_path / name, metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_metadata(tmp_path):
    path = tmp_path / "x.safetensors"
    metadata = {"accuracy": "0.99", "Größe": "groß"}
    cr.save({"x": cr.ones(1)}, path, metadata)
    tensors, got = cr.load(path, metadata=True)
    assert got == metadata and list(tensors) == ["x"]
    with pytest.raises(DTypeError, match=r"'accuracy' is 0\.99"):
        cr.save({}, path, {"accuracy": 0.99})
    with pytest.raises(ArgumentError, match=r"begins with 'chainrule\.'"):
        cr.save({}, path, {"chainrule.sha256": ""})


def write_raw(path, entries, metadata=None):
    """A safetensors file by hand: entries are (name, dtype, shape, bytes)."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, dtype, shape, content in entries:
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_half_precision_becomes_single_without_loss(tmp_path):
    every = np.arange(2**16, dtype="<u2")
    write_raw(
        tmp_path / "half",
        [("h", "F16", [256, 256], every.tobytes()), ("b", "BF16", [2**16], every.tobytes())],
    )
    loaded = cr.load(tmp_path / "half")
    half, brain = loaded["h"].numpy(), loaded["b"].numpy()
    assert half.shape == (256, 256) and half.dtype == brain.dtype == np.float32
    np.testing.assert_array_equal(half.ravel(), every.view("<f2").astype("float32"))
    # sign, 8 bits of exponent, 7 of mantissa
    sign = np.where(every >> 15, -1.0, 1.0)
    exponent, mantissa = ((every >> 7) & 255).astype(int), (every & 127) / 128.0
    value = np.where(
        exponent == 0, np.ldexp(mantissa, -126), np.ldexp(1 + mantissa, exponent - 127)
    )
    value = sign * np.where(exponent == 255, np.where(mantissa > 0, np.nan, np.inf), value)
    np.testing.assert_array_equal(brain, value.astype("float32"))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_dtypes_without_an_equal_are_refused(dtype, tmp_path):
    write_raw(tmp_path / "x", [("fine", "U8", [1], b"0"), ("layer.weight", dtype, [4], b"0000")])
    with pytest.raises(CheckpointError, match=f"'layer.weight' is stored as {dtype}"):
        cr.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("tensors", "error", "words"),
    [
        ({"x": np.zeros(2, "complex64")}, DTypeError, "'x' is complex64.*imaginary"),
        ({"x": np.zeros(2, "float16")}, DTypeError, "'x' is float16.*float32"),
        ({"x": np.array(["a"])}, DTypeError, "'x' is <U1"),
        ({"x": np.array([None])}, DTypeError, "'x' is object"),
        ({"x": 0.5}, DTypeError, "'x' is a float"),
        ({"x": {"y": cr.ones(1)}}, DTypeError, "'x' is a dict.*save_state"),
        ({3: cr.ones(1)}, DTypeError, "one is 3"),
        ({"__metadata__": cr.ones(1)}, ArgumentError, "__metadata__"),
        ({"\ud800": cr.ones(1)}, ArgumentError, "not valid Unicode"),
        ([cr.ones(1)], DTypeError, "got a list"),
        (cr.ones(1), DTypeError, "got a Tensor"),
    ],
)
def test_what_save_refuses(tensors, error, words, tmp_path):
    with pytest.raises(error, match=words):
        cr.save(tensors, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_module_is_refused_with_the_fix(tmp_path):
    with pytest.raises(DTypeError, match=r"Pass model.state_dict\(\)"):
        cr.save(cr.nn.Linear(1, 1), tmp_path / "x.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".PTH", ".bin", ".npz", ".h5", ".onnx"])
def test_suffixes_that_promise_another_format(suffix, tmp_path):
    with pytest.raises(ArgumentError, match=r"name it 'model\.safetensors'"):
        cr.save({}, tmp_path / f"model{suffix}")


# --- states ---------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(),
)  # fmt: skip
LEAVES = st.one_of(SCALARS, arrays(), arrays(("float32", "int64")).map(cr.asarray))
TREES = st.recursive(
    LEAVES,
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), children, max_size=4),
    ),
    max_leaves=12,
)


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray | np.generic):
        assert same_bits(a, b)
    elif isinstance(a, cr.Tensor):
        assert same_bits(a.numpy(), b.numpy())
    elif isinstance(a, float):
        assert (math.isnan(a) and math.isnan(b)) or a.hex() == b.hex()
    else:
        assert a == b


@given(TREES)
@settings(max_examples=60, deadline=None)
def test_states_come_back_exactly(scratch, tree):
    save_state(tree, scratch / "state.ckpt")
    assert_same(load_state(scratch / "state.ckpt"), tree)


def test_a_state_of_everything(tmp_path):
    tree = {
        "state": {0: {"step": 3, "v": cr.ones(2)}, 1: {"step": 4}, "1": "a string key"},
        "groups": [{"betas": (0.9, 0.999), "lr": 1e-3, "name": None}],
        "random": np.array([2**64 - 1, 0], dtype=np.uint64),
        "history": [0.1, math.inf, -math.inf, math.nan, -0.0, 5e-324, 1e308],
        "big": 2**200, "text": 'ä"\\\n\ud800', "numbers": [np.int32(3), np.bool_(True)],
        "a/b": np.zeros(1), "a": {"b": np.ones(1)}, "__metadata__": np.zeros(2),
        "": {"": cr.zeros(())}, "\ud800": np.ones(3),
    }  # fmt: skip
    save_state(tree, tmp_path / "x.ckpt")
    assert_same(load_state(tmp_path / "x.ckpt"), tree)
    assert_same(load_state(tmp_path / "x.ckpt")["history"][2], -math.inf)
    save_state(tree, tmp_path / "y.ckpt")
    assert (tmp_path / "x.ckpt").read_bytes() == (tmp_path / "y.ckpt").read_bytes()


def test_arrays_of_a_loaded_state_can_be_written_to(tmp_path):
    save_state([np.zeros(3)], tmp_path / "x")
    (array,) = load_state(tmp_path / "x")
    array[0] = 1.0
    assert array.tolist() == [1.0, 0.0, 0.0]


def test_the_arrays_of_a_state_are_named_by_path(tmp_path):
    save_state({"model": {"0.weight": cr.ones(2)}, "l": [np.ones(1)]}, tmp_path / "x")
    assert set(safetensors.numpy.load_file(tmp_path / "x")) == {"/model/0.weight", "/l/0"}


class Odd:
    def __repr__(self):
        return "<odd>"


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"a": [1, Odd()]}, "the state at '/a/1' is <odd>, a Odd"),
        ({"a": {1, 2}}, "'/a' is .*a set"),
        ({"a": 1j}, "a complex"),
        ({"a": b"x"}, "a bytes"),
        ({"a": np.zeros(1, "complex64")}, "'/a' is complex64"),
        ({"a": {None: 1}}, "'/a' has the key None"),
        ({True: 1}, "has the key True"),
        ({1.5: 1}, "has the key 1.5"),
        (Odd(), "the state at '/'"),
    ],
)
def test_what_a_state_cannot_hold(tree, words, tmp_path):
    with pytest.raises(DTypeError, match=words):
        save_state(tree, tmp_path / "x.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_state_that_contains_itself(tmp_path):
    tree = {}
    tree["again"] = tree
    with pytest.raises(ArgumentError, match="contains itself"):
        save_state(tree, tmp_path / "x.ckpt")


def test_weights_and_states_are_not_mistaken_for_each_other(tmp_path):
    cr.save({"x": cr.ones(1)}, tmp_path / "w.safetensors")
    save_state({"x": cr.ones(1)}, tmp_path / "s.ckpt")
    with pytest.raises(CheckpointError, match=r"holds weights .* read it with cr\.load"):
        load_state(tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"state of a run .*load_state"):
        cr.load(tmp_path / "s.ckpt")
    safetensors.numpy.save_file({"x": np.ones(1)}, tmp_path / "t.safetensors")
    with pytest.raises(CheckpointError, match="holds weights"):
        load_state(tmp_path / "t.safetensors")


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
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
@pytest.mark.parametrize("where", ["write", "fsync", "replace", "mkstemp"])
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
    elif where == "mkstemp":
        monkeypatch.setattr(files.tempfile, "mkstemp", fail)
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
