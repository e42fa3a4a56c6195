"""Every operation of the table: forward, first and second derivatives, shapes, strides, reads.

References are NumPy and SciPy in float64, JAX, and central differences.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from operations import OPERATIONS, Case, Operation

import chainrule as cr
from chainrule import array, primitives
from chainrule.autograd import engine, gradcheck, gradgradcheck
from chainrule.graph import Node, Primitive, Spec, observe

FLOATS = ("float32", "float64")
DIFFERENTIATED = 64  # elements, at most, of the inputs and outputs of a case that is differentiated


def is_float(x: Any) -> bool:
    return x.dtype.kind == "f"


def prepared(case: Case, dtype: str) -> list[np.ndarray]:
    """The arrays of a case in a precision, which nobody may write to."""
    narrow = {"f": dtype, "c": {"float32": "complex64", "float64": "complex128"}[dtype]}
    arrays = [np.array(a, dtype=narrow.get(a.dtype.kind, a.dtype)) for a in case.args]
    for a in arrays:
        a.flags.writeable = False
    return arrays


def widened(arrays: list[np.ndarray]) -> list[np.ndarray]:
    wide = {"f": "float64", "c": "complex128"}
    return [a.astype(wide.get(a.dtype.kind, a.dtype)) for a in arrays]


def strided(x: np.ndarray) -> np.ndarray:
    """The same numbers with gaps between them, backwards in memory, the first axis innermost."""
    if not x.ndim:
        return x
    room = np.zeros([2 * n for n in x.shape], x.dtype, order="F")
    view = room[(slice(None, None, -2),) * x.ndim]
    view[...] = x
    return view


def repeated(x: np.ndarray) -> np.ndarray:
    """The first number everywhere, stored once."""
    return np.broadcast_to(x.reshape(-1)[:1].reshape(()), x.shape) if x.size and is_float(x) else x


def listed(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple | list) else [result]


def assert_close(got: Any, expected: Any, rtol: float, at_least: float = 0.0) -> None:
    """Equal to `rtol` of the expected element, of the largest of them, or of `at_least`."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    if expected.dtype.kind in "bui":
        np.testing.assert_array_equal(got, expected)
        return
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(finite.max() if finite.size else 0.0, at_least)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * scale)


def check_forward(op: Operation, case: Case, arrays: list[np.ndarray], dtype: str) -> None:
    with np.errstate(all="ignore"):
        expected = listed(op.numpy(*widened(arrays), **case.params))
        native = listed(op.numpy(*arrays, **case.params))
    floats = any(a.dtype.kind in "fc" for a in arrays)
    results = listed(op.call(*map(cr.asarray, arrays), **case.params))
    assert len(results) == len(expected)
    for z, value, like in zip(results, expected, native, strict=True):
        like_dtype = np.asarray(like).dtype
        # Integers alone become floats of the default dtype.
        wanted = like_dtype if floats or like_dtype.kind != "f" else np.dtype("float32")
        assert z.dtype == wanted
        single = z.dtype.name in ("float32", "complex64")
        assert_close(z.numpy(), value, op.rtol[0 if single else 1])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", OPERATIONS, ids=str)
def test_forward(op: Operation, dtype: str) -> None:
    for case in op.cases:
        arrays = prepared(case, dtype)
        check_forward(op, case, arrays, dtype)
        check_forward(op, case, [strided(a) for a in arrays], dtype)
        check_forward(op, case, [repeated(a) for a in arrays], dtype)


@pytest.mark.parametrize("op", [op for op in OPERATIONS if op.jax], ids=str)
def test_forward_agrees_with_jax(op: Operation) -> None:
    for case in op.cases[: min(op.jax_cases, 2)]:
        for dtype, rtol in zip(FLOATS, op.jax_rtol, strict=True):
            arrays = prepared(case, dtype)
            if not any(map(is_float, arrays)):
                continue
            compiled = jax.jit(functools.partial(op.jax, **case.params))
            expected = listed(compiled(*map(jnp.asarray, arrays)))
            results = listed(op.call(*map(cr.asarray, arrays), **case.params))
            assert len(results) == len(expected)
            for z, value in zip(results, expected, strict=True):
                assert_close(z.numpy(), value, rtol)


