"""Kernels of pooling, the error function, Philox and scatter-add against independent references."""

from __future__ import annotations

import math
from itertools import product

import jax
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.primitives.kernels import philox, pool
from chainrule.primitives.kernels.erf import erf, erfinv
from chainrule.primitives.kernels.scatter import scatter_add

# --- pooling


def each_window(spatial, kernel, stride, padding, dilation, out):
    """Each output position with the input positions of its window, in row-major order."""
    for place in product(*map(range, out)):
        starts = [p * s - lo for p, s, (lo, _) in zip(place, stride, padding, strict=True)]
        positions = [
            tuple(start + t * d for start, t, d in zip(starts, tap, dilation, strict=True))
            for tap in product(*map(range, kernel))
        ]
        inside = [q for q in positions if all(0 <= a < x for a, x in zip(q, spatial, strict=True))]
        yield place, inside


def direct_argmax(x, *how):
    spatial, out = x.shape[2:], how[-1]
    index = np.full((*x.shape[:2], *out), -1, np.int64)
    for n, c in np.ndindex(*x.shape[:2]):
        for place, inside in each_window(spatial, *how):
            best = None
            for q in inside:
                value = x[(n, c, *q)]
                if best is None or value > best or value != value:
                    best = value
                    index[(n, c, *place)] = np.ravel_multi_index(q, spatial)
    return index


def direct_sum(x, *how):
    y = np.zeros((*x.shape[:2], *how[-1]), x.dtype)
    for place, inside in each_window(x.shape[2:], *how):
        for q in inside:
            y[(..., *place)] += x[(..., *q)]
    return y


@st.composite
def windows(draw):
    """(spatial, (kernel, stride, padding, dilation, out)), often with windows past the padding."""
    n_axes = draw(st.integers(1, 3))

    def each(values):
        return tuple(draw(st.lists(values, min_size=n_axes, max_size=n_axes)))

    most = 4 if n_axes < 3 else 2
    kernel, stride = each(st.integers(1, most)), each(st.integers(1, 3))
    dilation, spatial = each(st.integers(1, 2)), each(st.integers(1, 7 if n_axes < 3 else 4))
    padding = each(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    ceil_mode = draw(st.booleans())
    out = pool.pool_output_shape(spatial, kernel, stride, padding, dilation, ceil_mode)
    return spatial, (kernel, stride, padding, dilation, tuple(max(0, o) for o in out))


VALUES = {
    "ties": lambda g, shape: g.integers(-2, 3, shape).astype(np.float32),
    "normal": lambda g, shape: g.normal(size=shape),
    "ints": lambda g, shape: g.integers(-128, 128, shape).astype(np.int8),
    "wide ints": lambda g, shape: g.choice([-(2**63), 0, 2**63 - 1], shape),
    "special": lambda g, shape: g.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], shape),
    "lowest": lambda g, shape: np.full(shape, -np.inf, np.float32),
}


@settings(max_examples=400, deadline=None)
@given(windows(), st.sampled_from(sorted(VALUES)), st.integers(1, 300), st.integers(0, 99))
def test_max_pool_argmax(window, kind, chunk, seed):
    spatial, how = window
    x = VALUES[kind](np.random.default_rng(seed), (2, 2, *spatial))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "CHUNK_BYTES", chunk)
        index = pool.max_pool_argmax(x, *how)
    assert index.dtype == np.int64
    np.testing.assert_array_equal(index, direct_argmax(x, *how))


