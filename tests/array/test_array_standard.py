"""The namespace of the array API standard 2024.12: every name, and every signature."""

from __future__ import annotations

import inspect
import math
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.array_api import make_strategies_namespace

import chainrule as cr


def words(text):
    return text.split()


CONSTANTS = {"e": math.e, "inf": math.inf, "nan": math.nan, "newaxis": None, "pi": math.pi}
UNARY = words("""
abs acos acosh asin asinh atan atanh bitwise_invert ceil conj cos cosh exp expm1 floor imag isfinite
isinf isnan log log10 log1p log2 logical_not matrix_transpose negative nonzero positive real
reciprocal round sign signbit sin sinh sqrt square tan tanh trunc unique_all unique_counts
unique_inverse unique_values
""")
BINARY = words("""
add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign divide
equal floor_divide greater greater_equal hypot less less_equal logaddexp logical_and logical_or
logical_xor matmul maximum minimum multiply nextafter not_equal pow remainder subtract
""")
SIGNATURES = {
    **dict.fromkeys(UNARY, "x, /"),
    **dict.fromkeys(BINARY, "x1, x2, /"),
    **dict.fromkeys(
        ("all", "any", "count_nonzero", "max", "mean", "min"), "x, /, *, axis=None, keepdims=False"
    ),
    **dict.fromkeys(("argmax", "argmin"), "x, /, *, axis=None, keepdims=False"),
    **dict.fromkeys(("std", "var"), "x, /, *, axis=None, correction=0.0, keepdims=False"),
    **dict.fromkeys(("prod", "sum"), "x, /, *, axis=None, dtype=None, keepdims=False"),
    **dict.fromkeys(
        ("cumulative_prod", "cumulative_sum"),
        "x, /, *, axis=None, dtype=None, include_initial=False",
    ),
    **dict.fromkeys(("argsort", "sort"), "x, /, *, axis=-1, descending=False, stable=True"),
    **dict.fromkeys(("empty", "ones", "zeros"), "shape, *, dtype=None, device=None"),
    **dict.fromkeys(("empty_like", "ones_like", "zeros_like"), "x, /, *, dtype=None, device=None"),
    **dict.fromkeys(("tril", "triu"), "x, /, *, k=0"),
    **dict.fromkeys(("finfo", "iinfo"), "type, /"),
    "arange": "start, /, stop=None, step=1, *, dtype=None, device=None",
    "asarray": "obj, /, *, dtype=None, device=None, copy=None",
    "astype": "x, dtype, /, *, copy=True, device=None",
    "broadcast_arrays": "*arrays",
    "broadcast_to": "x, /, shape",
    "can_cast": "from_, to, /",
    "clip": "x, /, min=None, max=None",
    "concat": "arrays, /, *, axis=0",
    "diff": "x, /, *, axis=-1, n=1, prepend=None, append=None",
    "expand_dims": "x, /, *, axis=0",
    "eye": "n_rows, n_cols=None, /, *, k=0, dtype=None, device=None",
    "flip": "x, /, *, axis=None",
    "from_dlpack": "x, /, *, device=None, copy=None",
    "full": "shape, fill_value, *, dtype=None, device=None",
    "full_like": "x, /, fill_value, *, dtype=None, device=None",
    "isdtype": "dtype, kind",
    "linspace": "start, stop, /, num, *, dtype=None, device=None, endpoint=True",
    "meshgrid": "*arrays, indexing='xy'",
    "moveaxis": "x, source, destination, /",
    "permute_dims": "x, /, axes",
    "repeat": "x, repeats, /, *, axis=None",
    "reshape": "x, /, shape, *, copy=None",
    "result_type": "*arrays_and_dtypes",
    "roll": "x, /, shift, *, axis=None",
    "searchsorted": "x1, x2, /, *, side='left', sorter=None",
    "squeeze": "x, /, axis",
    "stack": "arrays, /, *, axis=0",
    "take": "x, indices, /, *, axis=None",
    "take_along_axis": "x, indices, /, *, axis=-1",
    "tensordot": "x1, x2, /, *, axes=2",
    "tile": "x, repetitions, /",
    "unstack": "x, /, *, axis=0",
    "vecdot": "x1, x2, /, *, axis=-1",
    "where": "condition, x1, x2, /",
    "__array_namespace_info__": "",
}
METHODS = {
    "__array_namespace__": "*, api_version=None",
    "__dlpack__": "*, stream=None, max_version=None, dl_device=None, copy=None",
    "__dlpack_device__": "",
    "__getitem__": "key, /",
    "__setitem__": "key, value, /",
    "to_device": "device, /, *, stream=None",
    **dict.fromkeys(
        words(
            "__abs__ __bool__ __complex__ __float__ __index__ __int__ __invert__ __neg__ __pos__"
        ),
        "",
    ),
}
OPERATORS = words("add and floordiv lshift matmul mod mul or pow rshift sub truediv xor")
DTYPES = words("""bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64
complex128""")


