"""Where values lie: one arena for all that is temporary, planned before the program runs.

A value lives from the step that writes it to the last step that reads it. Two values may share
memory if their lives do not meet. Within a step kernels run side by side, so a value that is last
read in a step and one that is first written there meet, unless one kernel does both and may write
over what it reads: then the two lie in exactly the same place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from chainrule.compiler.ir import Value

ALIGNMENT = 64


@dataclass
class Life:
    """One piece of memory: a value, and those written over it in its place.

    Attributes:
        values: the values, in the order in which they lie there.
        nbytes: what they take.
        first, last: the steps in which the first is written and the last is read for the last time.
    """

    values: list[Value]
    nbytes: int
    first: int
    last: int


@dataclass
class Arena:
    """The plan: where each value lies, and how much memory that takes.

    Attributes:
        offsets: bytes from the beginning, multiples of 64.
        nbytes: the size of the arena.
        needed: bytes alive at once in the fullest step: no plan can take less.
        lives: what was planned.
        zones: (offset, bytes) of the red zones, if there are any.
    """

    offsets: dict[Value, int]
    nbytes: int
    needed: int
    lives: Sequence[Life]
    zones: list[tuple[int, int]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"arena of {self.nbytes} bytes; {self.needed} alive at once at the fullest"]
        for life in sorted(self.lives, key=lambda x: (x.first, self.offsets[x.values[0]])):
            start = self.offsets[life.values[0]]
            names = " then ".join(map(repr, life.values))
            place, steps = f"{start:>10} .. {start + life.nbytes:<10}", f"{life.first}-{life.last}"
            lines.append(f"  {place} steps {steps}  {names}")
        return "\n".join(lines)


def share(lives: Iterable[Life], over: Iterable[tuple[Value, Value]]) -> list[Life]:
    """Merge the lives of values that are written over others.

    Arguments:
        over: pairs (old, new): `new` may be written where `old` lies. A pair is used if the old
            value dies in the step that writes the new one, takes as much memory, and has not been
            written over already.
    """
    lives = list(lives)
    home = {value: life for life in lives for value in life.values}
    for old, new in over:
        one, other = home[old], home[new]
        if one is other or one.values[-1] is not old or other.values[0] is not new:
            continue
        if one.last != other.first or one.nbytes != other.nbytes:
            continue
        one.values += other.values
        one.last = other.last
        home.update(dict.fromkeys(other.values, one))
        lives.remove(other)
    return lives


def rounded(nbytes: int) -> int:
    """Up to a multiple of the alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def place(lives: Iterable[Life], start: int = 0, redzone: int = 0) -> Arena:
    """Give each life an offset.

    Large ones first, each into the smallest gap between those placed before it that are alive at
    the same time (Pisarchyk and Lee, "Efficient memory management for deep neural net inference",
    2020: greedy by size).

    Arguments:
        start: bytes at the beginning that are taken.
        redzone: with red zones of that many bytes around each nothing else shares memory, so that
            whatever is written into a zone was written outside of its buffer.
    """
    lives = list(lives)
    if redzone:
        return _place_apart(lives, start, redzone)
    offsets: dict[Value, int] = {}
    placed: list[tuple[int, int, Life]] = []  # offset, end
    end = start
    for life in sorted(lives, key=lambda x: (-rounded(x.nbytes), x.first)):
        taken = sorted((a, b) for a, b, other in placed if _meet(life, other))
        best, best_gap, free = None, 0, start
        for a, b in taken:
            gap = a - free
            if gap >= life.nbytes and (best is None or gap < best_gap):
                best, best_gap = free, gap
            free = max(free, b)
        offset = free if best is None else best
        size = rounded(life.nbytes)
        placed.append((offset, offset + size, life))
        offsets.update(dict.fromkeys(life.values, offset))
        end = max(end, offset + size)
    return Arena(offsets, end, start + _needed(lives), lives)


def _meet(x: Life, y: Life) -> bool:
    """Whether two lives have a step in common."""
    return x.first <= y.last and y.first <= x.last


def _needed(lives: Sequence[Life]) -> int:
    changes: dict[int, int] = {}
    for life in lives:
        changes[life.first] = changes.get(life.first, 0) + rounded(life.nbytes)
        changes[life.last + 1] = changes.get(life.last + 1, 0) - rounded(life.nbytes)
    alive = most = 0
    for _, change in sorted(changes.items()):
        alive += change
        most = max(most, alive)
    return most


def _place_apart(lives: Sequence[Life], start: int, redzone: int) -> Arena:
    offsets: dict[Value, int] = {}
    zones = []
    end = start
    for life in lives:
        zones.append((end, redzone))
        offset = end + redzone
        offsets.update(dict.fromkeys(life.values, offset))
        end = offset + rounded(life.nbytes)
        # The bytes up to the alignment belong to the zone behind the value.
        zones.append((offset + life.nbytes, end - offset - life.nbytes))
    zones.append((end, redzone))
    return Arena(offsets, end + redzone, start + _needed(lives), lives, zones)