@settings(max_examples=300, deadline=None)
@given(windows(), st.integers(1, 300), st.integers(0, 99))
def test_window_sum_and_its_adjoint(window, chunk, seed):
    spatial, how = window
    generator = np.random.default_rng(seed)
    x = generator.integers(-9, 10, (2, 2, *spatial)).astype(np.float32)
    g = generator.integers(-9, 10, (2, 2, *how[-1])).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "CHUNK_BYTES", chunk)
        y, dx = pool.window_sum(x, *how), pool.window_spread(g, *how[:-1], spatial)
    assert y.dtype == dx.dtype == np.float32 and dx.shape == x.shape
    np.testing.assert_array_equal(y, direct_sum(x, *how))
    assert np.vdot(y, g) == np.vdot(x, dx)
    # dx does not depend on x: one more x of whole numbers settles each of its entries.
    other = generator.integers(-99, 100, x.shape).astype(np.float64)
    assert np.vdot(direct_sum(other, *how), g) == np.vdot(other, dx)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
        ((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
        ((3, 2), (1, 3), ((1, 0), (0, 1)), (2, 1)),
    ],
)
def test_pooling_against_jax(kernel, stride, padding, dilation):
    x = np.random.default_rng(0).integers(-99, 100, (3, 4, 14, 13)).astype(np.float32)
    how = kernel, stride, padding, dilation
    out = pool.pool_output_shape(x.shape[2:], *how, False)

    def reduce(function, start):
        return jax.lax.reduce_window(
            x, start, function, (1, 1, *kernel), (1, 1, *stride), ((0, 0), (0, 0), *padding),
            window_dilation=(1, 1, *dilation),
        )  # fmt: skip

    np.testing.assert_array_equal(pool.window_sum(x, *how, out), reduce(jax.lax.add, 0.0))
    index = pool.max_pool_argmax(x, *how, out).reshape(3, 4, -1)
    best = np.take_along_axis(x.reshape(3, 4, -1), index, -1).reshape(3, 4, *out)
    np.testing.assert_array_equal(best, reduce(jax.lax.max, -np.inf))


@pytest.mark.parametrize(
    ("x", "k", "s", "pad", "d", "floor", "ceil"),
    [
        (28, 2, 2, (0, 0), 1, 14, 14),
        (5, 2, 2, (0, 0), 1, 2, 3),
        (5, 3, 2, (1, 1), 1, 3, 3),
        (6, 3, 2, (1, 1), 1, 3, 4),
        (7, 2, 3, (0, 0), 1, 2, 3),
        (4, 1, 3, (0, 0), 1, 2, 2),
        (5, 1, 3, (0, 0), 1, 2, 2),  # a third window would start at 6, beyond the input
        (3, 2, 3, (1, 1), 1, 2, 2),
        (2, 2, 3, (1, 1), 1, 1, 1),  # a second would start at 3, in the padding on the right
        (9, 3, 2, (0, 0), 2, 3, 3),
        (8, 3, 2, (0, 0), 2, 2, 3),
        (2, 3, 1, (0, 0), 1, 0, 0),
    ],
)
def test_pool_output_shape(x, k, s, pad, d, floor, ceil):
    for ceil_mode, expected in ((False, floor), (True, ceil)):
        got = pool.pool_output_shape((x, x), (k, k), (s, s), (pad, pad), (d, d), ceil_mode)
        assert got == (expected, expected)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
def test_pooling_of_nothing(shape):
    how = (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)
    x = np.zeros(shape, np.float32)
    assert pool.max_pool_argmax(x, *how, (2, 2)).shape == (*shape[:2], 2, 2)
    assert pool.window_sum(x, *how, (2, 2)).shape == (*shape[:2], 2, 2)
    g = np.zeros((*shape[:2], 2, 2), np.float32)
    assert pool.window_spread(g, *how, (4, 4)).shape == shape


def test_more_taps_than_a_byte_counts():
    x = np.random.default_rng(0).normal(size=(1, 2, 40, 40))
    how = (20, 20), (10, 10), ((0, 0), (0, 0)), (1, 1), (3, 3)
    np.testing.assert_array_equal(pool.max_pool_argmax(x, *how), direct_argmax(x, *how))


# --- error function


def ulps(got, expected):
    """Distance in units of the last place of the result's dtype."""
    unit = np.spacing(np.abs(expected).astype(got.dtype)).astype(np.float64)
    return np.max(np.abs(got.astype(np.float64) - expected) / unit)


def every_magnitude(dtype):
    """Positive and negative numbers of every exponent, subnormal ones included."""
    bits, word = (np.uint32, 32) if dtype == np.float32 else (np.uint64, 64)
    top = int(np.array(np.finfo(dtype).max, dtype).view(bits))
    some = np.random.default_rng(word).integers(0, top, 300_000, dtype=bits).view(dtype)
    return np.concatenate([some, -some])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ends", [(-1e-3, 1e-3), (-1, 1), (0.9, 1.1), (-6.5, 6.5), None])
