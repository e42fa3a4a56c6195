"""From samples to batches."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest

import chainrule as cr
from chainrule import data
from chainrule.errors import DataError, ShapeError

Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("samples", "dtype"),
    [
        ([1, 2], "int64"),
        ([1.5, 2], "float64"),
        ([1, 2.5], "float64"),
        ([True, False], "bool"),
        ([1j, 2.0], "complex128"),
        ([np.float32(1), np.float32(2)], "float32"),
        ([np.int16(1), np.int16(2)], "int16"),
        ([np.zeros((2, 3), np.uint8)] * 2, "uint8"),
    ],
)
def test_numbers_and_arrays(samples, dtype):
    batch = data.default_collate(samples)
    assert isinstance(batch, cr.Tensor) and batch.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(batch.numpy(), np.array(samples))


def test_structures_are_kept():
    samples = [
        {"image": np.full((1, 2), i, np.float32), "at": Point(i, float(i)), "name": f"n{i}",
         "pair": [i, (i, b"b")]}
        for i in range(3)
    ]  # fmt: skip
    batch = data.default_collate(samples)
    assert list(batch) == ["image", "at", "name", "pair"]
    assert batch["image"].shape == (3, 1, 2)
    assert isinstance(batch["at"], Point) and batch["at"].x.tolist() == [0, 1, 2]
    assert batch["name"] == ["n0", "n1", "n2"]
    assert isinstance(batch["pair"], list) and isinstance(batch["pair"][1], tuple)
    assert batch["pair"][1][1] == [b"b"] * 3


def test_tensors_are_stacked():
    batch = data.default_collate([(cr.ones((2,)), 0), (cr.zeros((2,)), 1)])
    assert isinstance(batch, tuple)
    assert batch[0].tolist() == [[1, 1], [0, 0]]


def test_what_differs_is_named():
    with pytest.raises(ShapeError, match=r"number 0 has shape \(2,\), number 2 has shape \(3,\)"):
        data.default_collate([np.zeros(2), np.zeros(2), np.zeros(3)])
    with pytest.raises(ShapeError, match="number 0 has 2 and number 1 has 3"):
        data.default_collate([(1, 2), (1, 2, 3)])
    with pytest.raises(DataError, match=r"\['a'\], number 1 has \['b'\]"):
        data.default_collate([{"a": 1}, {"b": 1}])
    with pytest.raises(DataError, match="type object"):
        data.default_collate([object()])
    with pytest.raises(DataError, match="dtype <U1"):
        data.default_collate([np.array(["x"])])
    with pytest.raises(DataError, match="not all others are numbers"):
        data.default_collate([1, "x"])
    with pytest.raises(DataError, match="no samples"):
        data.default_collate([])


def test_default_convert_leaves_the_structure():
    out = data.default_convert({"a": np.ones(2), "b": "text", "c": (1, np.array(["x"]))})
    assert isinstance(out["a"], cr.Tensor) and out["b"] == "text" and out["c"][0] == 1
    assert isinstance(out["c"][1], np.ndarray)


def test_pad_collate():
    collate = data.PadCollate(padding_value=-1)
    samples = [(np.arange(3), 0), (np.arange(1), 1), (np.arange(2), 2)]
    padded, lengths, labels = collate(samples)
    assert padded.tolist() == [[0, 1, 2], [0, -1, -1], [0, 1, -1]]
    assert lengths.tolist() == [3, 1, 2] and labels.tolist() == [0, 1, 2]
    assert padded.dtype == np.int64
    frames, lengths = data.PadCollate()([np.ones((2, 4), np.float32), np.ones((1, 4), np.float32)])
    assert frames.shape == (2, 2, 4) and float(cr.sum(frames)) == 12.0
    with pytest.raises(ShapeError, match=r"\(2, 4\).*\(2, 5\)"):
        collate([np.ones((2, 4)), np.ones((2, 5))])
    with pytest.raises(DataError):
        collate([])
