"""Small two-dimensional problems to look at: points (n, 2) float32 and their classes (n,) int64.

All are made from a seed, with the classes as equal in size as can be and the points in random
order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.data.dataset import TensorDataset
from chainrule.data.draws import check_seed, random_order
from chainrule.data.samplers import check_count
from chainrule.errors import ArgumentError


def _sizes(n: int, parts: int) -> list[int]:
    return [n // parts + (part < n % parts) for part in range(parts)]


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=check_seed(seed)))


def _dataset(
    name: str, points: list[np.ndarray], classes: list[int], noise: float, seed: int
) -> TensorDataset:
    """The points of each part, with normal noise added, shuffled."""
    if not 0 <= noise < np.inf:
        raise ArgumentError(f"noise is a standard deviation, so not negative, but got {noise!r}.")
    x = np.concatenate(points)
    x = x + noise * _generator(seed).standard_normal(x.shape)
    y = np.repeat(np.array(classes, np.int64), [len(part) for part in points])
    order = random_order(check_seed(seed), 1, len(x))
    count = max(classes) + 1
    return TensorDataset(
        x[order].astype(np.float32), y[order],
        name=name, classes=[str(c) for c in range(count)], task="classification",
    )  # fmt: skip


def xor(n: int = 200, noise: float = 0.1, seed: int = 0) -> TensorDataset:
    """Exclusive or: noisy points about (0, 0), (0, 1), (1, 0), (1, 1); class 1 where the corners
    differ.

    With n=4 and noise=0 this is the truth table.

    Arguments:
        n: the number of points.
        noise: the standard deviation about the corners.
        seed: which points.
    """
    corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
    sizes = _sizes(check_count("n", n), 4)
    points = [np.tile(np.array(c, float), (s, 1)) for c, s in zip(corners, sizes, strict=True)]
    return _dataset("xor", points, [a ^ b for a, b in corners], noise, seed)


def circles(n: int = 200, noise: float = 0.05, seed: int = 0, factor: float = 0.5) -> TensorDataset:
    """Two circles about the origin: class 0 of radius 1, class 1 of radius `factor`.

    Arguments as `xor`; `factor` lies between 0 and 1.
    """
    if not 0 <= factor < 1:
        raise ArgumentError(f"factor must be at least 0 and less than 1, but is {factor!r}.")
    outer, inner = _sizes(check_count("n", n), 2)
    points = []
    for size, radius in ((outer, 1.0), (inner, factor)):
        angle = np.linspace(0, 2 * np.pi, size, endpoint=False)
        points.append(radius * np.stack([np.cos(angle), np.sin(angle)], 1))
    return _dataset("circles", points, [0, 1], noise, seed)


def moons(n: int = 200, noise: float = 0.1, seed: int = 0) -> TensorDataset:
    """Two half circles that reach into each other: (cos t, sin t) and (1 - cos t, 1/2 - sin t).

    Arguments as `xor`; t goes from 0 to pi.
    """
    upper, lower = (np.linspace(0, np.pi, size) for size in _sizes(check_count("n", n), 2))
    points = [
        np.stack([np.cos(upper), np.sin(upper)], 1),
        np.stack([1 - np.cos(lower), 0.5 - np.sin(lower)], 1),
    ]
    return _dataset("moons", points, [0, 1], noise, seed)


def spirals(
    n: int = 300, noise: float = 0.02, seed: int = 0, classes: int = 2, turns: float = 1.5
) -> TensorDataset:
    """Interleaved spirals, one a class: radius r from 0.1 to 1, angle 2 pi (turns r + class /
    classes).

    Arguments as `xor`; `classes` is the number of arms, `turns` how often each goes round.
    """
    points = []
    for arm, size in enumerate(_sizes(check_count("n", n), check_count("classes", classes))):
        radius = np.linspace(0.1, 1, size)
        angle = 2 * np.pi * (turns * radius + arm / classes)
        points.append(radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1))
    return _dataset("spirals", points, list(range(classes)), noise, seed)


def blobs(n: int = 300, noise: float = 0.5, seed: int = 0, centers: Any = 3) -> TensorDataset:
    """Gaussian blobs, one a class.

    Arguments as `xor`; `centers` is how many, spread evenly over a circle of radius 2 from (2, 0)
    on, or an array (k, 2) of their places; `noise` is the standard deviation of each blob.
    """
    if isinstance(centers, (int, np.integer)):
        angle = 2 * np.pi * np.arange(check_count("centers", centers)) / centers
        places = 2 * np.stack([np.cos(angle), np.sin(angle)], 1)
    else:
        places = np.asarray(centers, np.float64)
        if places.ndim != 2 or places.shape[1] != 2 or not len(places):
            raise ArgumentError(
                f"centers must be a number or places of shape (k, 2), but has shape {places.shape}."
            )
    sizes = _sizes(check_count("n", n), len(places))
    points = [np.tile(place, (size, 1)) for place, size in zip(places, sizes, strict=True)]
    return _dataset("blobs", points, list(range(len(places))), noise, seed)