def test_erf(ends, dtype):
    if ends is None:
        x = every_magnitude(dtype)
    else:
        x = np.random.default_rng(1).uniform(*ends, 200_001).astype(dtype)
    y = erf(x)
    assert y.dtype == dtype
    assert ulps(y, scipy.special.erf(x.astype(np.float64))) <= 5
    np.testing.assert_array_equal(y, -erf(-x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ends", [(-1e-3, 1e-3), (-1, 1), (0.74, 0.76), (0.99, 1), None])
def test_erfinv(ends, dtype):
    if ends is None:
        x = every_magnitude(dtype)
        x = x[np.abs(x) < 1]
    else:
        x = np.random.default_rng(1).uniform(*ends, 200_001).astype(dtype)
        x = x[np.abs(x) < 1]
    y = erfinv(x)
    assert y.dtype == dtype and x.size > 100_000
    # SciPy's is itself some units off below the smallest normal number.
    normal, wide = np.abs(x) >= np.finfo(dtype).tiny, x.astype(np.float64)
    assert ulps(y[normal], scipy.special.erfinv(wide[normal])) <= 8
    if not normal.all():
        assert ulps(y[~normal], wide[~normal] * (math.sqrt(math.pi) / 2)) <= 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_erfinv_next_to_one(dtype):
    digits = np.finfo(dtype).nmant + 1
    x = (1 - 2.0 ** -np.arange(1, digits + 1)).astype(dtype)
    assert np.all(x < 1)
    assert ulps(erfinv(x), scipy.special.erfinv(x.astype(np.float64))) <= 6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_erf_and_erfinv_at_special_values(dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 30, -30], dtype)
    y = np.array([np.nan, 1, -1, 0.0, -0.0, 1, -1], dtype)
    np.testing.assert_array_equal(erf(x), y)
    np.testing.assert_array_equal(np.signbit(erf(x)[1:]), np.signbit(y[1:]))
    x = np.array([np.nan, 1, -1, 0.0, -0.0, np.nextafter(dtype(1), dtype(2)), -2, np.inf], dtype)
    y = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, np.nan, np.nan, np.nan], dtype)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(erfinv(x), y)
    np.testing.assert_array_equal(np.signbit(erfinv(x)[1:5]), np.signbit(y[1:5]))


def test_erf_is_one_where_it_rounds_to_one():
    x = np.linspace(3, 6.5, 400_001)
    for dtype in (np.float32, np.float64):
        expected = scipy.special.erf(x.astype(dtype).astype(np.float64)).astype(dtype)
        got = erf(x.astype(dtype))
        np.testing.assert_array_equal(got == 1, expected == 1)
        assert got.max() == 1


@pytest.mark.parametrize("function", [erf, erfinv])
def test_error_functions_take_any_shape(function):
    x = np.random.default_rng(0).uniform(-1, 1, (7, 5, 700)).astype(np.float32)
    flat = np.array([function(x.reshape(-1)[i : i + 1])[0] for i in range(0, x.size, 97)])
    for view in (x, np.asfortranarray(x), x[::-1].copy()[::-1]):
        np.testing.assert_array_equal(function(view).reshape(-1)[::97], flat)
    assert function(np.zeros((), np.float64)).shape == ()
    assert function(np.zeros((0, 3), np.float32)).shape == (0, 3)


# --- Philox


def words_of(counter, key):
    """Encrypt one block given as four words and a key of two."""
    words = tuple(np.array([w], np.uint64) for w in counter)
    philox.philox_rounds(words, key[0] | key[1] << 32)
    return tuple(int(w[0]) for w in words)


# The known answers of philox4x32-10 in the authors' distribution (Random123, kat_vectors).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_known_answers(counter, key, expected):
    assert words_of(counter, key) == expected


