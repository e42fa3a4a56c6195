"""Native convolutions in three directions, against the definition in float64."""

from __future__ import annotations

import re
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest
from harness import run_kernels

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import conv
from chainrule.compiler.native.conv_weight_rows import RowSums
from chainrule.compiler.native.jit import assembly
from chainrule.compiler.native.kernel import FIRST, Buffer, strides_of
from chainrule.compiler.native.program import export_kernels
from chainrule.compiler.native.target import foreign, host
from chainrule.compiler.native.text import Module
from chainrule.errors import ArgumentError
from chainrule.graph import Spec
from chainrule.primitives import convolution

Array = np.ndarray[Any, Any]
How = dict[str, Any]


def available(name: str) -> bool:
    try:
        host(name)
    except ArgumentError:
        return False
    return True


TARGETS = [name for name in ("avx512", "avx2", "plain") if available(name)]
# Every instruction set in float32, the widest in the other dtypes too.
TYPED = [(t, "float32") for t in TARGETS] + [(TARGETS[0], "float64")]


def how(stride: Any, padding: Any, dilation: Any, groups: int = 1) -> How:
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def same(n: int, k: int, groups: int = 1, stride: int = 1) -> How:
    return how((stride,) * n, ((k // 2, k // 2),) * n, (1,) * n, groups)


# (N, C, *spatial), (O, C / groups, *kernel)
CASES = {
    "1d": ((2, 2, 5), (3, 2, 3), how((1,), ((0, 0),), (1,))),
    "1d-groups": ((1, 2, 6), (2, 1, 2), how((2,), ((1, 2),), (2,), groups=2)),
    "2d-lopsided": ((1, 2, 4, 3), (1, 2, 2, 3), how((1, 1), ((0, 0), (1, 1)), (1, 1))),
    "multiplier": ((1, 2, 5, 4), (4, 1, 2, 2), how((2, 1), ((1, 0), (0, 2)), (1, 2), groups=2)),
    "3d": ((1, 1, 3, 2, 3), (2, 1, 2, 1, 2), how((1, 2, 1), ((0, 0), (0, 1), (1, 0)), (2, 1, 1))),
    "3d-wide": ((2, 5, 4, 5, 6), (7, 5, 3, 2, 3), same(3, 3)),
    "resnet": ((2, 16, 8, 8), (16, 16, 3, 3), same(2, 3)),
    "resnet-down": ((2, 16, 9, 8), (32, 16, 3, 3), same(2, 3, stride=2)),
    "shortcut": ((2, 16, 8, 8), (32, 16, 1, 1), how((2, 2), ((0, 0),) * 2, (1, 1))),
    "pointwise": ((4, 35, 3, 2), (33, 35, 1, 1), how((1, 1), ((0, 0),) * 2, (1, 1))),
    "first": ((2, 3, 9, 33), (16, 3, 3, 3), same(2, 3)),
    "lenet": ((3, 1, 12, 28), (6, 1, 5, 5), same(2, 5)),
    "lenet2": ((3, 6, 14, 14), (16, 6, 5, 5), how((1, 1), ((0, 0),) * 2, (1, 1))),
    "depthwise": ((2, 20, 6, 7), (20, 1, 3, 3), same(2, 3, groups=20)),
    "depthwise-down": ((2, 19, 6, 17), (19, 1, 3, 5), how((2, 3), ((1, 1), (4, 0)), (1, 2), 19)),
    "grouped": ((2, 12, 5, 6), (18, 6, 3, 3), same(2, 3, groups=2)),
    "far": ((1, 3, 4, 40), (5, 3, 2, 3), how((3, 2), ((2, 5), (9, 7)), (2, 4))),
    "sparse": ((1, 2, 7, 9), (3, 2, 1, 2), how((3, 4), ((0, 0), (0, 1)), (1, 1))),
    "small": ((6, 9, 2, 2), (17, 9, 3, 3), same(2, 3)),
    # Planes of 4096 bytes lie in one set of a cache.
    "colliding": ((3, 9, 32, 32), (17, 9, 3, 3), same(2, 3, stride=2)),
    "colliding-depthwise": ((2, 20, 32, 32), (20, 1, 3, 3), same(2, 3, groups=20, stride=2)),
    # Few output channels, or input channels: rows run over lanes.
    "1d-few": ((3, 2, 70), (4, 2, 9), same(1, 9)),
    "bands": ((2, 20, 17, 31), (3, 20, 3, 5), how((1, 1), ((1, 1), (2, 2)), (1, 1))),
    "groups-few": ((2, 16, 9, 30), (16, 4, 3, 3), same(2, 3, groups=4)),
    "up": ((2, 3, 12, 40), (9, 3, 4, 4), how((2, 2), ((1, 1), (1, 1)), (1, 1))),
    "apart": ((1, 3, 14, 37), (5, 3, 3, 3), how((3, 1), ((2, 2), (2, 1)), (2, 3))),
    "3d-few": (
        (2, 2, 5, 4, 29), (3, 2, 3, 2, 3), how((2, 1, 1), ((1, 1), (0, 1), (1, 1)), (1, 1, 1))
    ),
}  # fmt: skip


def taps(x: Array, w_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """For each tap of the kernel the inputs under it, (N, groups, C / groups, *out), as views of
    the padded x, which comes first."""
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    split = padded.reshape(x.shape[0], groups, w_shape[1], *padded.shape[2:])
    out = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(padded.shape[2:], w_shape[2:], stride, dilation, strict=True)
    ]
    places = {}
    for tap in product(*map(range, w_shape[2:])):
        places[tap] = split[(
            ..., *(slice(t * d, t * d + (m - 1) * s + 1, s)
                   for t, d, s, m in zip(tap, dilation, stride, out, strict=True))
        )]  # fmt: skip
    return padded, out, places


def forward(x: Array, w: Array, **rest: Any) -> Array:
    groups = rest["groups"]
    _, out, places = taps(x, w.shape, **rest)
    y = np.zeros((x.shape[0], groups, w.shape[0] // groups, *out))
    split = w.reshape(groups, -1, *w.shape[1:])
    for tap, inside in places.items():
        y += np.einsum("ngc...,goc->ngo...", inside, split[(..., *tap)])
    return y.reshape(x.shape[0], w.shape[0], *out)


def backward(x: Array, w: Array, y: Array, **rest: Any) -> tuple[Array, Array]:
    """The adjoints: in x, and in w."""
    groups, dw = rest["groups"], np.zeros(w.shape)
    split = w.reshape(groups, -1, *w.shape[1:])
    dsplit = dw.reshape(split.shape)
    grouped = y.reshape(y.shape[0], groups, -1, *y.shape[2:])
    _, _, values = taps(x, w.shape, **rest)
    dx, _, places = taps(np.zeros(x.shape), w.shape, **rest)
    for tap, place in places.items():
        place += np.einsum("ngo...,goc->ngc...", grouped, split[(..., *tap)])
        dsplit[(..., *tap)] = np.einsum(
            "ngop,ngcp->goc",
            *(a.reshape(*a.shape[:3], prod(a.shape[3:])) for a in (grouped, values[tap])),
        )
    inside = (slice(lo, lo + n) for n, (lo, _) in zip(x.shape[2:], rest["padding"], strict=True))
    return dx[(slice(None), slice(None), *inside)], dw


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    _, c, *spatial = shape
    steps = [c]
    for size in reversed(spatial):
        steps.append(steps[-1] * size)
    *inner, image = steps
    return (image, 1, *reversed(inner))


def value(a: Array) -> Value:
    return Value(Spec(a.shape, a.dtype))


def check(op: Op, arrays: Any, expected: Array, target: str, last: bool) -> None:
    values = dict(zip(op.inputs, arrays, strict=True))
    images = [v for v, role in zip((*op.inputs, op.output), ROLES[op.name], strict=True) if role]
    strides = {v: channels_last(v.shape) for v in images} if last else {}
    out = run_kernels(conv.kernels(op), values, strides, host(target))[op.output]
    rtol, atol = (2e-6, 3e-5) if op.output.dtype == np.float32 else (1e-14, 5e-14)
    np.testing.assert_allclose(out, expected, rtol=rtol, atol=atol)


ROLES = {"conv": (1, 0, 1), "conv_input": (1, 0, 1), "conv_weight": (1, 1, 0)}
"""Which of an operation's values are images."""


@pytest.mark.parametrize("last", (False, True), ids=("planes", "channels_last"))
@pytest.mark.parametrize("target, dtype", TYPED)
@pytest.mark.parametrize("case", CASES)
def test_three_directions(case: str, target: str, dtype: str, last: bool) -> None:
    x_shape, w_shape, params = CASES[case]
    rng = np.random.default_rng(7)
    x, w = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape))
    wide = [a.astype("float64") for a in (x, w)]
    expected = forward(wide[0], wide[1], **params)
    y = rng.standard_normal(expected.shape).astype(dtype)
    dx, dw = backward(wide[0], wide[1], y.astype("float64"), **params)
    a, b, c = value(x), value(w), value(y)
    check(Op(convolution.conv, [a, b], params), (x, w), expected, target, last)
    spatial, kernel = {"spatial": x_shape[2:]}, {"kernel": w_shape[2:]}
    check(Op(convolution.conv_input, [c, b], {**params, **spatial}), (y, w), dx, target, last)
    check(Op(convolution.conv_weight, [a, c], {**params, **kernel}), (x, y), dw, target, last)


@pytest.mark.parametrize("target", TARGETS)
def test_a_weight_too_large_for_partial_sums(target: str) -> None:
    params, rng = same(2, 3), np.random.default_rng(0)
    x, y = (rng.integers(-3, 4, (2, c, 3, 2)).astype("float32") for c in (64, 512))
    w = np.zeros((512, 64, 3, 3), "float32")
    _, dw = backward(x, w, y, **params)
    op = Op(convolution.conv_weight, [value(x), value(y)], {**params, "kernel": (3, 3)})
    sums, total = conv.kernels(op)
    assert sums.writes[0].shape[0] == 1 and total.units >= 16
    check(op, (x, y), dw, target, False)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_bands_of_several_images(dtype: str) -> None:
    """A unit goes from the last rows of an image to the first ones of the next, with zeros above.
    Whole numbers are added up exactly."""
    params, rng = same(2, 3), np.random.default_rng(8)
    x, y = (rng.integers(-2, 3, (12, c, 40, 17)).astype("float64") for c in (3, 4))
    _, dw = backward(x, np.zeros((4, 3, 3, 3)), y, **params)
    a, c = (value(v.astype(dtype)) for v in (x, y))
    op = Op(convolution.conv_weight, [a, c], {**params, "kernel": (3, 3)})
    sums = conv.kernels(op)[0]
    assert isinstance(sums, RowSums)
    assert sums.bands > 1 and sums.blocks < 12 * sums.bands
    for last in (False, True):
        check(op, (x.astype(dtype), y.astype(dtype)), dw, TARGETS[0], last)


@pytest.mark.parametrize("target", TARGETS)
def test_weights_do_not_see_what_no_output_meets(target: str) -> None:
    """The last column lies beside the last vector's outputs, but only the last tap meets it."""
    params = how((1, 1), ((0, 0), (0, 0)), (1, 1))
    x, y = np.ones((1, 1, 4, 22), "float32"), np.ones((1, 2, 4, 20), "float32")
    x[..., -1] = np.inf
    expected = np.full((2, 1, 1, 3), 80.0)
    expected[..., -1] = np.inf
    op = Op(convolution.conv_weight, [value(x), value(y)], {**params, "kernel": (1, 3)})
    for last in (False, True):
        check(op, (x, y), expected, target, last)


def test_kernels_alike_have_equal_shapes() -> None:
    """Two batches have the same strides: shapes and dtypes must tell them apart."""
    params = CASES["resnet"][2]

    def kernels(n: int, dtype: str) -> Any:
        a, b = (Value(Spec(shape, np.dtype(dtype))) for shape in ((n, 16, 8, 8), (16, 16, 3, 3)))
        return conv.kernels(Op(convolution.conv, [a, b], params))

    first, again, other, wide = (
        kernels(*how)[1].likeness() for how in ((2, "float32"), (2, "float32"), (3, "float32"),
                                                (2, "float64"))
    )  # fmt: skip
    assert first[0] == again[0]
    assert first[0] != other[0]
    assert first[0] != wide[0]


@pytest.mark.parametrize("case", ("resnet", "depthwise", "lenet"))
def test_code_for_another_machine(case: str) -> None:
    """Arm's vectors multiply and add, though nothing here can run them."""
    x_shape, w_shape, params = CASES[case]
    x, w = (Value(Spec(shape, np.dtype("float32"))) for shape in (x_shape, w_shape))
    y = Op(convolution.conv, [x, w], params)
    dw = Op(convolution.conv_weight, [x, y.output], {**params, "kernel": w_shape[2:]})
    for op in (y, dw):
        module = Module(foreign("neon"))
        for number, kernel in enumerate(conv.kernels(op)):
            values = dict.fromkeys((*kernel.reads, *kernel.writes))
            buffers = {
                v: Buffer(FIRST + slot, 0, v.shape, strides_of(v.shape), v.dtype)
                for slot, v in enumerate(values)
            }
            kernel.emit(module, f"kernel{number}", buffers)
        export_kernels(module, ["kernel0", "kernel1"])
        code = assembly(module.text(), foreign("neon"))
        assert re.search(r"fmla\s+v\d+\.4s", code)
