"""Line search to the strong Wolfe conditions.

Nocedal and Wright, "Numerical Optimization", algorithms 3.5 and 3.6, with cubic interpolation and
the safeguards of Schmidt's minFunc (2005), as PyTorch has them: along phi(t) = L(p + t d), find a t
with

    phi(t) <= phi(0) + c1 t phi'(0)        the loss falls enough
    |phi'(t)| <= -c2 phi'(0)               the slope has flattened enough
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Point(NamedTuple):
    """A point on the line: its place, the loss, the gradient, and the slope along the line."""

    t: float
    loss: float
    gradient: Any
    slope: float


def strong_wolfe(
    evaluate: Callable[[float], Point],
    start: Point,
    t: float,
    largest: float,
    tolerance: float,
    *,
    c1: float = 1e-4,
    c2: float = 0.9,
    max_steps: int = 25,
) -> tuple[Point, int]:
    """Find a point that fulfils the strong Wolfe conditions.

    Arguments:
        evaluate: the point at t.
        start: the point at 0, whose slope is negative.
        t: the first step to try.
        largest: the largest component of the direction.
        tolerance: stop when the bracket moves no parameter by more.
        max_steps: stop after as many steps with the lowest point found.

    Returns:
        The point, and how often `evaluate` was called.
    """
    search = _Search(evaluate, start, c1, c2, max_steps)
    low, high = search.bracket(t)
    return search.zoom(low, high, largest, tolerance), search.steps + 1


class _Search:
    def __init__(
        self, evaluate: Callable[[float], Point], start: Point, c1: float, c2: float, max_steps: int
    ):
        self.evaluate, self.start, self.max_steps = evaluate, start, max_steps
        self.c1, self.c2 = c1, c2
        self.steps = 0

    def too_high(self, point: Point) -> bool:
        return point.loss > self.start.loss + self.c1 * point.t * self.start.slope

    def flat(self, point: Point) -> bool:
        return abs(point.slope) <= -self.c2 * self.start.slope

    def bracket(self, t: float) -> tuple[Point, Point]:
        """Step out until a minimum must lie between two points; one twice if it will do itself."""
        before, point = self.start, self.evaluate(t)
        while self.steps < self.max_steps:
            if self.too_high(point) or (self.steps > 1 and point.loss >= before.loss):
                return before, point
            if self.flat(point):
                return point, point
            if point.slope >= 0:
                return before, point
            nearest, farthest = point.t + 0.01 * (point.t - before.t), point.t * 10
            before, point = point, self.evaluate(_cubic(before, point, nearest, farthest))
            self.steps += 1
        return self.start, point

    def zoom(self, first: Point, second: Point, largest: float, tolerance: float) -> Point:
        """Shrink the bracket until its lowest point will do."""
        ends, stuck = [first, second], False
        low = 0 if first.loss <= second.loss else 1
        done = first is second
        while not done and self.steps < self.max_steps:
            if abs(ends[1].t - ends[0].t) * largest < tolerance:
                break
            t, stuck = _inside(ends[0], ends[1], stuck)
            point = self.evaluate(t)
            self.steps += 1
            if self.too_high(point) or point.loss >= ends[low].loss:
                ends[1 - low] = point
                low = 0 if ends[0].loss <= ends[1].loss else 1
                continue
            done = self.flat(point)
            if not done and point.slope * (ends[1 - low].t - ends[low].t) >= 0:
                ends[1 - low] = ends[low]
            ends[low] = point
        return ends[low]


def _inside(a: Point, b: Point, stuck: bool) -> tuple[float, bool]:
    """The next point to try, and whether it is so near an end that the bracket may stop shrinking.

    At an end, or near one twice in a row, a tenth of the bracket is stepped inwards instead.
    """
    left, right = min(a.t, b.t), max(a.t, b.t)
    t = _cubic(a, b, left, right)
    margin = 0.1 * (right - left)
    if min(right - t, t - left) >= margin:
        return t, False
    if not stuck and left < t < right:
        return t, True
    return (right - margin if abs(t - right) < abs(t - left) else left + margin), False


def _cubic(a: Point, b: Point, lowest: float, highest: float) -> float:
    """The minimum of the cubic with the losses and slopes of a and b, within bounds."""
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (lowest + highest) / 2
    left, right = (a, b) if a.t <= b.t else (b, a)
    d2 = math.sqrt(square)
    above, below = right.slope + d2 - d1, right.slope - left.slope + 2 * d2
    share = above / below if below else math.copysign(math.inf, above)  # a straight line
    return min(max(right.t - (right.t - left.t) * share, lowest), highest)
