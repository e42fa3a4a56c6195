"""Products of matrices and tensors, and einsum, against NumPy; gradients against differences."""

from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.autograd import gradcheck, gradgradcheck
from chainrule.errors import ArgumentError, DTypeError, ShapeError

DTYPES = ("int8", "uint32", "int64", "float32", "float64", "complex64", "complex128")


def sample(rng, dtype, shape):
    dtype = np.dtype(dtype)
    if dtype.kind in "ui":
        return rng.integers(0, 4, shape).astype(dtype)
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape) if dtype.kind == "c" else x).astype(dtype)


def same(actual, expected):
    expected = np.asarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    exact = expected.dtype.kind in "ui"
    tolerance = 0 if exact else 50 * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(actual.numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "left, right",
    [
        ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((4, 1, 2, 3), (5, 3, 2)), ((3,), (5, 3, 2)),
        ((5, 2, 3), (3,)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((0, 2, 3), (3, 4)),
    ],
)  # fmt: skip
def test_matmul(left, right, dtype, rng):
    x, y = sample(rng, dtype, left), sample(rng, dtype, right)
    same(cr.matmul(cr.asarray(x), cr.asarray(y)), np.matmul(x, y))
    same(cr.asarray(x) @ y, np.matmul(x, y))
    same(x @ cr.asarray(y), np.matmul(x, y))


@pytest.mark.parametrize("dtype", DTYPES)
def test_vecdot_tensordot_outer_trace_diagonal(dtype, rng):
    x, y = sample(rng, dtype, (2, 1, 4)), sample(rng, dtype, (3, 4))
    same(cr.vecdot(cr.asarray(x), cr.asarray(y)), np.vecdot(x, y))
    same(cr.vecdot(cr.asarray(y), cr.asarray(y[:, :1]), axis=-2), np.vecdot(y, y[:, :1], axis=-2))
    a, b = sample(rng, dtype, (2, 3, 4)), sample(rng, dtype, (4, 3, 5))
    for axes in (0, ((2,), (0,)), ((1, 2), (1, 0)), ((-1, -2), (0, 1)), ((), ()), (1, 1)):
        if np.dtype(dtype) == np.int8 and axes == 0:
            continue
        same(cr.tensordot(cr.asarray(a), cr.asarray(b), axes=axes), np.tensordot(a, b, axes))
    same(
        cr.tensordot(cr.asarray(a), cr.asarray(a.transpose(1, 2, 0))),
        np.tensordot(a, a.transpose(1, 2, 0)),
    )
    same(cr.outer(cr.asarray(x[0, 0]), cr.asarray(y[0])), np.outer(x[0, 0], y[0]))
    for offset in (-5, -1, 0, 2, 9):
        expected = np.diagonal(a, offset, -2, -1)
        same(cr.diagonal(cr.asarray(a), offset=offset), expected)
        wide = {"i": "int64", "u": "uint64"}.get(a.dtype.kind, dtype)
        same(cr.trace(cr.asarray(a), offset=offset), np.sum(expected, axis=-1, dtype=wide))
    same(cr.diagonal(cr.asarray(a), axis1=0, axis2=2), np.diagonal(a, 0, 0, 2))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: x @ x, ShapeError, r"\(2, 3\) and \(2, 3\)"),
        (lambda x: x @ cr.ones((2, 4, 4)), ShapeError, r"last axis of the first \(3\)"),
        (lambda x: x @ cr.asarray(1.0), ShapeError, "at least one axis"),
        (lambda x: cr.ones((2, 2, 3)) @ cr.ones((3, 3, 2)), ShapeError, "do not broadcast"),
        (lambda x: cr.asarray([True]) @ cr.asarray([True]), DTypeError, "numeric"),
        (lambda x: cr.vecdot(x, x, axis=0), ArgumentError, "from -2 to -1"),
        (lambda x: cr.vecdot(x, cr.ones((4,))), ShapeError, "must be equal"),
        (lambda x: cr.tensordot(x, x, axes=1), ShapeError, "equally long"),
        (lambda x: cr.tensordot(x, x, axes=3), ArgumentError, "from 0 to 2"),
        (lambda x: cr.tensordot(x, x, axes=((0,), (0, 1))), ShapeError, "equally long"),
        (lambda x: cr.diagonal(x[0]), IndexError, "out of bounds"),
    ],
)
def test_misuse(call, error, message):
    with pytest.raises(error, match=message):
        call(cr.ones((2, 3)))


EXAMPLES = [
    ("ij,jk->ik", [(2, 3), (3, 4)]), ("ij,jk", [(2, 3), (3, 4)]), ("ba", [(2, 3)]),
    ("ii->i", [(3, 3)]), ("ii", [(3, 3)]), ("iij->ij", [(2, 2, 3)]), ("ijij->ji", [(2, 3, 2, 3)]),
    ("iii->i", [(3, 3, 3)]), ("ij->", [(2, 3)]), ("ij->j", [(2, 3)]), ("...->...", [(2, 3)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]), ("i...->...i", [(2, 3, 4)]),
    ("...i,...i", [(2, 3), (2, 3)]), ("...i,i...->...", [(4, 3), (3, 4)]), ("a...a", [(3, 2, 3)]),
    ("i,j,k->kji", [(2,), (3,), (4,)]), ("ab,bc,cd,de->ae", [(2, 3), (3, 4), (4, 5), (5, 2)]),
    ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("bijk,bkl,lm->bim", [(2, 3, 4, 5), (2, 5, 6), (6, 2)]),
    ("i,i,i->i", [(3,), (3,), (3,)]), ("i,i,i->", [(3,), (3,), (3,)]), (",", [(), ()]),
    (" i j , j -> i ", [(2, 3), (3,)]), ("ij,ij->ij", [(2, 3), (1, 3)]),
    ("ij,kj->ik", [(2, 1), (3, 4)]),
    ("i,->i", [(3,), ()]), ("ij,jk->ik", [(2, 0), (0, 3)]), ("Ab,bC", [(2, 3), (3, 4)]),
]  # fmt: skip


