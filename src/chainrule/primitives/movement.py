"""Movement primitives: the same numbers in another arrangement.

Each is linear, and its derivative is the movement back: `reshape` and `permute` are their own kind,
`broadcast_to` answers to `sum`, `slice` to `pad`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.errors import DTypeError, ShapeError
from chainrule.graph import Array, Primitive, Shape, Spec


def movement(
    name: str, formula: str, infer: Callable[..., Spec], evaluate: Callable[..., Any], dx: Any
) -> Primitive:
    """A linear primitive of one input that computes nothing."""
    return Primitive(name, formula, ("x",), infer, evaluate, (dx,), flops=0)


# --- reshape, permute, broadcast, flip ------------------------------------------------------------


def _infer_reshape(x: Any, shape: Shape) -> Spec:
    spec = Spec(shape, x.dtype)
    if spec.size != x.size:
        raise ShapeError(
            f"cannot reshape {x.shape} ({x.size} elements) to {shape} ({spec.size} elements)."
        )
    return spec


reshape = movement(
    "reshape", "x with the same elements in order, in another shape",
    _infer_reshape,
    lambda x, shape: x.reshape(shape),
    lambda g, z, x, shape: reshape(g, shape=x.shape),
)  # fmt: skip


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    inverse = [0] * len(axes)
    for position, axis in enumerate(axes):
        inverse[axis] = position
    return tuple(inverse)


permute = movement(
    "permute", "x with its axes in another order",
    lambda x, axes: Spec(tuple(map(x.shape.__getitem__, axes)), x.dtype),
    lambda x, axes: x.transpose(axes),
    lambda g, z, x, axes: permute(g, axes=_inverse(axes)),
)  # fmt: skip


def _infer_broadcast(x: Any, shape: Shape) -> Spec:
    lead = len(shape) - x.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True)):
        raise ShapeError(
            f"cannot broadcast {x.shape} to {shape}: aligned from the right, each axis must be "
            "equal or 1."
        )
    return Spec(shape, x.dtype)


def _broadcast_dx(g: Any, z: Any, x: Any, shape: Shape) -> Any:
    from chainrule.primitives.reduction import sum

    lead = len(shape) - x.ndim
    axes = tuple(range(lead)) + tuple(
        lead + i for i, n in enumerate(x.shape) if n == 1 and shape[lead + i] != 1
    )
    return reshape(sum(g, axes=axes), shape=x.shape)


def _broadcast(x: Array, shape: Shape) -> Array:
    if not x.flags.c_contiguous or not x.size:
        return np.broadcast_to(x, shape)
    # The same view as np.broadcast_to gives, in a tenth of its time: repetition is a step of 0.
    lead = len(shape) - x.ndim
    steps = (0,) * lead + tuple(
        0 if n == 1 else step for n, step in zip(x.shape, x.strides, strict=True)
    )
    view = np.ndarray(shape, x.dtype, x, 0, steps)
    view.flags.writeable = False
    return view


broadcast_to = movement(
    "broadcast_to", "x repeated along axes of length 1 and new leading axes",
    _infer_broadcast, _broadcast,
    _broadcast_dx,
)  # fmt: skip

flip = movement(
    "flip", "x with the order along some axes reversed",
    lambda x, axes: Spec(x.shape, x.dtype),
    lambda x, axes: np.flip(x, axes),
    lambda g, z, x, axes: flip(g, axes=axes),
)  # fmt: skip

# --- slice and pad --------------------------------------------------------------------------------


def _infer_slice(
    x: Any, starts: tuple[int, ...], lengths: tuple[int, ...], steps: tuple[int, ...]
) -> Spec:
    return Spec(lengths, x.dtype)


def region(
    starts: tuple[int, ...], lengths: tuple[int, ...], steps: tuple[int, ...]
) -> tuple[slice, ...]:
    """The key of NumPy for `lengths` elements along each axis from `starts`."""
    return tuple(
        [
            slice(start, start + (n - 1) * step + 1 if n else start, step)
            for start, n, step in zip(starts, lengths, steps, strict=True)
        ]
    )


def _slice(
    x: Array, starts: tuple[int, ...], lengths: tuple[int, ...], steps: tuple[int, ...]
) -> Array:
    return x[region(starts, lengths, steps)]


def _slice_dx(
    g: Any, z: Any, x: Any, starts: tuple[int, ...], lengths: tuple[int, ...],
    steps: tuple[int, ...],
) -> Any:  # fmt: skip
    # An axis that gave no elements has no distances between them; put the zeros all in front.
    widths = tuple(
        (start, length - start - (n - 1) * step - 1, step - 1) if n else (length, 0, 0)
        for start, n, step, length in zip(starts, lengths, steps, x.shape, strict=True)
    )
    return pad(g, widths=widths, value=0)


slice_ = movement(
    "slice", "`lengths` elements along each axis from `starts`, every `steps`-th (steps > 0)",
    _infer_slice, _slice, _slice_dx,
)  # fmt: skip


def _padded(n: int, low: int, high: int, interior: int) -> int:
    return low + n + max(n - 1, 0) * interior + high


def _infer_pad(x: Any, widths: tuple[tuple[int, int, int], ...], value: float) -> Spec:
    return Spec(tuple(_padded(n, *w) for n, w in zip(x.shape, widths, strict=True)), x.dtype)


def _pad(x: Array, widths: tuple[tuple[int, int, int], ...], value: float) -> Array:
    out = np.full(_infer_pad(x, widths, value).shape, value, dtype=x.dtype)
    out[
        tuple(
            slice(low, low + (n - 1) * (interior + 1) + 1 if n else low, interior + 1)
            for n, (low, _, interior) in zip(x.shape, widths, strict=True)
        )
    ] = x
    return out


def _pad_dx(g: Any, z: Any, x: Any, widths: tuple[tuple[int, int, int], ...], value: float) -> Any:
    starts = tuple(low if n else 0 for n, (low, _, _) in zip(x.shape, widths, strict=True))
    steps = tuple(interior + 1 for _, _, interior in widths)
    return slice_(g, starts=starts, lengths=x.shape, steps=steps)


pad = movement(
    "pad", "x with `value` around it (low, high) and between its elements (interior)",
    _infer_pad, _pad, _pad_dx,
)  # fmt: skip

# --- concatenation --------------------------------------------------------------------------------


def _infer_concat(*xs: Any, axis: int) -> Spec:
    first = xs[0]
    for x in xs[1:]:
        if x.ndim != first.ndim or any(
            n != m for i, (n, m) in enumerate(zip(x.shape, first.shape, strict=True)) if i != axis
        ):
            raise ShapeError(
                f"cannot concatenate {first.shape} and {x.shape} along axis {axis}: "
                "all other axes must be equal."
            )
        if x.dtype != first.dtype:
            raise DTypeError(f"concat got dtypes {first.dtype.name} and {x.dtype.name}.")
    length = sum(x.shape[axis] for x in xs)
    return Spec((*first.shape[:axis], length, *first.shape[axis + 1 :]), first.dtype)


def _concat_derivative(needs: tuple[bool, ...], g: Any, z: Any, *xs: Any, axis: int) -> Any:
    grads: list[Any] = []
    start = 0
    for needed, x in zip(needs, xs, strict=True):
        starts = tuple(start if i == axis else 0 for i in range(x.ndim))
        steps = (1,) * x.ndim
        grads.append(slice_(g, starts=starts, lengths=x.shape, steps=steps) if needed else None)
        start += x.shape[axis]
    return tuple(grads)


concat = Primitive(
    "concat", "the inputs one after another along an axis", ("*xs",), _infer_concat,
    lambda *xs, axis: np.concatenate(xs, axis=axis),
    _concat_derivative, flops=0,
)  # fmt: skip

alias = movement(
    "alias", "x itself, under another name",
    lambda x: Spec(x.shape, x.dtype),
    lambda x: x,
    lambda g, z, x: g,
)  # fmt: skip

identity_copy = movement(
    "copy", "x in memory of its own",
    lambda x: Spec(x.shape, x.dtype),
    lambda x: x.copy(),
    lambda g, z, x: g,
)  # fmt: skip

detach = Primitive(
    "detach", "x itself, as a constant: no derivative goes through it", ("x",),
    lambda x: Spec(x.shape, x.dtype),
    lambda x: x,
    flops=0,
)  # fmt: skip
