"""The error function and its inverse.

Every piece is a rational function P/Q, minimax in relative error (Remez exchange in 50-digit
arithmetic), with coefficients listed from the constant upward. The division into a centre and tails
follows W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23
(1969), and M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution",
Appl. Statist. 37 (1988). Measured against 40-digit values: erf within 3 units in the last place
in float64 and 4 in float32, erfinv within 5 in both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CHUNK = 8192  # elements at a time, so that the work arrays stay in the first-level caches


class Ratio(NamedTuple):
    """P(t) / Q(t); coefficients from the constant upward."""

    p: tuple[float, ...]
    q: tuple[float, ...]

    def __call__(self, t: np.ndarray) -> np.ndarray:
        value = _polynomial(self.p, t)
        value /= _polynomial(self.q, t)
        return value


def _polynomial(coefficients: tuple[float, ...], t: np.ndarray) -> np.ndarray:
    """Horner's rule, in place and in the dtype of t."""
    *rest, last = (t.dtype.type(c) for c in coefficients)
    value = t * last
    value += rest.pop()
    while rest:
        value *= t
        value += rest.pop()
    return value


# erf(x) / x for |x| <= 1 in x^2, and exp(x^2) erfc(x) for x from 1 to where erf rounds to 1.
ERF_CENTRE = {
    np.dtype(np.float32): Ratio(
        (1.12837917, 0.113561697, 0.0336090842),
        (1.0, 0.433974771, 0.0744434746, 0.00522688115),
    ),
    np.dtype(np.float64): Ratio(
        (1.1283791670955126, 0.14214929066519996, 0.04530390483290443, 0.0018272941097567407,
         0.00019495598899569035),
        (1.0, 0.45930986215484354, 0.09325282767602804, 0.010582210726721851,
         0.0006812155245309325, 2.029739930643767e-05),
    ),
}  # fmt: skip
ERF_TAIL = {
    np.dtype(np.float32): Ratio(
        (0.999503167, 1.09910695, 0.54698477, 0.128120759),
        (1.0, 2.22433516, 2.06643138, 0.969084202, 0.227104836),
    ),
    np.dtype(np.float64): Ratio(
        (0.9999999756753725, 1.8570301625561771, 1.7008973551738693, 0.9655104192185203,
         0.3635867714027941, 0.09093837429746385, 0.014142551981801038,
         0.0010911245408056556, 4.3773703156934535e-13),
        (1.0, 2.9854090859127407, 4.069571953721941, 3.3243706241534365, 1.790956110057799,
         0.6569735782223982, 0.162151100387967, 0.02506701870864784, 0.001933967951506263),
    ),
}  # fmt: skip
ERF_END = {np.dtype(np.float32): 4.0, np.dtype(np.float64): 6.0}

# erfinv(x) / x for |x| <= 3/4 in u = 9/16 - x^2.
INVERSE_SPLIT = 0.75
INVERSE_CENTRE = {
    np.dtype(np.float32): Ratio(
        (1.08455979, 2.79059599, 1.61128332, 0.119185083),
        (1.0, 3.09176928, 2.47017018, 0.413148249),
    ),
    np.dtype(np.float64): Ratio(
        (1.0845597967968246, 6.545563001275295, 14.642389381591563, 14.96508612700129,
         6.935042508813897, 1.2313311357498968, 0.04626125141574419, -0.0005118714396815042),
        (1.0, 6.553973631717183, 16.281267919342294, 19.122091730537512, 10.786808178005323,
         2.616050280817021, 0.19336588186820738),
    ),
}  # fmt: skip
# erfinv(x) for |x| > 3/4 in r - start, r = sqrt(-log(1 - |x|)), as (start, ratio) by rising start.
INVERSE_TAILS = {
    np.dtype(np.float32): (
        (1.125, Ratio(
            (0.760632387, 2.03696307, 1.95671152, 0.775238506, 0.0959955169),
            (1.0, 1.35922906, 0.671287896, 0.0958505935, 3.57731897e-06),
        )),
    ),
    np.dtype(np.float64): (
        (1.125, Ratio(
            (0.7606323869674759, 2.887042652058224, 4.575102573858044, 3.893711954804146,
             1.8855647281923067, 0.4993758918321542, 0.06229401050079649,
             0.0025608161028197038),
            (1.0, 2.4768249621736196, 2.639835573481806, 1.4781896926055877,
             0.43829727470993624, 0.059444579955701266, 0.002560534098084444,
             -2.215763750404966e-09),
        )),
        (2.5, Ratio(
            (2.192545921811913, 4.601787295964287, 4.075533155215334, 1.9681529101409967,
             0.5581498779067214, 0.09303611652831324, 0.008600713072542471,
             0.00038262238564693116, 5.782918146549164e-06),
            (1.0, 1.6213132109508355, 1.0867246541381579, 0.38282588867940603,
             0.07451411093341946, 0.0076961970986944165, 0.0003681921913270482,
             5.78281099049156e-06),
        )),
    ),
}  # fmt: skip


def erf(x: np.ndarray) -> np.ndarray:
    """erf(x) = 2 / sqrt(pi) * integral of exp(-t^2) from 0 to x, for float32 and float64."""
    return _by_chunks(_erf, x)


def erfinv(x: np.ndarray) -> np.ndarray:
    """The y with erf(y) = x: infinite at -1 and 1, NaN outside."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _by_chunks(_erfinv, x)


def _by_chunks(function, x: np.ndarray) -> np.ndarray:
    y = np.empty(x.shape, x.dtype)
    source, target = x.reshape(-1), y.reshape(-1)
    for start in range(0, source.size, CHUNK):
        target[start : start + CHUNK] = function(source[start : start + CHUNK])
    return y


def _erf(x: np.ndarray) -> np.ndarray:
    one, end = x.dtype.type(1), x.dtype.type(ERF_END[x.dtype])
    size = np.abs(x)
    near = np.minimum(size, one)
    value = ERF_CENTRE[x.dtype](near * near)
    value *= near
    far = np.clip(size, one, end)
    tail = ERF_TAIL[x.dtype](far)
    tail *= np.exp(-far * far)
    np.subtract(one, tail, out=tail)
    np.copyto(value, tail, where=size > one)
    return np.copysign(value, x, out=value)


def _erfinv(x: np.ndarray) -> np.ndarray:
    one = x.dtype.type(1)
    y = INVERSE_CENTRE[x.dtype](x.dtype.type(INVERSE_SPLIT**2) - x * x)
    y *= x
    tail = np.flatnonzero(~(np.abs(x) <= INVERSE_SPLIT))
    at = x[tail]
    r = np.sqrt(-np.log(one - np.abs(at)))
    (start, ratio), *further = INVERSE_TAILS[x.dtype]
    value = ratio(r - x.dtype.type(start))
    for start, ratio in further:
        far = np.flatnonzero(r > start)
        value[far] = ratio(r[far] - x.dtype.type(start))
    value[r == np.inf] = np.inf
    y[tail] = np.copysign(value, at)
    return y