@pytest.mark.parametrize("subscripts, shapes", EXAMPLES)
@pytest.mark.parametrize("dtype", ["int64", "float64", "complex128"])
def test_einsum(subscripts, shapes, dtype, rng):
    arrays = [sample(rng, dtype, shape) for shape in shapes]
    same(cr.einsum(subscripts, *map(cr.asarray, arrays)), np.einsum(subscripts, *arrays))


@st.composite
def contractions(draw):
    """Random subscripts with shapes that fit them."""
    sizes = {c: draw(st.integers(1, 3)) for c in "abcde"}
    under = draw(st.lists(st.integers(1, 3), max_size=2))
    terms, shapes, dotted = [], [], False
    for _ in range(draw(st.integers(1, 4))):
        letters = draw(st.lists(st.sampled_from("abcde"), max_size=3))
        shape = [sizes[c] for c in letters]
        term = "".join(letters)
        if under and draw(st.booleans()):
            at = draw(st.integers(0, len(letters)))
            first = draw(st.integers(0, len(under)))
            mine = [draw(st.sampled_from([n, 1])) for n in under[first:]]
            term, shape = f"{term[:at]}...{term[at:]}", shape[:at] + mine + shape[at:]
            dotted = True
        terms.append(term)
        shapes.append(tuple(shape))
    text = ",".join(terms)
    if draw(st.booleans()):
        known = sorted({c for c in text if c in string.ascii_letters})
        output = draw(st.permutations(known))[: draw(st.integers(0, len(known)))]
        at = draw(st.integers(0, len(output)))
        dots = "..." if dotted else ""
        text += "->" + "".join(output[:at]) + dots + "".join(output[at:])
    return text, shapes


@given(contractions())
@settings(max_examples=250, deadline=None)
def test_einsum_on_random_subscripts(case):
    subscripts, shapes = case
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in shapes]
    expected = np.asarray(np.einsum(subscripts, *arrays))
    found = cr.einsum(subscripts, *map(cr.asarray, arrays))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "subscripts, shapes",
    [e for e in EXAMPLES if all(0 not in shape for shape in e[1]) and sum(map(len, e[1])) < 9],
)
def test_gradients_of_einsum(subscripts, shapes, rng):
    xs = [cr.asarray(rng.normal(size=shape), requires_grad=True) for shape in shapes]
    assert gradcheck(lambda *xs: cr.einsum(subscripts, *xs), xs)


def test_second_derivatives_of_products(rng):
    x = cr.asarray(rng.normal(size=(2, 3)), requires_grad=True)
    y = cr.asarray(rng.normal(size=(3, 2)), requires_grad=True)
    assert gradgradcheck(lambda x, y: cr.einsum("ij,jk,kl->il", x, y, x) ** 2, [x, y])
    assert gradgradcheck(lambda x, y: (x @ y) ** 2, [x, y])
    assert gradcheck(lambda x, y: cr.tensordot(x, y, axes=1), [x, y])
    assert gradcheck(lambda x: cr.vecdot(x, x * x), [x])
    assert gradcheck(lambda x: cr.diagonal(x, offset=1), [x])


def test_einsum_promotes_and_does_not_hand_out_its_argument():
    x = cr.asarray([1, 2], dtype=cr.int8)
    assert cr.einsum("i,i", x, cr.ones((2,))).dtype == cr.float32
    assert cr.einsum("i,i", x, x).dtype == cr.int8
    same_values = cr.einsum("i->i", x)
    same_values[0] = 9
    assert x.tolist() == [1, 2]


@pytest.mark.parametrize(
    "subscripts, shapes, error, message",
    [
        ("ij,jk", [(2, 3)], ArgumentError, r"names 2 operand\(s\), but got 1"),
        ("ij", [(2,)], ShapeError, "names 2 axes of an operand that has 1"),
        ("i", [(2, 3)], ShapeError, "names 1 axes"),
        ("i...jk", [(2, 3)], ShapeError, "names 3 axes"),
        ("ij,jk", [(2, 3), (4, 5)], ShapeError, "'j' has length 3 in one operand and 4"),
        ("...i,...i", [(2, 3), (4, 3)], ShapeError, "under"),
        ("ii", [(2, 3)], ShapeError, "must be equally long"),
        ("i->ii", [(2,)], ArgumentError, "occurs in it once"),
        ("i->j", [(2,)], ArgumentError, "'j' does not"),
        ("...i->i", [(2, 3)], ArgumentError, "missing"),
        ("i.j", [(2, 3)], ArgumentError, "not made of letters"),
        ("i1", [(2, 3)], ArgumentError, "not made of letters"),
        ("......", [(2, 3)], ArgumentError, "not made of letters"),
        ("", [], ArgumentError, "at least one tensor"),
    ],
)
def test_misuse_of_einsum(subscripts, shapes, error, message):
    with pytest.raises(error, match=message):
        cr.einsum(subscripts, *map(cr.ones, shapes))


def test_einsum_wants_its_subscripts_first():
    with pytest.raises(DTypeError, match="subscripts first"):
        cr.einsum(cr.ones((2,)), "i")
