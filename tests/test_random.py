"""Random numbers: distributions, streams, states, arguments, and values that must never change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import random
from chainrule.errors import ArgumentError, DTypeError

N = 100_000


def drawn(function: Any, *args: Any, seed: int = 1, **options: Any) -> np.ndarray:
    return function(*args, generator=random.Generator(seed), **options).numpy()


def follows(sample: np.ndarray, distribution: Any) -> bool:
    """Kolmogorov and Smirnov's test, by a fixed seed: it passes always or never."""
    return scipy.stats.kstest(sample.astype(np.float64), distribution.cdf).pvalue > 1e-3


# --- distributions --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_uniform(dtype: str, seed: int) -> None:
    x = drawn(random.uniform, (N,), dtype=dtype, seed=seed)
    assert x.dtype == dtype
    assert x.min() >= 0
    assert x.max() < 1
    assert follows(x, scipy.stats.uniform())
    # Bits far down are random too: what is left after the first ones is uniform again.
    assert follows(np.mod(x.astype(np.float64) * 2**12, 1), scipy.stats.uniform())
    x = drawn(random.uniform, (N,), -2, 3, dtype=dtype, seed=seed)
    assert follows(x, scipy.stats.uniform(-2, 5))


def test_uniform_has_all_the_bits_of_its_dtype() -> None:
    x = drawn(random.uniform, (N,), dtype="float64")
    assert len(np.unique(x)) == N
    assert np.any(x * 2**24 % 1)
    assert np.any(x * 2**52 % 1)
    np.testing.assert_array_equal(x * 2**53 % 1, 0)
    y = drawn(random.uniform, (N,))
    np.testing.assert_array_equal(y.astype(np.float64) * 2**24 % 1, 0)
    assert np.any(y.astype(np.float64) * 2**23 % 1)


def test_uniform_never_reaches_its_upper_bound() -> None:
    """1 + (1 - 2^-24) rounds to 2 in float32; the interval is half open all the same."""
    for low, high in ((1.0, 2.0), (100.0, 101.0), (-1.0, 1.0), (1e6, 1e6 + 1)):
        x = drawn(random.uniform, (N,), low, high)
        assert x.min() >= low
        assert x.max() < high
    x = random.uniform((N,), cr.asarray([[0.0], [10.0]]).broadcast_to(2, N), 20.0)
    assert x.shape == (2, N)
    assert x[1].numpy().min() >= 10


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal(dtype: str) -> None:
    x = drawn(random.normal, (N + 1,), dtype=dtype)  # an odd number: pairs are cut
    assert x.dtype == dtype
    assert np.isfinite(x).all()
    assert follows(x, scipy.stats.norm())
    assert abs(x.mean()) < 4 / math.sqrt(N)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / N)
    assert abs(scipy.stats.kurtosis(x)) < 4 * math.sqrt(24 / N)
    half = len(x) // 2
    assert abs(np.corrcoef(x[:half], x[half : 2 * half])[0, 1]) < 4 / math.sqrt(half)
    x = drawn(random.normal, (N,), 3.0, 0.5, dtype=dtype)
    assert follows(x, scipy.stats.norm(3, 0.5))


def test_normal_is_finite_at_the_ends_of_the_uniform_numbers() -> None:
    class Ends(random.Generator):
        """Bits that are all 0 or all 1."""

        word = 0

        def bits(self, shape: Any) -> Any:
            return cr.full(shape, self.word, dtype="uint32")

    generator = Ends(0)
    for word in (0, 2**32 - 1):
        generator.word = word
        for dtype in ("float32", "float64"):
            for draw in (random.normal, random.exponential):
                assert np.isfinite(draw((4,), dtype=dtype, generator=generator).numpy()).all()
            u = random.uniform((4,), dtype=dtype, generator=generator).numpy()
            assert ((u >= 0) & (u < 1)).all()
        assert random.categorical(cr.zeros((3,)), generator=generator).item() == 0
        assert random.categorical(cr.asarray([-math.inf, 0.0]), generator=generator).item() == 1
        assert random.choice(3, p=[0.0, 1.0, 0.0], generator=generator).item() == 1


def test_exponential() -> None:
    assert follows(drawn(random.exponential, (N,)), scipy.stats.expon())
    assert follows(drawn(random.exponential, (N,), 2.5), scipy.stats.expon(scale=0.4))


