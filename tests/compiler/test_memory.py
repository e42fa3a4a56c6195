"""Values that are alive at the same time never share memory."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.compiler.ir import Value
from chainrule.compiler.memory import ALIGNMENT, Life, place, rounded, share
from chainrule.graph import Spec


def value(nbytes: int) -> Value:
    return Value(Spec((nbytes,), np.dtype("uint8")))


def life(nbytes: int, first: int, last: int) -> Life:
    return Life([value(nbytes)], nbytes, first, last)


LIVES = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 12), st.integers(0, 5)), max_size=30
).map(lambda drawn: [life(n, first, first + length) for n, first, length in drawn])


def apart(x: Life, y: Life, offsets) -> bool:
    a, b = offsets[x.values[0]], offsets[y.values[0]]
    return a + x.nbytes <= b or b + y.nbytes <= a


@settings(deadline=None, max_examples=200)
@given(lives=LIVES, start=st.sampled_from((0, 64)))
def test_lives_that_meet_lie_apart(lives, start):
    arena = place(lives, start)
    for one in lives:
        offset = arena.offsets[one.values[0]]
        assert offset % ALIGNMENT == 0 and offset >= start
        assert offset + one.nbytes <= arena.nbytes or not one.nbytes
    for x, y in itertools.combinations(lives, 2):
        if x.first <= y.last and y.first <= x.last:
            assert apart(x, y, arena.offsets), f"{x} {y}\n{arena}"
    assert arena.nbytes >= arena.needed or not lives
    assert arena.nbytes <= start + sum(rounded(x.nbytes) for x in lives)


@settings(deadline=None, max_examples=50)
@given(lives=LIVES)
def test_with_red_zones_all_lie_apart_and_zones_are_nobodys(lives):
    arena = place(lives, 64, redzone=128)
    for x, y in itertools.combinations(lives, 2):
        assert apart(x, y, arena.offsets)
    for start, length in arena.zones:
        for one in lives:
            offset = arena.offsets[one.values[0]]
            assert start + length <= offset or offset + one.nbytes <= start
    for one in lives:  # 128 bytes of zone on either side of each
        offset = arena.offsets[one.values[0]]
        covered = [False] * (arena.nbytes + 1)
        for start, length in arena.zones:
            covered[start : start + length] = [True] * length
        assert all(covered[offset - 128 : offset])
        assert all(covered[offset + one.nbytes : offset + one.nbytes + 128])


def test_a_chain_takes_two_places():
    """Of a -> b -> c -> d only two neighbours are alive at once."""
    arena = place([life(1000, i, i + 1) for i in range(4)])
    assert arena.nbytes == arena.needed == 2 * rounded(1000)


def test_a_small_value_takes_the_smallest_gap_that_fits():
    big, gap, small = life(640, 0, 9), life(128, 0, 2), life(128, 4, 9)
    last = life(64, 0, 9)
    arena = place([big, gap, last, small])
    assert arena.offsets[small.values[0]] == arena.offsets[gap.values[0]]
    assert arena.nbytes == 640 + 128 + 64


def test_a_value_written_over_another_takes_its_place():
    x, y, z = life(256, 0, 3), life(256, 3, 5), life(256, 5, 6)
    merged = share([x, y, z], [(x.values[0], y.values[0]), (y.values[0], z.values[0])])
    assert len(merged) == 1 and merged[0].first == 0 and merged[0].last == 6
    arena = place(merged)
    assert len(set(arena.offsets.values())) == 1 and arena.nbytes == 256


def test_what_is_read_later_or_is_of_another_size_is_not_written_over():
    x, y = life(256, 0, 4), life(256, 3, 5)
    assert len(share([x, y], [(x.values[0], y.values[0])])) == 2
    x, y = life(256, 0, 3), life(128, 3, 5)
    assert len(share([x, y], [(x.values[0], y.values[0])])) == 2
    # Two may write over one value; the second of them finds it taken.
    x, y, z = life(256, 0, 3), life(256, 3, 5), life(256, 3, 6)
    pairs = [(x.values[0], y.values[0]), (x.values[0], z.values[0])]
    assert len(share([x, y, z], pairs)) == 2


def test_the_plan_prints_its_peak():
    text = str(place([life(1000, 0, 1), life(1000, 1, 2)], 64))
    assert "arena of 2112 bytes" in text and "2112 alive at once" in text and "steps 0-1" in text