# --- derivatives ----------------------------------------------------------------------------------


def small(op: Operation, case: Case) -> bool:
    arrays = prepared(case, "float64")
    outputs = listed(op.call(*map(cr.asarray, arrays), **case.params))
    return any(map(is_float, arrays)) and (
        sum(x.size for x in arrays if is_float(x)) <= DIFFERENTIATED
        and sum(z.size for z in outputs) <= DIFFERENTIATED
    )


def leaves(arrays: list[np.ndarray]) -> tuple[cr.Tensor, ...]:
    return tuple(cr.asarray(a, requires_grad=is_float(a)) for a in arrays)


WITH_DERIVATIVE = [op for op in OPERATIONS if op.derivative]


@pytest.mark.parametrize("op", [op for op in WITH_DERIVATIVE if op.differences], ids=str)
def test_derivatives_agree_with_central_differences(op: Operation) -> None:
    tried = 0
    for case in op.cases:
        if small(op, case):
            inputs = leaves(prepared(case, "float64"))
            call = lambda *xs, params=case.params: op.call(*xs, **params)  # noqa: E731
            assert gradcheck(call, inputs, atol=2e-8, rtol=1e-6)
            assert gradgradcheck(call, inputs, atol=2e-8, rtol=1e-6)
            tried += 1
    assert tried


def first_and_second(op: Operation, case: Case, cotangents: Any, probes: Any) -> Any:
    """(dy/dx)^T c for the inputs, then its own derivatives along the probes, by x and by c."""
    inputs = leaves(prepared(case, "float64"))
    xs = [x for x in inputs if x.requires_grad]
    cs = [cr.asarray(c, requires_grad=True) for c in cotangents]
    ys = listed(op.call(*inputs, **case.params))
    gs = cr.autograd.grad(ys, xs, cs, create_graph=True, allow_unused=True)
    first = [cr.zeros_like(x) if g is None else g for x, g in zip(xs, gs, strict=True)]
    pairs = [(g, v) for g, v in zip(first, probes, strict=True) if g.requires_grad]
    seconds = cr.autograd.grad(
        [g for g, _ in pairs], [*xs, *cs], [cr.asarray(v) for _, v in pairs], allow_unused=True
    )
    second = [
        cr.zeros_like(x) if g is None else g for x, g in zip([*xs, *cs], seconds, strict=True)
    ]
    return [g.detach().numpy() for g in first], [g.detach().numpy() for g in second]


def jax_first_and_second(op: Operation, case: Case, cotangents: Any, probes: Any) -> Any:
    arrays = [jnp.asarray(a) for a in prepared(case, "float64")]
    places = [i for i, a in enumerate(arrays) if is_float(a)]

    def call(*xs: Any) -> tuple[Any, ...]:
        full = list(arrays)
        for i, x in zip(places, xs, strict=True):
            full[i] = x
        return tuple(listed(op.jax(*full, **case.params)))

    def gradient(xs: Any, cs: Any) -> Any:
        return jax.vjp(call, *xs)[1](cs)

    @jax.jit
    def both(xs: Any, cs: Any, vs: Any) -> Any:
        first, pull = jax.vjp(gradient, xs, cs)
        by_x, by_c = pull(vs)
        return list(first), [*by_x, *by_c]

    return both(
        tuple(arrays[i] for i in places),
        tuple(map(jnp.asarray, cotangents)),
        tuple(map(jnp.asarray, probes)),
    )


@pytest.mark.parametrize(
    "op", [op for op in WITH_DERIVATIVE if op.jax and op.differentiable], ids=str
)
def test_derivatives_agree_with_jax(op: Operation) -> None:
    for case in op.cases[: op.jax_cases]:
        if not small(op, case):
            continue
        rng = np.random.default_rng(1)
        arrays = prepared(case, "float64")
        outputs = listed(op.call(*map(cr.asarray, arrays), **case.params))
        cotangents = [rng.standard_normal(z.shape).astype(z.dtype) for z in outputs]
        probes = [rng.standard_normal(a.shape) for a in arrays if is_float(a)]
        got = first_and_second(op, case, cotangents, probes)
        expected = jax_first_and_second(op, case, cotangents, probes)
        for ours, theirs in zip(got, expected, strict=True):
            for g, e in zip(ours, theirs, strict=True):
                assert_close(g, e, 1e-11, at_least=1e-3)