def test_bernoulli() -> None:
    x = drawn(random.bernoulli, 0.3, (N,))
    assert x.dtype == np.float32
    assert set(np.unique(x)) == {0, 1}
    assert abs(x.mean() - 0.3) < 4 * math.sqrt(0.21 / N)
    p = cr.asarray([0.0, 1.0, 0.5])
    y = drawn(random.bernoulli, cr.broadcast_to(p, (N, 3)), dtype="bool")
    assert y.dtype == bool
    assert not y[:, 0].any()
    assert y[:, 1].all()
    assert abs(y[:, 2].mean() - 0.5) < 2 / math.sqrt(N)
    assert drawn(random.bernoulli, p).shape == (3,)


def test_integers_are_uniform_over_their_range() -> None:
    x = drawn(random.integers, -3, 7, (N,), seed=2)
    assert x.dtype == np.int64
    counts = np.bincount(x + 3, minlength=10)
    assert len(counts) == 10
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert set(np.unique(drawn(random.integers, 3, shape=(1000,)))) == {0, 1, 2}
    assert drawn(random.integers, 5, 6, (10,)).tolist() == [5] * 10
    assert drawn(random.integers, 256, shape=(1000,), dtype="uint8").max() <= 255
    wide = drawn(random.integers, -(2**63), 2**63 - 1, (1000,))
    assert wide.min() < -(2**61)
    assert wide.max() > 2**61
    big = drawn(random.integers, 2**40, shape=(N,))
    assert follows(big / 2.0**40, scipy.stats.uniform())


def test_permutations_are_permutations_and_all_equally_likely() -> None:
    x = drawn(random.permutation, 1000)
    assert sorted(x) == list(range(1000))
    assert random.permutation(0).shape == (0,)
    assert random.permutation(1).tolist() == [0]
    generator = random.Generator(5)
    orders: dict[tuple[int, ...], int] = {}
    for _ in range(3000):
        order = tuple(random.permutation(3, generator=generator).tolist())
        orders[order] = orders.get(order, 0) + 1
    assert len(orders) == 6
    assert scipy.stats.chisquare(list(orders.values())).pvalue > 1e-3


def test_choice() -> None:
    p = [1.0, 0.0, 2.0, 5.0]
    x = drawn(random.choice, 4, (N,), p=p)
    counts = np.bincount(x, minlength=4)
    assert counts[1] == 0
    assert scipy.stats.chisquare(counts[[0, 2, 3]], N * np.array([1, 2, 5]) / 8).pvalue > 1e-3
    x = drawn(random.choice, 100, (10, 10), replace=False)
    assert sorted(x.reshape(-1)) == list(range(100))
    x = drawn(random.choice, 4, (3,), replace=False, p=p)
    assert sorted(x) == [0, 2, 3]
    assert drawn(random.choice, 5, (N,)).max() == 4


def test_weighted_choice_without_replacement() -> None:
    """The first two of weights 1, 2, 3: P(i then j) = w_i / 6 times w_j / (6 - w_i)."""
    generator, n = random.Generator(3), 4000
    weights = np.array([1.0, 2.0, 3.0])
    counts = np.zeros((3, 3))
    for _ in range(n):
        i, j = random.choice(3, (2,), replace=False, p=weights, generator=generator).tolist()
        counts[i, j] += 1
    assert not counts.diagonal().any()
    expected = n * weights[:, None] / 6 * weights / (6 - weights[:, None])
    off = ~np.eye(3, dtype=bool)
    assert scipy.stats.chisquare(counts[off], expected[off]).pvalue > 1e-3


def test_categorical() -> None:
    p = np.array([0.1, 0.0, 0.6, 0.3])
    with np.errstate(divide="ignore"):
        logits = np.log(p) + 5.0
    x = drawn(random.categorical, logits, (N,))
    counts = np.bincount(x, minlength=4)
    assert counts[1] == 0
    assert scipy.stats.chisquare(counts[[0, 2, 3]], N * p[[0, 2, 3]]).pvalue > 1e-3
    rows = np.array([[50.0, 0.0], [0.0, 50.0], [50.0, 0.0]])
    assert drawn(random.categorical, rows).tolist() == [0, 1, 0]
    assert drawn(random.categorical, rows.T, axis=0).tolist() == [0, 1, 0]
    assert drawn(random.categorical, rows, (7, 3)).shape == (7, 3)


def test_draws_with_tensors_for_parameters_carry_gradients() -> None:
    """z = mean + std e: the derivative by the mean is 1, by the deviation e."""
    mean, std = cr.asarray(2.0, requires_grad=True), cr.asarray(3.0, requires_grad=True)
    e = drawn(random.normal, (4,))
    z = random.normal((4,), mean, std, generator=random.Generator(1))
    cr.sum(z).backward()
    assert mean.grad.item() == 4.0
    np.testing.assert_allclose(std.grad.item(), e.sum(), rtol=1e-6)


