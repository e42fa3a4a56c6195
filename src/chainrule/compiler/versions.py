"""The versions of a compiled function that are kept, and which of them go."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from chainrule.compiler.state import Version

OFTEN = 8
"""Eager calls with one signature after which a version for it takes the place of another."""
REMEMBERED = 64
"""Signatures without a version whose calls are counted."""


class Versions:
    """At most so many versions, by what of a call they are for.

    When there are as many as there may be, other calls run eagerly, so that a shape that changes at
    every call costs no compilation. One that comes again and again takes the place of the version
    that was not used for longest; each time this happens it takes twice as many calls.

    Attributes:
        hits: how many calls have found their version here.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.hits = 0
        self._kept: dict[Any, list[Version]] = {}
        self._eager: OrderedDict[Any, int] = OrderedDict()
        self._often = OFTEN
        self._clock = itertools.count(1)
        self._used: dict[int, tuple[int, int]] = {}  # when, and how many usual calls there were

    def __iter__(self) -> Iterator[Version]:
        """All, the one that was used last first in its kind."""
        return itertools.chain.from_iterable(self._kept.values())

    def __len__(self) -> int:
        return len(self._used)

    def find(self, key: Any, leaves: Sequence[Any]) -> Version | None:
        """The version for a call."""
        versions = self._kept.get(key, ())
        for i, version in enumerate(versions):
            if version.holds(leaves):
                if i:
                    versions.insert(0, versions.pop(i))  # type: ignore[union-attr]
                self.hits += 1
                self._note(version)
                return version
        return None

    def add(self, version: Version) -> None:
        """Keep one more."""
        self._note_usual_calls()
        self._kept.setdefault(version.key, []).insert(0, version)
        self._note(version)

    def calls(self) -> int:
        """How many calls have found a version, as far as they were not too many to be counted."""
        return self.hits + sum(version.usual.calls() for version in self if version.usual)

    def make_room(self, key: Any) -> bool:
        """Whether a version for this call may be compiled; another one may have gone for it."""
        if len(self) < self.limit:
            return True
        self._note_usual_calls()
        seen = self._eager.pop(key, 0) + 1
        if seen <= self._often or not self._used:
            self._eager[key] = seen
            while len(self._eager) > REMEMBERED:
                self._eager.popitem(last=False)
            return False
        self._often *= 2
        self._drop(min(self, key=lambda version: self._used[id(version)]))
        return True

    def _note(self, version: Version) -> None:
        self._used[id(version)] = next(self._clock), version.usual.calls() if version.usual else 0

    def _note_usual_calls(self) -> None:
        """Note which versions have been used by calls that did not come here."""
        for version in self:
            if version.usual is not None and version.usual.calls() != self._used[id(version)][1]:
                self._note(version)

    def _drop(self, version: Version) -> None:
        versions = self._kept[version.key]
        versions.remove(version)
        if not versions:
            del self._kept[version.key]
        del self._used[id(version)]