@pytest.mark.parametrize("op", [op for op in OPERATIONS if not op.derivative], ids=str)
def test_no_derivative_is_recorded(op: Operation) -> None:
    for case in op.cases:
        results = listed(op.call(*leaves(prepared(case, "float64")), **case.params))
        assert not any(z.requires_grad for z in results)


@pytest.mark.parametrize("op", [op for op in WITH_DERIVATIVE], ids=str)
def test_gradients_have_the_inputs_shape_and_dtype(op: Operation) -> None:
    for case in op.cases:
        for dtype in FLOATS:
            inputs = leaves([strided(a) for a in prepared(case, dtype)])
            xs = [x for x in inputs if x.requires_grad]
            ys = listed(op.call(*inputs, **case.params))
            if not xs:
                continue
            gradients = cr.autograd.grad(ys, xs, [cr.ones_like(y) for y in ys], allow_unused=True)
            for x, g in zip(xs, gradients, strict=True):
                assert g is None or (g.shape, g.dtype) == (x.shape, x.dtype)


# --- what a primitive declares --------------------------------------------------------------------


def check_infer(primitive: Primitive, inputs: Any, outputs: Any, params: Any) -> None:
    """What the rule says of shapes and dtypes alone is what came out."""
    spec = primitive.infer(*[Spec(x.shape, x.dtype) for x in inputs], **params)
    specs = (spec,) if isinstance(spec, Spec) else spec
    assert [(z.shape, z.dtype) for z in outputs] == [tuple(s) for s in specs], primitive.name


@pytest.mark.parametrize("op", OPERATIONS, ids=str)
def test_declared_shapes_and_dtypes(op: Operation) -> None:
    with observe(check_infer):
        for case in op.cases:
            for dtype in FLOATS:
                inputs = leaves(prepared(case, dtype))
                ys = listed(op.call(*inputs, **case.params))
                xs = [x for x in inputs if x.requires_grad]
                if op.derivative and xs:
                    cs = [cr.ones_like(y).requires_grad_() for y in ys]
                    gs = cr.autograd.grad(ys, xs, cs, create_graph=True, allow_unused=True)
                    gs = [g for g in gs if g is not None and g.requires_grad]
                    cr.autograd.grad(gs, [*xs, *cs], map(cr.ones_like, gs), allow_unused=True)


PRIMITIVE_ROWS = [op for op in OPERATIONS if op.primitive]


@pytest.mark.parametrize("op", [op for op in PRIMITIVE_ROWS if op.primitive.reads], ids=str)
def test_what_is_declared_read_is_read(op: Operation) -> None:
    """A rule that is not given what it declares to read fails; it may declare nothing else."""
    case = op.cases[0]
    ys = listed(op.call(*leaves(prepared(case, "float64")), **case.params))
    node = next(
        n
        for n in engine.reachable(y._node for y in ys)
        if isinstance(n, Node) and n.primitive is op.primitive
    )
    g = cr.ones(node.outputs[0].shape, dtype=node.outputs[0].dtype)
    inputs, outputs = node.inputs, node.outputs
    positions = [i for i, x in enumerate(inputs) if not isinstance(x, Spec)]
    hidden = [*positions, *(["z"] if op.primitive.reads_output else [])]
    assert hidden
    for name in hidden:
        node.inputs = tuple(
            Spec(x.shape, x.dtype) if i == name else x for i, x in enumerate(inputs)
        )
        node.outputs = tuple(Spec(z.shape, z.dtype) if name == "z" else z for z in outputs)
        with pytest.raises((AttributeError, TypeError)):
            engine._input_gradients(node, {0: g}, (True,) * len(inputs))