# --- streams --------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_streams() -> None:
    for function in (random.uniform, random.normal, random.exponential):
        np.testing.assert_array_equal(drawn(function, (50,)), drawn(function, (50,)))
        assert not np.array_equal(drawn(function, (50,)), drawn(function, (50,), seed=2))
    random.manual_seed(7)
    first = random.normal((5,)).tolist()
    again = cr.manual_seed(7)
    assert again is random.default_generator
    assert random.normal((5,)).tolist() == first
    assert random.normal((5,)).tolist() != first


def test_a_stream_is_the_same_in_any_pieces_of_whole_blocks() -> None:
    generator = random.Generator(3)
    pieces = [generator.bits((n,)).numpy() for n in (4, 8, 20, 4000)]
    whole = random.Generator(3).bits((4032,)).numpy()
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    np.testing.assert_array_equal(random.Generator(3).bits((63, 64)).numpy().reshape(-1), whole)


def test_no_two_draws_share_a_block() -> None:
    generator = random.Generator(3)
    assert generator.bits((1,)).item() != generator.bits((1,)).item()
    before = generator.get_state()
    generator.bits((0,))
    np.testing.assert_array_equal(generator.get_state(), before)


def test_every_seed_is_its_own() -> None:
    seeds = [0, 1, 2, -1, -2, 2**32, 2**63, 2**64 - 1, 2**64, 2**64 + 1, 2**128, np.int64(3)]
    firsts = {tuple(random.Generator(s).bits((4,)).tolist()) for s in seeds}
    assert len(firsts) == len(seeds)
    states = [random.Generator(s).get_state().tolist() for s in (np.int64(3), 3, None, None)]
    assert states[0] == states[1]
    assert states[2] != states[3]
    for bad in (1.5, "1", True, None):
        with pytest.raises(DTypeError, match="seed is an integer"):
            random.default_generator.manual_seed(bad)


