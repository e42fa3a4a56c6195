"""Elementwise primitives as machine code, on every instruction set that this processor has."""

from __future__ import annotations

import functools
import itertools
import re

import numpy as np
import pytest
import scipy.special
from elementwise import Compiled, Job, targets

from chainrule import dtypes
from chainrule.compiler.native import scalar
from chainrule.compiler.native.jit import assembly
from chainrule.compiler.native.target import foreign, host
from chainrule.compiler.native.text import Function, Module
from chainrule.errors import DTypeError
from chainrule.graph import Primitive
from chainrule.primitives import elementwise as p

REAL = [d.name for d in (dtypes.bool_, *dtypes.SIGNED, *dtypes.UNSIGNED, *dtypes.FLOATS)]
COMPLEX_ONLY = {"real", "imag", "conj"}
PRIMITIVES = {
    x.name: x for x in vars(p).values() if isinstance(x, Primitive) and x.name not in COMPLEX_ONLY
}
EXACT = {
    "add", "sub", "mul", "div", "neg", "abs", "sign", "floor_divide", "remainder", "maximum",
    "minimum", "sqrt", "relu", "floor", "ceil", "trunc", "round", "copysign", "nextafter", "eq",
    "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "logical_not",
    "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert", "bitwise_left_shift",
    "bitwise_right_shift", "isnan", "isinf", "isfinite", "signbit", "where",
}  # fmt: skip


def logistic(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


FUNCTIONS = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "log2": np.log2,
    "log10": np.log10, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin,
    "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "sigmoid": logistic,
    "erf": scipy.special.erf, "erfinv": scipy.special.erfinv,
}  # fmt: skip
NAMES = [*sorted(EXACT), *FUNCTIONS, "logaddexp", "atan2", "hypot", "pow"]


def signature(name: str, dtype: str) -> tuple[str, ...]:
    """The dtypes of the inputs."""
    if name == "where":
        return ("bool", dtype, dtype)
    return (dtype,) * len(PRIMITIVES[name].inputs)


def defined(name: str, dtype: str) -> bool:
    """Whether the primitive takes the dtype and is lowered for it."""
    if name == "pow" and np.dtype(dtype).kind == "i":  # the power may be negative: an error
        return False
    try:
        Job(PRIMITIVES[name], signature(name, dtype), 1).op()
    except DTypeError:
        return False
    return True


def test_every_elementwise_primitive_is_written() -> None:
    assert {*NAMES, "cast"} == PRIMITIVES.keys()


def lanes(target: str, dtype: str) -> tuple[int, int]:
    return 1, host(target).lanes(dtype)


@functools.cache
def compiled(target: str) -> Compiled:
    """Everything this file tries, for elements one by one and by vectors."""
    jobs = [
        Job(PRIMITIVES[name], signature(name, dtype), n)
        for name, dtype in itertools.product(NAMES, REAL)
        if defined(name, dtype)
        for n in lanes(target, dtype)
    ]
    jobs += [
        Job(p.cast, (a,), n, (("dtype", np.dtype(b)),))
        for a, b in itertools.product(REAL, REAL)
        for n in lanes(target, a)
    ]
    return Compiled(jobs, host(target))


def numbers(dtype: str) -> np.ndarray:
    """The edges of a dtype, and ordinary numbers."""
    kind, rng = np.dtype(dtype).kind, np.random.default_rng(7)
    if kind == "b":
        return np.array([False, True])
    if kind in "iu":
        info = np.iinfo(dtype)
        edges = [info.min, info.min + 1, 0, 1, 2, 3, 5, 7, 8, 31, 63, 64, info.max - 1, info.max]
        if kind == "i":
            edges += [-1, -2, -3, -7]
        return np.concatenate([np.array(edges, dtype), rng.integers(info.min, info.max, 12, dtype)])
    info = np.finfo(dtype)
    edges = [0, 0.5, 1, 1.5, 2, 2.5, 3, 7, 10, 255.75, 2.0**23 + 1, 2.0**31, 2.0**53, 2.0**63, 3e9]
    edges += [1e-3, float(info.tiny), float(info.max), float(info.smallest_subnormal), np.inf]
    edges = [*edges, *np.exp(rng.uniform(-20, 20, 6)), *rng.standard_normal(6)]
    return np.array([*edges, *(-x for x in edges), np.nan], dtype)


def draws(name: str, dtype: str) -> list[np.ndarray]:
    """Every pair (triple) of numbers."""
    inputs = [numbers(d) for d in signature(name, dtype)]
    return [x.reshape(-1) for x in np.meshgrid(*inputs)]


