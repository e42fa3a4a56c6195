"""`cr.save` and `cr.load`."""

import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from serialize_tools import DTYPES, arrays, same_bits, write_raw

import chainrule as cr
from chainrule.errors import ArgumentError, CheckpointError, DTypeError


def layouts(array):
    """The same values in other layouts."""
    yield array
    yield array.astype(array.dtype.newbyteorder(">"))
    if array.ndim:
        yield np.asfortranarray(array)
        yield np.repeat(array, 2, axis=-1)[..., ::2]
        yield array[::-1][::-1]


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
