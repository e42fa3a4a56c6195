"""Rows of convolution and of sliding windows, against slow references that follow the formulas."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule.primitives import convolution, pooling

from .table import Array, Case, Operation, distinct, normal

How = dict[str, Any]


def _extent(n: int, k: int, s: int, pad: tuple[int, int], d: int) -> int:
    return (n + sum(pad) - d * (k - 1) - 1) // s + 1


def how(stride: Any, padding: Any, dilation: Any, groups: int = 1) -> How:
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def places(kernel: Any, out: Any, spatial: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """(output place, tap, input place) wherever a tap of a window falls inside the input."""
    for p in product(*map(range, out)):
        for k in product(*map(range, kernel)):
            q = tuple(
                s * i + d * t - lo
                for i, t, s, d, (lo, _) in zip(p, k, stride, dilation, padding, strict=True)
            )
            if all(0 <= a < n for a, n in zip(q, spatial, strict=True)):
                yield p, k, q


def conv(x: Array, w: Array, stride: Any, padding: Any, dilation: Any, groups: int) -> Array:
    spatial, kernel = x.shape[2:], w.shape[2:]
    out = tuple(map(_extent, spatial, kernel, stride, padding, dilation))
    y = np.zeros((x.shape[0], w.shape[0], *out), x.dtype)
    inside, outside = w.shape[1], w.shape[0] // groups
    for p, k, q in places(kernel, out, spatial, stride, padding, dilation):
        for group in range(groups):
            o, c = slice(group * outside, None), slice(group * inside, None)
            block = w[(o, slice(None), *k)][:outside]
            y[(slice(None), o, *p)][:, :outside] += x[(slice(None), c, *q)][:, :inside] @ block.T
    return y


def _jax_conv(x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    return jax.lax.conv_general_dilated(
        x, w, stride, padding, rhs_dilation=dilation, feature_group_count=groups
    )


def conv_input(y: Array, w: Array, spatial: Any, groups: int, **rest: Any) -> Array:
    """The adjoint in x: y times the matrix of the convolution, column by column."""
    shape = (y.shape[0], w.shape[1] * groups, *spatial)
    columns = np.eye(int(np.prod(shape)), dtype=y.dtype).reshape(-1, *shape)
    return np.array([np.sum(y * conv(e, w, groups=groups, **rest)) for e in columns]).reshape(shape)


def conv_weight(x: Array, y: Array, kernel: Any, groups: int, **rest: Any) -> Array:
    """The adjoint in w, likewise."""
    shape = (y.shape[1], x.shape[1] // groups, *kernel)
    columns = np.eye(int(np.prod(shape)), dtype=y.dtype).reshape(-1, *shape)
    return np.array([np.sum(y * conv(x, e, groups=groups, **rest)) for e in columns]).reshape(shape)


def _jax_conv_input(y: Any, w: Any, spatial: Any, groups: int, **rest: Any) -> Any:
    x = jnp.zeros((y.shape[0], w.shape[1] * groups, *spatial), y.dtype)
    return jax.vjp(lambda x: _jax_conv(x, w, groups=groups, **rest), x)[1](y)[0]


def _jax_conv_weight(x: Any, y: Any, kernel: Any, groups: int, **rest: Any) -> Any:
    w = jnp.zeros((y.shape[1], x.shape[1] // groups, *kernel), y.dtype)
    return jax.vjp(lambda w: _jax_conv(x, w, groups=groups, **rest), w)[1](y)[0]


CONVOLUTIONS = (
    # (N, C, *spatial), (O, C / groups, *kernel)
    ((2, 2, 5), (3, 2, 3), how((1,), ((0, 0),), (1,))),
    ((1, 2, 6), (2, 1, 2), how((2,), ((1, 2),), (2,), groups=2)),
    ((1, 2, 4, 3), (1, 2, 2, 3), how((1, 1), ((0, 0), (1, 1)), (1, 1))),
    ((1, 2, 5, 4), (4, 1, 2, 2), how((2, 1), ((1, 0), (0, 2)), (1, 2), groups=2)),
    ((1, 1, 3, 2, 3), (2, 1, 2, 1, 2), how((1, 2, 1), ((0, 0), (0, 1), (1, 0)), (2, 1, 1))),
)
CASES_X, CASES_Y, CASES_W = [], [], []
for x_shape, w_shape, params in CONVOLUTIONS:
    x, w = normal(*x_shape, seed=1), normal(*w_shape, seed=2)
    y = normal(*conv(x, w, **params).shape, seed=3)
    CASES_X.append(Case((x, w), params))
    CASES_Y.append(Case((y, w), {"spatial": x_shape[2:], **params}))
    CASES_W.append(Case((x, y), {"kernel": w_shape[2:], **params}))

# --- pooling --------------------------------------------------------------------------------------


def window_sum(x: Array, out: Any, kernel: Any, **rest: Any) -> Array:
    y = np.zeros((*x.shape[:2], *out), x.dtype)
    for p, _, q in places(kernel, out, x.shape[2:], **rest):
        y[(..., *p)] += x[(..., *q)]
    return y


def window_spread(y: Array, spatial: Any, kernel: Any, **rest: Any) -> Array:
    x = np.zeros((*y.shape[:2], *spatial), y.dtype)
    for p, _, q in places(kernel, y.shape[2:], spatial, **rest):
        x[(..., *q)] += y[(..., *p)]
    return x


def window_argmax(x: Array, out: Any, kernel: Any, **rest: Any) -> Array:
    best = np.full((*x.shape[:2], *out), -np.inf)
    index = np.full(best.shape, -1)
    for p, _, q in places(kernel, out, x.shape[2:], **rest):
        larger = x[(..., *q)] > best[(..., *p)]
        best[(..., *p)] = np.where(larger, x[(..., *q)], best[(..., *p)])
        index[(..., *p)] = np.where(larger, np.ravel_multi_index(q, x.shape[2:]), index[(..., *p)])
    return index


def _jax_window_sum(x: Any, out: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    return jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, 1, *kernel), (1, 1, *stride), ((0, 0), (0, 0), *padding),
        window_dilation=(1, 1, *dilation),
    )  # fmt: skip


def _jax_window_spread(y: Any, spatial: Any, **rest: Any) -> Any:
    x = jnp.zeros((*y.shape[:2], *spatial), y.dtype)
    return jax.vjp(lambda x: _jax_window_sum(x, y.shape[2:], **rest), x)[1](y)[0]


POOLS = (
    ((2, 1, 6), {"kernel": (3,), "stride": (2,), "padding": ((0, 0),), "dilation": (1,)}),
    (
        (1, 2, 4, 3),
        {"kernel": (2, 2), "stride": (1, 2), "padding": ((1, 0), (0, 1)), "dilation": (2, 1)},
    ),
    (
        (1, 1, 3, 3, 2),
        {"kernel": (2, 1, 2), "stride": (1, 1, 1), "padding": ((0, 0),) * 3, "dilation": (1, 1, 1)},
    ),
)


def window_take(x: Array, index: Array, **how: Any) -> Array:
    y = np.zeros(index.shape, x.dtype)
    for p in np.ndindex(*index.shape):
        y[p] = x[p[:2]].reshape(-1)[index[p]]
    return y


def window_route(y: Array, index: Array, spatial: Any, **how: Any) -> Array:
    x = np.zeros((*y.shape[:2], int(np.prod(spatial))), y.dtype)
    for p in np.ndindex(*index.shape):
        x[(*p[:2], index[p])] += y[p]
    return x.reshape(*y.shape[:2], *spatial)


def _jax_window_take(x: Any, index: Any, **how: Any) -> Any:
    planes = x.reshape(*x.shape[:2], -1)
    flat = index.reshape(*x.shape[:2], -1)
    return jnp.take_along_axis(planes, flat, axis=2).reshape(index.shape)


def _jax_window_route(y: Any, index: Any, spatial: Any, **how: Any) -> Any:
    x = jnp.zeros((*y.shape[:2], *spatial), y.dtype)
    return jax.vjp(lambda x: _jax_window_take(x, index), x)[1](y)[0]


SUMS, SPREADS, MAXIMA, TAKEN, ROUTED = [], [], [], [], []
for shape, params in POOLS:
    rest = (params["kernel"], params["stride"], params["padding"], params["dilation"])
    out = tuple(map(_extent, shape[2:], *rest))
    SUMS.append(Case((normal(*shape),), {"out": out, **params}))
    SPREADS.append(Case((normal(*shape[:2], *out),), {"spatial": shape[2:], **params}))
    MAXIMA.append(Case((distinct(*shape),), {"out": out, **params}))
    index = window_argmax(distinct(*shape), out, **params)
    TAKEN.append(Case((normal(*shape), index), params))
    ROUTED.append(Case((normal(*index.shape), index), {"spatial": shape[2:], **params}))

TOLERANCE: dict[str, Any] = {"rtol": (3e-6, 1e-14), "jax_rtol": (1e-5, 1e-13)}
ROWS = (
    Operation(
        "conv", convolution.conv, tuple(CASES_X), conv, _jax_conv, convolution.conv, **TOLERANCE
    ),
    Operation(
        "conv_input", convolution.conv_input, tuple(CASES_Y), conv_input, _jax_conv_input,
        convolution.conv_input, **TOLERANCE,
    ),
    Operation(
        "conv_weight", convolution.conv_weight, tuple(CASES_W), conv_weight, _jax_conv_weight,
        convolution.conv_weight, **TOLERANCE,
    ),
    Operation(
        "window_sum", pooling.window_sum, tuple(SUMS), window_sum, _jax_window_sum,
        pooling.window_sum,
    ),
    Operation(
        "window_spread", pooling.window_spread, tuple(SPREADS), window_spread, _jax_window_spread,
        pooling.window_spread,
    ),
    Operation(
        "window_argmax", pooling.window_argmax, tuple(MAXIMA), window_argmax, None,
        pooling.window_argmax, derivative=False,
    ),
    Operation(
        "window_take", pooling.window_take, tuple(TAKEN), window_take, _jax_window_take,
        pooling.window_take,
    ),
    Operation(
        "window_route", pooling.window_route, tuple(ROUTED), window_route, _jax_window_route,
        pooling.window_route,
    ),
)  # fmt: skip