def same(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where arrays are the same to the bit, all NaN being one."""
    if x.dtype.kind != "f":
        return x == y
    return (x == y) & (np.signbit(x) == np.signbit(y)) | (np.isnan(x) & np.isnan(y))


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("name", NAMES)
def test_as_the_primitive_evaluates(name: str, target: str) -> None:
    tried = 0
    for dtype in REAL:
        if not defined(name, dtype):
            continue
        arrays = draws(name, dtype)
        with np.errstate(all="ignore"):
            want = PRIMITIVES[name].evaluate(*arrays)
        one, many = (
            compiled(target)(Job(PRIMITIVES[name], signature(name, dtype), n), *arrays)
            for n in lanes(target, dtype)
        )
        assert one.dtype == want.dtype
        assert same(one, many).all(), dtype  # an element's value must not depend on its lane
        right = same(one, want)
        if name not in EXACT and one.dtype.kind == "f":
            with np.errstate(all="ignore"):
                error = np.abs(one.astype(np.longdouble) - want)
                unit = np.finfo(dtype).eps * np.maximum(np.abs(want), name == "logaddexp")
            close = error <= 6 * unit + float(np.finfo(dtype).smallest_subnormal)
            right |= close & (np.signbit(one) == np.signbit(want))
        bad = np.flatnonzero(~right)[:5]
        assert right.all(), (dtype, [[x[bad] for x in arrays], one[bad], want[bad]])
        tried += 1
    assert tried


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("source", REAL)
def test_casts(source: str, target: str) -> None:
    x = numbers(source)
    for result in REAL:
        one, many = (
            compiled(target)(Job(p.cast, (source,), n, (("dtype", np.dtype(result)),)), x)
            for n in lanes(target, source)
        )
        with np.errstate(all="ignore"):
            want = x.astype(result)
            inside = np.isfinite(x) if np.dtype(source).kind == "f" else np.full(x.shape, True)
            if np.dtype(source).kind == "f" and result in ("uint32", "uint64"):
                # NumPy itself gives other numbers outside in one element than in several.
                inside &= (x > -1) & (x < 2.0 ** (8 * np.dtype(result).itemsize))
        assert same(one, many).all()
        assert same(one, want)[inside].all(), (result, x[inside], one[inside], want[inside])


def test_casts_of_what_does_not_fit() -> None:
    x = np.array([300.0, -1.0, 1e10, -1e10, 1e30, np.nan, np.inf, -np.inf])
    least = -(2**31)
    expected = {
        "int8": [44, -1, 0, 0, 0, 0, 0, 0],
        "uint8": [44, 255, 0, 0, 0, 0, 0, 0],
        "int32": [300, -1, *[least] * 6],
        "uint32": [300, 2**32 - 1, 10**10 % 2**32, -(10**10) % 2**32, 0, 0, 0, 0],
        "int64": [300, -1, 10**10, -(10**10), *[-(2**63)] * 4],
        "uint64": [300, 2**64 - 1, 10**10, 2**64 - 10**10, 0, 2**63, 0, 2**63],
    }
    for target in targets():
        for dtype, want in expected.items():
            job = Job(p.cast, ("float64",), 1, (("dtype", np.dtype(dtype)),))
            assert compiled(target)(job, x).tolist() == want, dtype


# --- how close the functions are --------------------------------------------------------------


def ulps(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The error of x in units of the last place of the exact result (infinite where wrong)."""
    info = np.finfo(x.dtype)
    with np.errstate(all="ignore"):
        rounded = reference.astype(x.dtype)
        exponent = np.maximum(np.frexp(np.abs(reference))[1] - 1, info.minexp) - info.nmant
        error = np.abs(x.astype(reference.dtype) - reference)
        error = error / np.ldexp(reference.dtype.type(1), exponent)
    error = np.where((x == rounded) | (np.isnan(x) & np.isnan(rounded)), 0, error)
    return np.where(np.isnan(error), np.inf, error)


def worst32(name: str, target: str, stride: int) -> tuple[float, float]:
    """The largest error in float32 over its bit patterns, and where."""
    found = (0.0, 0.0)
    job = Job(PRIMITIVES[name], ("float32",), host(target).lanes("float32"))
    for start in range(0, 2**32, 2**28):
        x = np.arange(start, start + 2**28, stride, dtype=np.uint64).astype(np.uint32)
        x = x.view(np.float32)
        with np.errstate(all="ignore"):
            error = ulps(compiled(target)(job, x), FUNCTIONS[name](x.astype(np.float64)))
        worst = int(error.argmax())
        found = max(found, (float(error[worst]), float(x[worst])))
    return found


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_over_its_whole_range(name: str, target: str) -> None:
    error, at = worst32(name, target, 40009)
    assert error <= 2.5, at


@pytest.mark.slow
@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_densely(name: str, target: str) -> None:
    error, at = worst32(name, target, 997 if name == "erfinv" else 97)  # SciPy takes its time
    assert error <= 2.5, at


def wide_numbers(n: int) -> np.ndarray:
    """float64 of all sizes, and near where functions are hard."""
    rng = np.random.default_rng(11)
    return np.concatenate([
        rng.integers(0, 2**64, n, np.uint64).view(np.float64),
        rng.uniform(-1, 1, n), rng.standard_normal(n) * 10, rng.uniform(-750, 750, n),
        np.exp(rng.uniform(-50, 0, n)), 1 - np.exp(rng.uniform(-36, 0, n)),
        1 + np.exp(rng.uniform(-36, 0, n)),
        np.pi / 2 * rng.integers(-(2**24), 2**24, n), np.pi / 2 * rng.integers(-(2**50), 2**50, n),
        # The float64 nearest to a multiple of pi/2.
        np.ldexp([6381956970095103.0], 797),
    ])  # fmt: skip


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64(name: str, target: str) -> None:
    x = wide_numbers(3000)
    job = Job(PRIMITIVES[name], ("float64",), host(target).lanes("float64"))
    z = compiled(target)(job, x)
    if name in ("erf", "erfinv"):  # SciPy has no more digits than that
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(z, FUNCTIONS[name](x), rtol=3e-15, atol=1e-323)
        return
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("needs a long double with more digits than float64")
    with np.errstate(all="ignore"):
        error = ulps(z, FUNCTIONS[name](x.astype(np.longdouble)))
    assert error.max() <= 3, x[error.argmax()]


@pytest.mark.parametrize("target", targets())
def test_two_arguments_in_float64(target: str) -> None:
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("needs a long double with more digits than float64")
    rng = np.random.default_rng(3)
    x = np.exp(rng.uniform(-300, 300, 20000))
    y = rng.standard_normal(20000) * np.exp(rng.uniform(-3, 3, 20000))
    z = rng.standard_normal(20000)
    for name, a, b, function in (
        ("pow", x, y, np.power), ("pow", np.abs(z), 20 * y, np.power), ("hypot", x, y, np.hypot),
        ("hypot", z, y, np.hypot), ("atan2", x, y, np.arctan2), ("atan2", z, y, np.arctan2),
    ):  # fmt: skip
        job = Job(PRIMITIVES[name], ("float64",) * 2, host(target).lanes("float64"))
        with np.errstate(all="ignore"):
            error = ulps(
                compiled(target)(job, a, b),
                function(a.astype(np.longdouble), b.astype(np.longdouble)),
            )
        assert error.max() <= (1 if name == "pow" else 2), (name, a[error.argmax()])


# --- what is written ----------------------------------------------------------------------------


def test_a_constant_exponent_is_multiplied_out() -> None:
    target = host()
    for value, instructions in ((2.0, ["fmul"]), (-1.0, ["fdiv"]), (1.0, [])):
        f = Function(Module(target), "f", "float %x")
        exponent = f.number("float", value)
        dtype = np.dtype("float32")
        scalar.apply(f, p.pow, [f.arg("x"), exponent], [dtype, dtype])
        assert [line.split()[2] for line in f.lines[1:]] == instructions


LIBRARY = {
    "floor", "ceil", "trunc", "rint", "nearbyint", "roundeven", "round", "fma", "fmod", "exp",
    "exp2", "log", "log2", "log10", "pow", "sin", "cos", "tan", "sqrt", "fmin", "fmax", "memcpy",
    "memset",
}  # fmt: skip


@pytest.mark.parametrize("name", ["neon", "plain", "avx2"])
def test_no_function_calls_a_library(name: str) -> None:
    target = foreign(name)
    module = Module(target)
    from elementwise import write

    jobs = [
        Job(PRIMITIVES[n], signature(n, d), k)
        for n, d in itertools.product(NAMES, ("float32", "float64"))
        if defined(n, d)
        for k in (1, target.lanes(d))
    ]
    for i, job in enumerate(jobs):
        write(module, f"f{i}", job, job.op())
    text = assembly(module.text(), target)
    words = set(
        re.findall(r"[A-Za-z_]\w*", "\n".join(x for x in text.splitlines() if "\t." not in x))
    )
    assert {"f0", "f1"} <= words
    assert not words & {name + end for name in LIBRARY for end in ("", "f")}


def test_what_cannot_be_written_is_not_claimed() -> None:
    cases = {
        ("add", "complex64"): False, ("exp", "complex128"): False, ("pow", "int64"): False,
        ("pow", "uint8"): True, ("add", "int64"): True, ("where", "complex64"): False,
    }  # fmt: skip
    for (name, dtype), claimed in cases.items():
        op = Job(PRIMITIVES[name], signature(name, dtype), 1).op()
        assert scalar.supports(op) is claimed, name
