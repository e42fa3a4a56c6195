"""Random numbers: counter-based, seeded, splittable.

A generator is a key and a counter. Number i of a stream is Philox4x32-10 (Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", 2011) of the key at counter i // 4, so that any part of a
stream can be computed by itself, in any order and on any number of threads, with the same result.
Everything but the bits is composed of array functions.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import array as xp
from chainrule import dtypes
from chainrule.array._core import as_shape, is_known
from chainrule.errors import ArgumentError, DTypeError
from chainrule.graph import Value, make, program_tracer
from chainrule.graph import state as running
from chainrule.primitives import bits as p
from chainrule.primitives.checks import check
from chainrule.primitives.kernels.philox import fold

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

_MASK = (1 << 64) - 1


class Generator:
    """A stream of random numbers.

    Arguments:
        seed: any integer; equal seeds give equal streams. None takes one from the operating system.

    Attributes:
        state: the key and the counter, a tensor of two uint64 numbers.
    """

    def __init__(self, seed: int | None = None):
        self.manual_seed(int.from_bytes(os.urandom(8), "little") if seed is None else seed)

    @property
    def state(self) -> Tensor:
        if running.tracer is not None and (tracer := program_tracer()) is not None:
            tracer.home(self)
        return self._state

    @state.setter
    def state(self, state: Tensor) -> None:
        if running.tracer is not None and program_tracer() is running.tracer and self._has_state():
            # A compiled function finds the state in one tensor, to which it assigns.
            self._state = running.tracer.home(self)
            if state is not self._state:
                self._state._array = state._array
            return
        self._state = state

    def _has_state(self) -> bool:
        return hasattr(self, "_state")

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of `seed` from its beginning; returns the generator."""
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise DTypeError(f"a seed is an integer, got {seed!r}.")
        self.seed = int(seed)
        # Folding spreads small seeds over all 64 bits of the key and takes in larger ones whole.
        key, rest = 0, self.seed % (1 << 256)
        while True:
            key, rest = fold(key, rest & _MASK), rest >> 64
            if not rest:
                break
        self.state = _make_state(key, 0)
        return self

    def bits(self, shape: Any) -> Tensor:
        """Uniform 32-bit words (uint32); moves the counter on."""
        shape = as_shape(shape)
        if running.tracer is not None:
            running.tracer.stateful(self)
        words = p.random_bits(self.state, shape=shape)
        self.state = p.advance(self.state, blocks=-(-math.prod(shape) // p.BLOCK))
        return words

    def split(self, n: int = 2) -> tuple[Generator, ...]:
        """`n` generators with streams of their own, for parts that must not depend on each other.

        The generator itself moves on, so that splitting again gives others.
        """
        if n < 1:
            raise ArgumentError(f"split into {n} generators; n must be at least 1.")
        key, counter = (int(v) for v in self.state._array)
        base = fold(key, counter)
        self.state = p.advance(self.state, blocks=1)
        children = []
        for i in range(n):
            child = Generator(0)
            child.seed = fold(base, i)
            child.state = _make_state(child.seed, 0)
            children.append(child)
        return tuple(children)

    def get_state(self) -> np.ndarray[Any, Any]:
        """The key and the counter, for checkpoints."""
        return np.array(self.state._array, dtype=np.uint64)

    def set_state(self, state: Any) -> None:
        """Go on from a state that `get_state` gave."""
        values = np.asarray(state, dtype=np.uint64)
        if values.shape != (2,):
            raise ArgumentError(f"a random state is two uint64 numbers, got shape {values.shape}.")
        self.state = make(values.copy())


def _make_state(key: int, counter: int) -> Any:
    return make(np.array([key, counter], dtype=np.uint64))


default_generator = Generator(0)


def manual_seed(seed: int) -> Generator:
    """Seed the generator that everything draws from that is not given one; returns it."""
    return default_generator.manual_seed(seed)


def get_state() -> np.ndarray[Any, Any]:
    """The state of the default generator."""
    return default_generator.get_state()


def set_state(state: Any) -> None:
    """Set the state of the default generator."""
    default_generator.set_state(state)


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Inside, the default generator may be drawn from and seeded; afterwards it is as before."""
    before = get_state()
    try:
        yield
    finally:
        set_state(before)


def split(n: int = 2) -> tuple[Generator, ...]:
    """`n` generators split off the default one."""
    return default_generator.split(n)


def _float_dtype(dtype: Any) -> Any:
    chosen = dtypes.float32 if dtype is None else dtypes.as_dtype(dtype)
    if not dtypes.is_float(chosen):
        raise DTypeError(f"this distribution is real; got dtype {chosen.name}.")
    return chosen


def _unit(shape: Any, dtype: Any, generator: Generator | None) -> Any:
    """Uniform on [0, 1): 24 random bits for float32, 53 for float64."""
    source = generator or default_generator
    shape = as_shape(shape)
    if dtype == dtypes.float32:
        return xp.astype(source.bits(shape) >> 8, dtype) * 2.0**-24
    words = xp.astype(source.bits((*shape, 2)), dtype)
    high, low = xp.floor(words[..., 0] * 2.0**-5), xp.floor(words[..., 1] * 2.0**-6)
    return (high * 2.0**26 + low) * 2.0**-53


def _wide(shape: Any, generator: Generator | None) -> Any:
    """Uniform 64-bit words (uint64), each of two 32-bit ones."""
    words = (generator or default_generator).bits((*shape, 2))
    return (xp.astype(words[..., 0], dtypes.uint64) << 32) | xp.astype(words[..., 1], dtypes.uint64)


def _values(x: Any) -> Any:
    """What NumPy can compare, of a tensor, an array or a number."""
    return x._array if isinstance(x, Value) else x


def _are_known(*values: Any) -> bool:
    """Whether all of them are numbers, or tensors whose numbers are not to come."""
    return all(is_known(x) for x in values if isinstance(x, Value))


def _no_probability(values: np.ndarray[Any, Any]) -> ArgumentError:
    bad = values[~((values >= 0) & (values <= 1))].reshape(-1)[0]
    return ArgumentError(f"a probability is in [0, 1], got {bad}.")


def uniform(
    shape: Any = (), low: Any = 0.0, high: Any = 1.0, *, dtype: Any = None,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Uniform on [low, high). The bounds are numbers, or tensors that broadcast with `shape`."""
    u = _unit(shape, _float_dtype(dtype), generator)
    if isinstance(low, int | float) and isinstance(high, int | float) and (low, high) == (0, 1):
        return u
    if _are_known(low, high) and np.any(_values(high) < _values(low)):
        raise ArgumentError(f"uniform needs low <= high, got {low} and {high}.")
    z = u * (high - low) + low
    return xp.where(z < high, z, low)  # rounding can reach `high`, which is outside


def normal(
    shape: Any = (), mean: Any = 0.0, std: Any = 1.0, *, dtype: Any = None,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Normal, by Box and Muller (1958): sqrt(-2 ln u) cos(2 pi v) and sin, in pairs."""
    if _are_known(std) and np.any(_values(std) < 0):
        raise ArgumentError(f"normal needs std >= 0, got {std}.")
    chosen, shape = _float_dtype(dtype), as_shape(shape)
    n = math.prod(shape)
    half = (n + 1) // 2
    u = 1.0 - _unit((half,), chosen, generator)  # in (0, 1]: the logarithm is finite
    v = _unit((half,), chosen, generator)
    radius, angle = xp.sqrt(-2.0 * xp.log(u)), (2.0 * math.pi) * v
    pairs = xp.concat([radius * xp.cos(angle), radius * xp.sin(angle)])
    return xp.reshape(pairs[:n], shape) * std + mean


def bernoulli(
    p: Any, shape: Any = None, *, dtype: Any = None, generator: Generator | None = None
) -> Tensor:
    """1 with probability p, else 0; of dtype float32 by default. `shape` defaults to that of p."""
    probability = xp.asarray(p)
    check(probability, low=0, high=1, ignore=None, nan=False, refuse=_no_probability)
    wanted = probability.shape if shape is None else as_shape(shape)
    hit = _unit(wanted, dtypes.float32, generator) < probability
    return xp.astype(hit, dtypes.float32 if dtype is None else dtype)


def integers(
    low: int, high: int | None = None, shape: Any = (), *, dtype: Any = None,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Uniform integers in [low, high), or [0, low) if `high` is None; int64 by default.

    From 64 random bits modulo the range: for ranges up to 2^40 the bias is below 2^-24.
    """
    first, end = (0, low) if high is None else (low, high)
    try:
        first, end = operator.index(first), operator.index(end)
    except TypeError:
        raise DTypeError(f"integers needs whole bounds, got {low} and {high}.") from None
    chosen = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    if chosen.kind not in "iu":
        raise DTypeError(f"integers needs an integer dtype, got {chosen.name}.")
    if end <= first:
        raise ArgumentError(f"integers needs low < high, got {first} and {end}.")
    limits = np.iinfo(chosen)
    if first < limits.min or end - 1 > limits.max or end > np.iinfo(np.int64).max:
        raise ArgumentError(f"integers in [{first}, {end}) do not fit into {chosen.name}.")
    drawn = _wide(as_shape(shape), generator) % (end - first)
    return xp.astype(xp.astype(drawn, dtypes.int64) + first, chosen, copy=False)


def exponential(
    shape: Any = (), rate: Any = 1.0, *, dtype: Any = None, generator: Generator | None = None
) -> Tensor:
    """Exponential with density rate e^(-rate x)."""
    return -xp.log(1.0 - _unit(shape, _float_dtype(dtype), generator)) / rate


def permutation(n: int, *, generator: Generator | None = None) -> Tensor:
    """A random order of 0, ..., n - 1: the order of n random 64-bit words."""
    if n < 0:
        raise ArgumentError(f"permutation of {n} numbers; n must be at least 0.")
    return xp.argsort(_wide((n,), generator))


def choice(
    n: int, shape: Any = (), *, replace: bool = True, p: Any = None,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Random indices below n, uniform or with probabilities p; without `replace` no two are equal.

    `p` holds n weights >= 0, whose sum need not be 1.
    """
    shape = as_shape(shape)
    count = math.prod(shape)
    if p is None and replace:
        return integers(n, shape=shape, generator=generator)
    weights = xp.ones((n,)) if p is None else xp.astype(xp.asarray(p).detach(), dtypes.float64)
    if weights.shape != (n,) or not (xp.all(weights >= 0) and 0 < xp.sum(weights) < math.inf):
        raise ArgumentError(f"p must be {n} weights >= 0 with a positive sum, got {p}.")
    possible = int(xp.count_nonzero(weights))
    if not replace and count > possible:
        raise ArgumentError(f"cannot choose {count} of {possible} without replacement.")
    if p is None:
        return xp.reshape(permutation(n, generator=generator)[:count], shape)
    if not replace:
        # Efraimidis and Spirakis (2006): the smallest of Exponential(w) are a weighted sample.
        waiting = exponential((n,), dtype=dtypes.float64, generator=generator) / weights
        waiting = xp.where(weights > 0, waiting, math.inf)
        return xp.reshape(xp.argsort(waiting)[:count], shape)
    edges = xp.cumulative_sum(weights)
    u = _unit(shape, dtypes.float64, generator)
    # The last edge is 1 and u is below it, so that no weight of 0 is ever hit.
    return xp.searchsorted(edges / edges[-1], u, side="right")


def categorical(
    logits: Any, shape: Any = None, *, axis: int = -1, generator: Generator | None = None
) -> Tensor:
    """Indices drawn with probabilities softmax(logits) along `axis`, by the Gumbel-max trick.

    `shape` defaults to that of the logits without `axis`, and must end with it.
    """
    scores = xp.moveaxis(xp.asarray(logits).detach(), axis, -1)
    wanted = scores.shape[:-1] if shape is None else as_shape(shape)
    waiting = exponential((*wanted, scores.shape[-1]), dtype=dtypes.float64, generator=generator)
    return xp.argmax(scores - xp.log(xp.maximum(waiting, 2.0**-54)), axis=-1)