def test_splitting_gives_streams_that_do_not_depend_on_each_other() -> None:
    parent = random.Generator(11)
    children = parent.split(4)
    samples = [random.normal((N // 5,), generator=g).numpy() for g in (*children, parent)]
    correlations = np.corrcoef(samples)[~np.eye(5, dtype=bool)]
    assert np.abs(correlations).max() < 4.5 / math.sqrt(N // 5)
    for sample in samples:
        assert follows(sample, scipy.stats.norm())
    # Splitting again gives others; splitting an equal generator gives the same.
    fresh = random.Generator(12)
    assert fresh.split(1)[0].get_state().tolist() != fresh.split(1)[0].get_state().tolist()
    twins = random.Generator(11).split(4)
    for child, twin in zip(children, twins, strict=True):
        assert child.get_state()[0] == twin.get_state()[0]
    random.manual_seed(11)
    assert random.split(4)[2].get_state().tolist() == twins[2].get_state().tolist()
    with pytest.raises(ArgumentError):
        parent.split(0)


def test_states_are_saved_and_put_back() -> None:
    generator = random.Generator(5)
    generator.bits((10,))
    state = generator.get_state()
    assert (state.dtype, state.shape) == (np.uint64, (2,))
    expected = random.normal((7,), generator=generator).tolist()
    generator.set_state(state)
    assert random.normal((7,), generator=generator).tolist() == expected
    other = random.Generator(99)
    other.set_state(state.tolist())
    assert random.normal((7,), generator=other).tolist() == expected
    state[:] = 0  # a state that was handed out is a copy
    assert random.normal((7,), generator=other).tolist() != expected
    with pytest.raises(ArgumentError, match=r"\(3,\)"):
        generator.set_state([1, 2, 3])
    random.manual_seed(1)
    before = random.get_state()
    with random.preserved():
        random.manual_seed(2)
        random.normal((100,))
    np.testing.assert_array_equal(random.get_state(), before)
    random.set_state(before)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.tuples(st.sampled_from(["uniform", "normal", "split"]), st.integers(1, 9))),
)
def test_a_restored_state_goes_on_as_if_nothing_had_happened(seed: int, program: Any) -> None:
    def step(generator: random.Generator, name: str, n: int) -> Any:
        if name == "split":
            return [g.get_state().tolist() for g in generator.split(n)]
        return getattr(random, name)((n,), generator=generator).tolist()

    generator = random.Generator(seed)
    for name, n in program:
        resumed = random.Generator(0)
        resumed.set_state(generator.get_state())
        assert step(resumed, name, n) == step(generator, name, n)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: random.uniform((2,), dtype="int64"), DTypeError, "int64"),
        (lambda: random.uniform((2,), 1.0, 0.0), ArgumentError, "low <= high"),
        (lambda: random.normal((2,), 0.0, -1.0), ArgumentError, "std >= 0"),
        (lambda: random.bernoulli(1.5), ArgumentError, r"\[0, 1\].*1.5"),
        (lambda: random.bernoulli(-0.1, (3,)), ArgumentError, r"\[0, 1\]"),
        (lambda: random.bernoulli(math.nan), ArgumentError, r"\[0, 1\]"),
        (lambda: random.integers(3, 3), ArgumentError, "low < high"),
        (lambda: random.integers(0), ArgumentError, "low < high"),
        (lambda: random.integers(0, 2.5), DTypeError, "whole"),
        (lambda: random.integers(0, 300, dtype="uint8"), ArgumentError, "uint8"),
        (lambda: random.integers(-1, 3, dtype="uint8"), ArgumentError, "uint8"),
        (lambda: random.integers(0, 2**64), ArgumentError, "int64"),
        (lambda: random.integers(3, dtype="float32"), DTypeError, "float32"),
        (lambda: random.permutation(-1), ArgumentError, "-1"),
        (lambda: random.choice(3, (4,), replace=False), ArgumentError, "4 of 3"),
        (lambda: random.choice(3, (2,), replace=False, p=[1, 0, 0]), ArgumentError, "2 of 1"),
        (lambda: random.choice(3, p=[0.5, 0.5]), ArgumentError, "3 weights"),
        (lambda: random.choice(2, p=[-1.0, 2.0]), ArgumentError, "weights"),
        (lambda: random.choice(2, p=[0.0, 0.0]), ArgumentError, "positive sum"),
        (lambda: random.choice(2, p=[math.nan, 1.0]), ArgumentError, "weights"),
        (lambda: random.choice(0), ArgumentError, "low < high"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(call: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_shapes() -> None:
    assert random.uniform().shape == ()
    assert random.uniform(3).shape == (3,)
    assert random.normal((2, 0, 3)).shape == (2, 0, 3)
    assert random.integers(5, shape=[2, 2]).shape == (2, 2)


# --- streams never change silently ----------------------------------------------------------------

STATE = [15250681558983089290, 0]
BITS = [3954217043, 532433283, 1323920469, 3799661312]
UNIFORM = [0.9206628799438477, 0.1239667534828186, 0.30824923515319824]
WIDE = [0.9206628957686334, 0.3082492566457211, 0.2982504443696943]
NORMAL = [-0.6720947027206421, 0.5110986232757568, 2.148577928543091, 0.05899757519364357]
WIDE_NORMAL = [-0.6720948320905777, -0.4522220009197533, 2.148577962801823]
INTEGERS = [11, 136, 992, 612]
PERMUTATION = [7, 2, 1, 6, 4, 3, 5, 0]
COINS = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
CHOICE = [4, 1, 1, 2, 2]
CATEGORICAL = [2, 3, 1, 3, 3, 3]
CHILDREN = [7239365886282178220, 4494440020371011761]


def test_golden_first_values() -> None:
    """A change of any of these changes every run that was ever seeded."""
    g = random.Generator(42)
    assert g.get_state().tolist() == STATE
    assert g.bits((4,)).tolist() == BITS
    np.testing.assert_array_equal(drawn(random.uniform, (3,), seed=42), np.float32(UNIFORM))
    np.testing.assert_array_equal(drawn(random.uniform, (3,), seed=42, dtype="float64"), WIDE)
    np.testing.assert_allclose(drawn(random.normal, (4,), seed=42), NORMAL, rtol=1e-5)
    np.testing.assert_allclose(
        drawn(random.normal, (3,), seed=42, dtype="float64"), WIDE_NORMAL, rtol=1e-13
    )
    assert drawn(random.integers, 1000, shape=(4,), seed=42).tolist() == INTEGERS
    assert drawn(random.permutation, 8, seed=42).tolist() == PERMUTATION
    assert drawn(random.bernoulli, 0.5, (8,), seed=42).tolist() == COINS
    assert drawn(random.choice, 5, (5,), p=[1, 2, 3, 2, 1], seed=42).tolist() == CHOICE
    assert drawn(random.categorical, np.zeros((6, 4)), seed=42).tolist() == CATEGORICAL
    assert [child.get_state().tolist()[0] for child in g.split(2)] == CHILDREN
