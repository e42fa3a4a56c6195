"""Derive the polynomials of chainrule.primitives.scalar: python tools/fit_polynomials.py [NAME ...]

Each is the minimax polynomial in relative error (or under the weight given) by Remez's exchange in
60-digit arithmetic: E. Ya. Remez, "Sur la determination des polynomes d'approximation de degre
donnee", Comm. Soc. Math. Kharkov 10 (1934). Prints coefficients from the constant upward, rounded
to the precision that they are used in, and the largest error before rounding. Needs mpmath.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from mpmath import asin, atan, cos, erf, erfc, exp, log, lu_solve, matrix, mp, mpf, pi, sin, sqrt

mp.dps = 60
Real = Any


class Fit(NamedTuple):
    """p(x) of a degree close to f(x) on [low, high]: |p - f| weight is as small as can be."""

    f: Callable[[Real], Real]
    low: Real
    high: Real
    degree: int
    dtype: str
    weight: Callable[[Real], Real]


def remez(fit: Fit) -> tuple[list[Real], Real]:
    """Coefficients from the constant upward, and the largest weighted error."""
    n = fit.degree + 2
    low, high = mpf(fit.low), mpf(fit.high)
    middle, half = (low + high) / 2, (high - low) / 2
    nodes = [middle - half * cos(pi * i / (n - 1)) for i in range(n)]
    grid = [middle - half * cos(pi * i / mpf(60 * n)) for i in range(60 * n + 1)]
    wanted = [fit.f(x) for x in grid]
    weights = [fit.weight(x) for x in grid]
    coefficients, worst = [], mpf(0)
    for _ in range(20):
        system, right = matrix(n, n), matrix(n, 1)
        for i, x in enumerate(nodes):
            for j in range(n - 1):
                system[i, j] = x**j
            system[i, n - 1] = (-1) ** i / fit.weight(x)
            right[i] = fit.f(x)
        solution = lu_solve(system, right)
        coefficients = [solution[j] for j in range(n - 1)]
        errors = [
            (horner(coefficients, x) - y) * w for x, y, w in zip(grid, wanted, weights, strict=True)
        ]
        nodes, extrema = alternation(grid, errors, n)
        worst = max(abs(e) for e in errors)
        if worst < abs(solution[n - 1]) * mpf("1.001") or len(extrema) < n:
            break
    return coefficients, worst


def alternation(grid: list[Real], errors: list[Real], n: int) -> tuple[list[Real], list[Real]]:
    """The n places in a row where the error is largest with changing signs."""
    places: list[int] = []
    for i, e in enumerate(errors):
        if places and (errors[places[-1]] > 0) == (e > 0):
            if abs(e) > abs(errors[places[-1]]):
                places[-1] = i
        else:
            places.append(i)
    while len(places) > n:
        places.pop(0 if abs(errors[places[0]]) < abs(errors[places[-1]]) else -1)
    return [grid[i] for i in places], [errors[i] for i in places]


def horner(coefficients: list[Real], x: Real) -> Real:
    value = mpf(0)
    for c in reversed(coefficients):
        value = value * x + c
    return value


def near(f: Callable[[Real], Real], at: Real) -> Callable[[Real], Real]:
    """f, continued into x = 0 by its limit there."""
    return lambda x: f(x) if abs(x) > mpf(10) ** -25 else mpf(at)


def one(x: Real) -> Real:
    return mpf(1)


def odd(f: Callable[[Real], Real], at: Real) -> Callable[[Real], Real]:
    """(f(x) - x) / x^3 of an odd function, in z = x^2."""
    return near(lambda z: (f(sqrt(z)) / sqrt(z) - 1) / z, at)


def relative(x: Real) -> Real:
    """What matters of a term that is multiplied by x, beside 1."""
    return abs(x) + mpf(1) / 1000


def _log_series(z: Real) -> Real:
    s = sqrt(z)
    return (log((1 + s) / (1 - s)) - 2 * s) / (s * z)


_log5 = near(lambda z: (_log_series(z) - mpf(2) / 3) / z, mpf(2) / 5)
_exp = near(lambda x: (exp(x) - 1 - x) / x**2, mpf(1) / 2)
_log = near(lambda x: (log(1 + x) - x + x**2 / 2) / x**3, mpf(1) / 3)
_cos = near(lambda z: (cos(sqrt(z)) - 1 + z / 2) / z**2, mpf(1) / 24)
_erf = near(lambda z: erf(sqrt(z)) / sqrt(z), 2 / sqrt(pi))

R_EXP = log(2) / 2 * mpf("1.0001")
Z_LOG = ((sqrt(2) - 1) / (sqrt(2) + 1) * mpf("1.0001")) ** 2
Z_SIN = (pi / 4 * mpf("1.0001")) ** 2
Z_ATAN = (sqrt(2) - 1) ** 2 * mpf("1.001")

FITS = {
    # e^r = 1 + r + r^2 p(r)
    "exp float32": Fit(_exp, -R_EXP, R_EXP, 5, "float32", lambda x: x**2 + mpf(1) / 1000),
    "exp float64": Fit(_exp, -R_EXP, R_EXP, 9, "float64", lambda x: x**2 + mpf(1) / 1000),
    # ln(1 + t) = t - t^2 / 2 + t^3 p(t)
    "log float32": Fit(_log, sqrt(mpf(1) / 2) - 1, sqrt(2) - 1, 8, "float32", lambda x: x**2),
    # ln((1 + s) / (1 - s)) = 2 s + s^3 p(s^2)
    "log float64": Fit(near(_log_series, mpf(2) / 3), 0, Z_LOG, 6, "float64", relative),
    # the same as 2 s + 2/3 s^3 + s^5 p(s^2), for powers
    "pow float64": Fit(_log5, 0, Z_LOG, 7, "float64", lambda z: relative(z) ** 2),
    # sin r = r + r^3 p(r^2), cos r = 1 - r^2 / 2 + r^4 p(r^2)
    "sin float32": Fit(odd(sin, -mpf(1) / 6), 0, Z_SIN, 2, "float32", relative),
    "sin float64": Fit(odd(sin, -mpf(1) / 6), 0, Z_SIN, 5, "float64", relative),
    "cos float32": Fit(_cos, 0, Z_SIN, 2, "float32", lambda z: relative(z) ** 2),
    "cos float64": Fit(_cos, 0, Z_SIN, 5, "float64", lambda z: relative(z) ** 2),
    # atan t = t + t^3 p(t^2), asin x = x + x^3 p(x^2)
    "atan float64": Fit(odd(atan, -mpf(1) / 3), 0, Z_ATAN, 10, "float64", relative),
    "asin float64": Fit(odd(asin, mpf(1) / 6), 0, mpf(1) / 4, 12, "float64", relative),
    # erf x = x p(x^2) up to 1, and 1 - e^-p(x) from there on
    "erf float32": Fit(_erf, 0, 1, 6, "float32", one),
    "erfc float32": Fit(lambda x: -log(erfc(x)), 1, 4, 7, "float32", erfc),
}


def main(names: list[str]) -> None:
    for name in names or FITS:
        fit = FITS[name]
        coefficients, error = remez(fit)
        number = np.dtype(fit.dtype).type
        digits = {"float32": 9, "float64": 17}[fit.dtype]
        printed = ", ".join(f"{float(number(float(c))):.{digits}g}" for c in coefficients)
        print(f"{name}: error {mp.nstr(error, 3)} = 2^{mp.nstr(log(error, 2), 4)}\n  ({printed})")


if __name__ == "__main__":
    main(sys.argv[1:])
