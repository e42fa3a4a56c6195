"""Weights between PyTorch and chainrule."""

import re

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import CheckpointError

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")


def test_pytorch_reads_what_we_save(tmp_path):
    x = cr.asarray(np.arange(6.0).reshape(2, 3), requires_grad=True)
    weights = {
        "leaf": x, "transposed": x.T, "constant": cr.ones((2, 2)), "scalar": cr.asarray(3),
        "empty": cr.zeros((0, 4)), "mask": x > 2, "bytes": cr.asarray([1, 255]).astype("uint8"),
    }  # fmt: skip
    cr.save(weights, tmp_path / "x.safetensors")
    loaded = safetensors_torch.load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == weights.keys()
    for name, value in loaded.items():
        np.testing.assert_array_equal(value.numpy(), weights[name].detach().numpy())
        assert value.numpy().dtype == weights[name].dtype


@pytest.mark.parametrize(
    "dtype",
    [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
    ],
)
def test_we_read_what_pytorch_saves(dtype, tmp_path):
    values = (torch.randn(50, 7) * 3).to(getattr(torch, dtype))
    safetensors_torch.save_file({"x": values}, tmp_path / "x.safetensors")
    x = cr.load(tmp_path / "x.safetensors")["x"].numpy()
    expected = values.float() if "16" in dtype and "float" in dtype else values
    np.testing.assert_array_equal(x, expected.numpy())
    assert x.dtype == expected.numpy().dtype


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "complex64"])
def test_dtypes_without_an_equal(dtype, tmp_path):
    values = torch.ones(3).to(getattr(torch, dtype))
    safetensors_torch.save_file({"layer.weight": values}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"'layer\.weight' is stored as"):
        cr.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pytorch_file_is_refused_with_the_lines_that_convert_it(legacy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tied = torch.randn(2, 3)
    state = {"a": tied, "b": tied, "c": torch.randn(3, 2).T}
    torch.save(state, "model.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError) as caught:
        cr.load("model.pt")
    lines = re.search(r"import torch; .*\)$", str(caught.value))
    assert lines is not None
    exec(lines[0], {})
    loaded = cr.load("model.safetensors")
    for name, value in state.items():
        np.testing.assert_array_equal(loaded[name].numpy(), value.numpy())


def test_a_model_gives_the_same_outputs_and_gradients(tmp_path):
    def lenet(lib):
        n = lib.nn
        return n.Sequential(
            n.Conv2d(1, 6, 5, padding=2), n.BatchNorm2d(6), n.ReLU(), n.MaxPool2d(2), n.Flatten(),
            n.Linear(96, 10), n.LayerNorm(10), n.Linear(10, 3),
        )  # fmt: skip

    theirs = lenet(torch)
    images = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype("float32")
    theirs(torch.tensor(images))  # moves the running statistics
    safetensors_torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")

    ours = lenet(cr)
    ours.load_state_dict(cr.load(tmp_path / "model.safetensors"))
    labels = np.array([0, 1, 2, 1, 0])
    for mode in (True, False):
        theirs.train(mode).zero_grad()
        ours.train(mode).zero_grad()
        a, b = theirs(torch.tensor(images)), ours(cr.asarray(images))
        np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), rtol=1e-4, atol=1e-5)
        torch.nn.functional.cross_entropy(a, torch.tensor(labels)).backward()
        nn.functional.cross_entropy(b, cr.asarray(labels)).backward()
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(
                p.grad.numpy(), q.grad.numpy(), rtol=1e-3, atol=1e-5, err_msg=name
            )

    cr.save(ours.state_dict(), tmp_path / "back.safetensors")
    theirs.load_state_dict(safetensors_torch.load_file(tmp_path / "back.safetensors"))