def all_primitives() -> list[Primitive]:
    found = {}
    for module in pkgutil.iter_modules(primitives.__path__):
        if not module.ispkg:
            room = importlib.import_module(f"chainrule.primitives.{module.name}")
            for value in vars(room).values():
                if isinstance(value, Primitive):
                    found[id(value)] = value
    return list(found.values())


def test_every_primitive_has_a_row() -> None:
    rows = {id(op.primitive) for op in PRIMITIVE_ROWS}
    assert len(all_primitives()) > 90
    assert [p.name for p in all_primitives() if id(p) not in rows] == []


def test_names_of_primitives_are_unique() -> None:
    names = [p.name for p in all_primitives()]
    assert len(set(names)) == len(names)
    assert len({op.name for op in OPERATIONS}) == len(OPERATIONS)


CREATION = {
    "arange", "asarray", "empty", "empty_like", "eye", "from_dlpack", "full", "full_like",
    "linspace", "ones", "ones_like", "tensor", "zeros", "zeros_like",
}  # fmt: skip
INSPECTION = {"can_cast", "finfo", "iinfo", "isdtype", "result_type"}
SHAPE_BY_VALUE = {"nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values"}


def test_every_array_function_has_a_row() -> None:
    names = {op.name for op in OPERATIONS} | {op.name.split("_")[0] for op in OPERATIONS}
    public = {name for name in array.__all__ if not name.startswith("_")}
    functions = public - CREATION - INSPECTION - SHAPE_BY_VALUE
    assert sorted(functions - names) == []


# --- operations' counts ---------------------------------------------------------------------------


def counted(function: Any, *args: Any) -> int:
    total = 0

    def count(primitive: Primitive, inputs: Any, outputs: Any, params: Any) -> None:
        nonlocal total
        total += primitive.flops(outputs, *inputs, **params)

    with observe(count):
        function(*args)
    return total


def test_flops_of_products_and_windows() -> None:
    from chainrule.primitives import convolution, indexing, pooling

    x, w = cr.zeros((5, 4, 9, 8)), cr.zeros((6, 2, 3, 3))
    how = {"stride": (2, 1), "padding": ((1, 1), (0, 0)), "dilation": (1, 1), "groups": 2}
    y = convolution.conv(x, w, **how)
    assert y.shape == (5, 6, 5, 6)
    macs = 5 * 6 * 5 * 6 * 2 * 3 * 3  # each output element: two channels of its group, nine taps
    assert counted(lambda: convolution.conv(x, w, **how)) == 2 * macs
    assert counted(lambda: convolution.conv_input(y, w, spatial=(9, 8), **how)) == 2 * macs
    assert counted(lambda: convolution.conv_weight(x, y, kernel=(3, 3), **how)) == 2 * macs
    assert counted(cr.matmul, cr.zeros((3, 4, 5)), cr.zeros((3, 5, 7))) == 2 * 3 * 4 * 5 * 7
    window = {"kernel": (3, 2), "stride": (3, 2), "padding": ((0, 0),) * 2, "dilation": (1, 1)}
    assert counted(lambda: pooling.window_sum(x, out=(3, 4), **window)) == 5 * 4 * 12 * 6
    assert counted(lambda: pooling.window_argmax(x, out=(3, 4), **window)) == 5 * 4 * 12 * 6
    pooled = cr.zeros((5, 4, 3, 4))
    assert counted(lambda: pooling.window_spread(pooled, spatial=(9, 8), **window)) == 20 * 12 * 6
    rows, index = cr.zeros((7, 3)), cr.asarray([0, 1, 0, 2, 2, 2, 1])
    assert counted(lambda: indexing.scatter_add(rows, index, length=4)) == 21
    assert counted(lambda: indexing.gather(rows, index)) == 0


def test_flops_of_elementwise_reductions_and_moves() -> None:
    x = cr.zeros((3, 4))
    assert counted(cr.exp, x) == 12
    assert counted(lambda: x + x * x) == 24
    assert counted(lambda: cr.sum(x, axis=0)) == 12
    assert counted(lambda: cr.max(x)) == 12
    assert counted(lambda: x.T.reshape(-1)[1:5]) == 0
    assert counted(lambda: cr.concat([x, x])) == 0