def scalar_philox(counter, key):
    """The paper's round on Python integers: S-box of two products, then the key schedule."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b % 2**32, a >> 32 ^ c[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return tuple(c)


WORD64 = st.integers(0, 2**64 - 1)


@settings(max_examples=100, deadline=None)
@given(WORD64, WORD64, st.integers(0, 30))
def test_philox_bits_lay_out_blocks_in_order(key, counter, n):
    expected = []
    for block in range(counter, counter + -(-n // 4)):
        block %= 2**64
        expected += scalar_philox((block % 2**32, block >> 32, 0, 0), (key % 2**32, key >> 32))
    bits = philox.philox_bits(key, counter, n)
    assert bits.dtype == np.uint32
    assert bits.tolist() == expected[:n]


@pytest.mark.parametrize("counter", [0, 2**32 - 9, 2**64 - 5])
def test_philox_bits_are_one_stream(counter):
    n = 4 * philox.CHUNK + 10
    bits = philox.philox_bits(99, counter, 2 * n)
    assert bits.size == 2 * n
    skip = 4 * (philox.CHUNK - 1)
    later = philox.philox_bits(99, (counter + philox.CHUNK - 1) % 2**64, n)
    np.testing.assert_array_equal(bits[skip : skip + n], later)


def test_philox_bits_look_random():
    bits = philox.philox_bits(2024, 0, 400_000)
    # Each of the 32 positions is set half the time, and no two agree more than by chance.
    signs = (bits[:, None] >> np.arange(32, dtype=np.uint32) & 1).astype(np.float32) * 2 - 1
    spread = signs.T @ signs / math.sqrt(len(bits))
    assert np.abs(signs.sum(0)).max() / math.sqrt(len(bits)) < 4.5
    assert np.abs(spread - np.diag(np.diag(spread))).max() < 5
    counts = np.bincount(bits >> 24, minlength=256)
    assert scipy.special.chdtrc(255, counts.var() * 256 / counts.mean()) > 1e-4
    assert len(np.unique(bits)) > 0.9999 * len(bits)


@settings(max_examples=100, deadline=None)
@given(WORD64, st.integers(-(2**63), 2**64 - 1))
def test_fold_is_a_block_of_its_own_lane(key, data):
    low, high, _, _ = scalar_philox(
        (data % 2**32, (data % 2**64) >> 32, 0, 1), (key % 2**32, key >> 32)
    )
    assert philox.fold(key, data) == low | high << 32


def test_folded_keys_differ():
    keys = [philox.fold(key, data) for key in range(30) for data in range(100)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)


# --- scatter-add


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(1, 12),
    st.lists(st.integers(0, 40), max_size=2).map(tuple),
    st.sampled_from(["float32", "float64", "int64", "int32", "uint8"]),
    st.integers(0, 99),
)
def test_scatter_add(n, rows, inner, dtype, seed):
    generator = np.random.default_rng(seed)
    index = generator.integers(0, rows, n)
    updates = generator.integers(0, 6, (n, *inner)).astype(dtype)
    if np.dtype(dtype).kind != "u":
        updates -= 3
    expected = np.zeros((rows, *inner), dtype)
    np.add.at(expected, index, updates)
    got = scatter_add((rows, *inner), index, updates)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("inner", [(), (3,), (64,)])
def test_scatter_add_of_many_repeats_bit_for_bit(inner):
    generator = np.random.default_rng(0)
    index = np.sort(generator.zipf(1.3, 3000) % 500)[::-1]
    updates = generator.normal(size=(3000, *inner)).astype(np.float32)
    got = scatter_add((500, *inner), index, updates)
    assert got.tobytes() == scatter_add([500, *inner], index.copy(), updates.copy()).tobytes()
    expected = np.zeros((500, *inner))
    np.add.at(expected, index, updates.astype(np.float64))
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def test_scatter_add_of_nothing():
    none = np.zeros(0, np.int64)
    assert scatter_add((3, 2), none, np.zeros((0, 2), np.float32)).tolist() == [[0, 0]] * 3
    assert scatter_add((0, 2), none, np.zeros((0, 2), np.float32)).shape == (0, 2)
    assert scatter_add((3, 0), np.array([1]), np.zeros((1, 0), np.float32)).shape == (3, 0)


def test_scatter_add_takes_strided_updates():
    index = np.array([2, 0, 2, 1])
    wide = np.arange(8 * 80, dtype=np.float64).reshape(8, 80)
    for updates in (wide[::2, ::2], wide[::2, :3], np.asfortranarray(wide[:4])):
        expected = np.zeros((3, updates.shape[1]))
        np.add.at(expected, index, updates)
        np.testing.assert_array_equal(scatter_add(expected.shape, index, updates), expected)
