"""Where the operands of a product lie: views, batches, rows that several axes make up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import views
from chainrule.compiler.native.gemm_plan import Product
from chainrule.compiler.native.kernel import Buffer, Buffers, strides_of
from chainrule.compiler.native.text import Function, Int, type_of
from chainrule.errors import ChainruleError
from chainrule.graph import Shape


class LayoutError(ChainruleError, ValueError):
    """Operands that cannot be read where they lie: the schedule grouped what it should not."""


@dataclass(frozen=True)
class Operand:
    """A matrix for each batch index: where it lies and how far apart the batches are."""

    base: Value
    offset: int
    batch: tuple[int, ...]  # strides of the batch axes


@dataclass(frozen=True)
class Layout:
    """A batch of products as they lie in memory; A and B may have changed places."""

    product: Product
    batch: Shape
    a: Operand
    b: Operand
    c: Operand
    swapped: bool  # C^T = B^T @ A^T


def product_of(ops: Sequence[Op]) -> Op:
    """The one matmul of a group."""
    (op,) = [op for op in ops if op.name == "matmul"]
    return op


def leaves(ops: Sequence[Op], values: Sequence[Value]) -> list[Value]:
    """The values in memory from which a group's operations make `values`."""
    found: dict[Value, None] = {}
    for value in values:
        if value.op is not None and value.op in ops and value.op.name != "matmul":
            found.update(dict.fromkeys(leaves(ops, value.op.inputs)))
        elif value.op is None or value.op not in ops:
            found[value] = None
    return list(found)


def expected(ops: Sequence[Op], stored: bool = True) -> Layout:
    """The layout if all buffers are row-major; `stored` as in `find_layout`."""
    op = product_of(ops)
    return find_layout(op, rowmajor([*leaves(ops, op.inputs), op.output]), stored)


def rowmajor(values: Sequence[Value]) -> dict[Value, Buffer]:
    """Buffers as they are expected before any are planned."""
    return {v: Buffer(0, 0, v.shape, strides_of(v.shape), v.dtype) for v in values}


def find_layout(op: Op, buffers: Buffers, stored: bool = True, swap: bool | None = None) -> Layout:
    """Where a matmul's operands and result lie.

    Arguments:
        stored: whether the result goes to its buffer as it is; else it is taken for row-major.
        swap: whether to compute C^T = B^T @ A^T; None chooses what lets C be stored in vectors.

    Raises:
        LayoutError: if an operand is no view of a buffer.
    """
    seen = []
    places = [buffers, buffers, buffers if stored else rowmajor([op.output])]
    for value, where in zip((*op.inputs, op.output), places, strict=True):
        view = views.resolve(value, where)
        if view is None:
            raise LayoutError(f"{op} cannot read {value} where it lies.")
        seen.append(view)
    x, y, z = seen
    depth = x.shape[-1]
    a, b, c = (Operand(v.base, v.offset, v.strides[:-2]) for v in seen)
    batch = z.shape[:-2]
    rows, row_steps = z.shape[-2], [v.strides[-2] for v in (x, z)]
    merged = _merge_rows(x, y, z) if math.prod(batch) > 1 else None
    if merged is not None:
        rows, row_steps = merged
    if merged is not None or math.prod(batch) == 1:
        batch, a, b, c = (), replace(a, batch=()), replace(b, batch=()), replace(c, batch=())
    columns = z.shape[-1]
    # Strides along an axis of one element mean nothing: let them be as is most convenient.
    product = Product(
        rows,
        columns,
        depth,
        type_of(op.output.dtype),
        (row_steps[0] if rows > 1 else depth, x.strides[-1] if depth > 1 else 1),
        (y.strides[-2] if depth > 1 else columns, y.strides[-1] if columns > 1 else 1),
        (row_steps[1] if rows > 1 else columns, z.strides[-1] if columns > 1 else 1),
    )
    if swap is None:
        swap = (columns == 1 and rows > 1) or (product.c[1] != 1 and product.c[0] == 1)
    if swap:
        return Layout(product.transposed, batch, b, a, c, True)
    return Layout(product, batch, a, b, c, False)


def _merge_rows(x: views.View, y: views.View, z: views.View) -> tuple[int, list[int]] | None:
    """Rows and row strides of A and C with the batch axes among the rows, if B is repeated."""
    if any(s for n, s in zip(y.shape[:-2], y.strides[:-2], strict=True) if n > 1):
        return None
    steps = []
    for v in (x, z):
        joined = views.regroup(v.shape[:-1], v.strides[:-1], (math.prod(v.shape[:-1]),))
        if joined is None:
            return None
        steps.append(joined[0])
    return math.prod(z.shape[:-1]), steps


def batch_index(f: Function, number: Int, shape: Shape) -> list[Int]:
    """The indices along each axis of batch `number`."""
    index: list[Int] = []
    for n in reversed(shape):
        index.append(f.urem(number, n))
        number = f.udiv(number, n)
    return index[::-1]


def dot(f: Function, index: Sequence[Int], steps: Sequence[int]) -> Int:
    """The sum of index times step."""
    total: Int = 0
    for i, step in zip(index, steps, strict=True):
        total = f.add(total, f.mul(i, step))
    return total