def parameters(text):
    scope: dict = {}
    exec(f"def f({text}): ...", scope)  # the text is this file's own
    return list(inspect.signature(scope["f"]).parameters.values())


def fits(function, text):
    """Whether a call that the signature in the text allows is allowed, with the same defaults."""
    mine = inspect.signature(function).parameters
    places = list(mine.values())
    for i, wanted in enumerate(parameters(text)):
        positional = wanted.kind in (wanted.POSITIONAL_ONLY, wanted.POSITIONAL_OR_KEYWORD)
        found = (
            places[i] if positional or wanted.kind is wanted.VAR_POSITIONAL else mine[wanted.name]
        )
        if wanted.kind is wanted.POSITIONAL_ONLY:
            assert found.kind in (found.POSITIONAL_ONLY, found.POSITIONAL_OR_KEYWORD)
        elif wanted.kind is wanted.KEYWORD_ONLY:
            assert found.kind in (found.KEYWORD_ONLY, found.POSITIONAL_OR_KEYWORD)
        else:
            assert found.kind is wanted.kind
            assert found.name == wanted.name
        assert found.default == wanted.default, (function, wanted)


@pytest.mark.parametrize("name", SIGNATURES)
def test_functions(name):
    fits(getattr(cr, name), SIGNATURES[name])
    assert name in cr.__all__
    assert getattr(cr, name).__doc__


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    fits(getattr(cr.ones((2, 2)), name), METHODS[name])


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name):
    x = cr.ones((2, 2), dtype=cr.int64)
    for form in ("__{}__", "__r{}__", "__i{}__"):
        fits(getattr(x, form.format(name)), "other, /")
        assert getattr(x, form.format(name))("text") is NotImplemented
    for comparison in ("lt", "le", "gt", "ge", "eq", "ne"):
        fits(getattr(x, f"__{comparison}__"), "other, /")


def test_constants_attributes_and_dtypes():
    for name, value in CONSTANTS.items():
        found = getattr(cr, name)
        assert found == value or math.isnan(found)
    x = cr.ones((2, 3))
    assert (x.shape, x.size, x.ndim, x.device) == ((2, 3), 6, 2, "cpu")
    assert type(x.shape) is tuple
    assert type(x.size) is int
    assert x.T.shape == x.mT.shape == (3, 2)
    for name in DTYPES:
        assert getattr(cr, name) == np.dtype(name)
        assert cr.ones((1,), dtype=getattr(cr, name)).dtype == getattr(cr, name)


def test_all_names_are_there():
    assert len(set(cr.__all__)) == len(cr.__all__)
    for name in cr.__all__:
        assert hasattr(cr, name), name
    assert set(dir(cr)) >= set(cr.__all__)


xps = make_strategies_namespace(cr, api_version="2024.12")
ARRAYS = xps.arrays(xps.scalar_dtypes(), xps.array_shapes(min_dims=0, min_side=0, max_side=3))


@given(ARRAYS)
@settings(max_examples=60, deadline=None)
def test_arrays_of_every_kind_survive_the_round_trips(x):
    for again in (
        cr.asarray(x.numpy()), cr.from_dlpack(x.numpy()),
        cr.asarray(x, copy=True), cr.reshape(x, x.shape), cr.astype(x, x.dtype),
        cr.stack([x])[0], cr.concat([cr.expand_dims(x, axis=0)])[0],
    ):  # fmt: skip
        assert (again.dtype, again.shape, again.device) == (x.dtype, x.shape, "cpu")
        np.testing.assert_array_equal(again.numpy(), x.numpy())
    if x.size:
        again = cr.asarray(x.tolist(), dtype=x.dtype)
        np.testing.assert_array_equal(again.numpy(), x.numpy())


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_the_standards_own_indices(data):
    x = data.draw(xps.arrays(xps.scalar_dtypes(), xps.array_shapes(min_dims=0, max_side=3)))
    key = data.draw(xps.indices(x.shape, allow_newaxis=True))
    np.testing.assert_array_equal(x[key].numpy(), x.numpy()[key])
    place = data.draw(xps.indices(x.shape, max_dims=0))
    value = data.draw(xps.from_dtype(x.dtype))
    before = x.numpy().copy()
    x[place] = value
    before[place] = value
    np.testing.assert_array_equal(x.numpy(), before)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_broadcasting_of_any_shapes(data):
    shapes = data.draw(xps.mutually_broadcastable_shapes(2, min_side=0))
    arrays = [data.draw(xps.arrays(cr.int32, shape)) for shape in shapes.input_shapes]
    z = operator.add(*arrays)
    assert z.shape == shapes.result_shape
    np.testing.assert_array_equal(z.numpy(), np.add(*(a.numpy() for a in arrays)))
