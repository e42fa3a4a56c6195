"""Promotion, and what can be asked of dtypes and of the namespace."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import ArgumentError, ChainruleError, DTypeError, UnknownNameError

SIGNED, UNSIGNED = ("int8", "int16", "int32", "int64"), ("uint8", "uint16", "uint32", "uint64")
FLOATS, COMPLEX = ("float32", "float64"), ("complex64", "complex128")
NAMES = ("bool", *SIGNED, *UNSIGNED, *FLOATS, *COMPLEX)

# The standard's table of mixed integers: a signed one that has room for both.
MIXED = {
    ("int8", "uint8"): "int16", ("int8", "uint16"): "int32", ("int8", "uint32"): "int64",
    ("int16", "uint8"): "int16", ("int16", "uint16"): "int32", ("int16", "uint32"): "int64",
    ("int32", "uint8"): "int32", ("int32", "uint16"): "int32", ("int32", "uint32"): "int64",
    ("int64", "uint8"): "int64", ("int64", "uint16"): "int64", ("int64", "uint32"): "int64",
}  # fmt: skip


def expected(a, b):
    """The promoted dtype, or None where there is none."""
    kinds = {name: i for i, group in enumerate((("bool",), SIGNED + UNSIGNED, FLOATS, COMPLEX))
             for name in group}  # fmt: skip
    if a == b:
        return a
    if kinds[a] > kinds[b]:
        a, b = b, a
    if kinds[a] < kinds[b]:
        return "complex128" if (a, b) == ("float64", "complex64") else b
    for group in (SIGNED, UNSIGNED, FLOATS, COMPLEX):
        if a in group and b in group:
            return group[max(group.index(a), group.index(b))]
    return MIXED.get((a, b)) or MIXED.get((b, a))


@pytest.mark.parametrize("a", NAMES)
def test_the_whole_table_of_promotion(a):
    for b in NAMES:
        name = expected(a, b)
        x, y = cr.ones((2,), dtype=a), cr.ones((2,), dtype=b)
        if name is None:
            for function in (cr.result_type, cr.equal, lambda *xs: cr.concat(xs)):
                with pytest.raises(DTypeError, match="no common integer dtype"):
                    function(x, y)
            continue
        for pair in ((x, y), (x.dtype, y.dtype), (x, y.dtype)):
            assert cr.result_type(*pair) == np.dtype(name)
        assert cr.where(cr.asarray(True), x, y).dtype == np.dtype(name)
        assert cr.stack([x, y]).dtype == np.dtype(name)
        if name != "bool":
            assert (x + y).dtype == np.dtype(name)
            assert (y * x).dtype == np.dtype(name)
            assert cr.matmul(x, y).dtype == np.dtype(name)


@pytest.mark.parametrize("name", NAMES)
def test_python_numbers_are_weak(name):
    x = cr.ones((2,), dtype=name)
    kind = x.dtype.kind
    wide = name in ("float64", "complex128")
    cases = (  # pairs, because True == 1 == 1.0 are one key of a dictionary
        (True, name),
        (1, "int64" if kind == "b" else name),
        (1.0, "float32" if kind in "bui" else name),
        (1j, "complex128" if wide else "complex64"),
    )
    for number, result in cases:
        assert cr.result_type(x, number) == np.dtype(result)
        assert cr.result_type(number, x.dtype) == np.dtype(result)
        assert cr.where(cr.asarray([True, False]), x, number).dtype == np.dtype(result)
    assert cr.add(x, np.float64(1)).dtype == cr.add(x, 1.0).dtype  # a Python float by descent
    assert cr.add(x, np.float32(1)).dtype == cr.result_type(x, cr.float32)  # an array's number


def test_result_type_does_not_depend_on_the_order():
    cases = [
        (cr.uint64, cr.float32, cr.float64),
        (cr.uint8, cr.int8, cr.uint16),
        (cr.int64, cr.float32, 1j, True),
        (cr.bool, 2, cr.uint8),
        (cr.float64, cr.complex64, cr.int8),
    ]
    for case in cases:
        assert len({cr.result_type(*order) for order in itertools.permutations(case)}) == 1
    assert cr.result_type(cr.float64, cr.complex64) == cr.complex128
    assert cr.result_type(1, 2.0) == cr.float32
    assert cr.result_type(True) == cr.bool
    with pytest.raises(ArgumentError, match="at least one"):
        cr.result_type()


def test_can_cast():
    for a, b in itertools.product(NAMES, NAMES):
        assert cr.can_cast(np.dtype(a), np.dtype(b)) == (expected(a, b) == b), (a, b)
    assert cr.can_cast(cr.ones((2,), dtype=cr.int8), cr.int16)
    assert not cr.can_cast(cr.float64, cr.float32)


def test_isdtype():
    kinds = {
        "bool": ("bool",), "signed integer": SIGNED, "unsigned integer": UNSIGNED,
        "integral": SIGNED + UNSIGNED, "real floating": FLOATS, "complex floating": COMPLEX,
        "numeric": NAMES[1:],
    }  # fmt: skip
    for name, (kind, members) in itertools.product(NAMES, kinds.items()):
        found = cr.isdtype(np.dtype(name), kind)
        assert isinstance(found, bool)
        assert found == (name in members)
        assert cr.__array_namespace_info__().dtypes(kind=kind) == {m: np.dtype(m) for m in members}
    assert cr.isdtype(cr.int8, ("bool", cr.int8))
    assert not cr.isdtype(cr.int8, ("bool", cr.int16))
    assert cr.isdtype(cr.float32, cr.float32)
    with pytest.raises(UnknownNameError, match="real floating"):
        cr.isdtype(cr.float32, "real float")


@pytest.mark.parametrize("name", FLOATS + COMPLEX)
def test_finfo(name):
    reference = np.finfo(name)
    for asked in (np.dtype(name), name, cr.ones((2,), dtype=name), cr.ones((), dtype=name)):
        info = cr.finfo(asked)
        assert info.bits == reference.bits
        for part in ("eps", "max", "min", "smallest_normal"):
            assert type(getattr(info, part)) is float
            assert getattr(info, part) == float(getattr(reference, part))
        assert info.dtype == (cr.float32 if name in ("float32", "complex64") else cr.float64)
    with pytest.raises(DTypeError, match=r"cr\.finfo"):
        cr.iinfo(np.dtype(name))


@pytest.mark.parametrize("name", SIGNED + UNSIGNED)
def test_iinfo(name):
    reference = np.iinfo(name)
    for asked in (np.dtype(name), cr.ones((), dtype=name)):
        info = cr.iinfo(asked)
        assert (info.bits, info.max, info.min) == (reference.bits, reference.max, reference.min)
        assert type(info.max) is int
        assert info.dtype == np.dtype(name)
    with pytest.raises(DTypeError, match=r"cr\.iinfo"):
        cr.finfo(np.dtype(name))


def test_namespace_info():
    info = cr.__array_namespace_info__()
    assert cr.__array_api_version__ == "2024.12"
    assert info.capabilities() == {
        "boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64,
    }  # fmt: skip
    assert info.devices() == ["cpu"]
    assert info.default_device() in info.devices()
    assert info.default_dtypes(device="cpu") == {
        "real floating": cr.float32, "complex floating": cr.complex64, "integral": cr.int64,
        "indexing": cr.int64,
    }  # fmt: skip
    assert info.dtypes() == {name: np.dtype(name) for name in NAMES}
    assert info.dtypes(kind=("bool", "real floating")) == {
        "bool": cr.bool, "float32": cr.float32, "float64": cr.float64,
    }  # fmt: skip
    with pytest.raises(ChainruleError, match="cuda"):
        info.dtypes(device="cuda")


def test_max_dimensions_is_true():
    most = cr.__array_namespace_info__().capabilities()["max dimensions"]
    assert cr.zeros((1,) * most).ndim == most


def test_dtypes_of_elsewhere():
    with pytest.raises(AttributeError, match="dtype float16 does not exist here"):
        _ = cr.float16
    assert not hasattr(cr, "bfloat16")
    for name in ("float16", "bfloat16", np.float16):
        with pytest.raises(DTypeError, match="does not exist here"):
            cr.astype(cr.ones((2,)), name)
    with pytest.raises(UnknownNameError, match="did you mean"):
        cr.zeros((2,), dtype="flaot32")
    for nonsense in (3.5, None, [1], "x y"):
        with pytest.raises(ChainruleError):
            cr.astype(cr.ones((2,)), nonsense)


def test_dtypes_have_one_object_each():
    assert cr.zeros((1,), dtype=np.dtype("longlong")).dtype == cr.int64
    assert cr.asarray(np.zeros(2, ">f4")).dtype == cr.float32
    assert cr.asarray(np.asarray([1.5, -2.0], ">f8")).tolist() == [1.5, -2.0]
    assert cr.astype(cr.ones((1,)), float).dtype == cr.float32
    assert cr.astype(cr.ones((1,)), np.float64).dtype == cr.float64


@pytest.mark.parametrize("source", NAMES)
def test_astype(source, rng):
    x = (rng.integers(0, 2, (2, 3)) * 3).astype(source)
    for target in NAMES:
        a = cr.asarray(x)
        if source in COMPLEX and target in SIGNED + UNSIGNED + FLOATS:
            with pytest.raises(DTypeError, match=r"cr\.real"):
                cr.astype(a, target)
            continue
        z = cr.astype(a, target)
        assert z.dtype == np.dtype(target)
        np.testing.assert_array_equal(z.numpy(), x.astype(target))
        assert (cr.astype(a, target, copy=False) is a) == (source == target)
    copied = cr.astype(a, source)
    assert not np.shares_memory(copied.numpy(), a.numpy())
    with pytest.raises(ChainruleError, match="cuda"):
        cr.astype(a, source, device="cuda:0")
