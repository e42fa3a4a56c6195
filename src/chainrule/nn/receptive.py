"""Receptive fields: how far into the input an element sees, followed through the primitives.

For each spatial axis of the input an element of a layer sees `size` neighbouring positions, and the
next element starts `jump` positions further on. A window of k elements, d apart, moved by s, over
elements of (size, jump) gives (size + (k - 1) d jump, s jump). Where paths meet, the wider counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

Axes = tuple[tuple[Fraction, Fraction], ...]  # (size, jump) for each spatial axis
ALL, UNKNOWN = "all", "?"
Field = Axes | str


class ReceptiveFields:
    """Follows the fields of all values; `follow` is an observer of `graph.observe`.

    Arguments:
        inputs: the model's inputs; those of shape (batch, channels, spatial ...) have fields.
    """

    def __init__(self, inputs: Sequence[Any]):
        self._fields: dict[int, Field] = {}
        self._alive: list[Any] = []  # so that no id is used twice
        images = [x for x in inputs if x.ndim >= 3]
        self.spatial: tuple[int, ...] = images[0].shape[2:] if images else ()
        self.batch = images[0].shape[0] if images else 0
        for x in images:
            if x.shape[2:] == self.spatial:
                self._put(x, tuple((Fraction(1), Fraction(1)) for _ in self.spatial))

    def _put(self, x: Any, field: Field) -> None:
        self._fields[id(x._array)] = field
        self._alive.append(x._array)

    def of(self, x: Any) -> Field | None:
        """The field of a value; None if it does not depend on an input with one."""
        return self._fields.get(id(x._array))

    def text(self, x: Any) -> str:
        """The field in a few characters: 5x5, all, ? (it cannot be told), or nothing."""
        field = self.of(x)
        if field is None or isinstance(field, str):
            return field or ""
        sizes = [min(int(size), n) for (size, _), n in zip(field, self.spatial, strict=True)]
        return ALL if tuple(sizes) == self.spatial else "x".join(map(str, sizes))

    def follow(self, primitive: Any, inputs: Any, outputs: Any, params: dict[str, Any]) -> None:
        """Give the outputs of an application their fields."""
        if not self.spatial:
            return
        field = self._after(primitive.name, inputs, outputs, params)
        if field is not None:
            for z in outputs if isinstance(outputs, tuple) else (outputs,):
                self._put(z, field)

    def _after(self, name: str, inputs: Any, outputs: Any, params: dict[str, Any]) -> Field | None:
        fields = [self.of(x) for x in inputs]
        known = [f for f in fields if f is not None]
        if not known:
            return None
        if ALL in known:
            return ALL
        first = fields[0]
        if name in ("conv", "conv_input"):
            if first is None or isinstance(first, str) or fields[1] is not None:
                return UNKNOWN
            kernel = inputs[1].shape[2:]
            step = _convolved if name == "conv" else _transposed
            return step(first, kernel, params["stride"], params["dilation"])
        if name in ("window_sum", "window_argmax"):
            if first is None or isinstance(first, str):
                return UNKNOWN
            return _convolved(first, params["kernel"], params["stride"], params["dilation"])
        if name in ("gather", "window_take"):
            # Pooling gathers what an index of its own points at; other gathers mix positions.
            return fields[1] if fields[1] is not None else UNKNOWN
        if name == "matmul":
            flattened = inputs[0].ndim == 2 and inputs[0].shape[0] == self.batch
            return ALL if flattened else UNKNOWN
        if name in ("sum", "max", "min"):
            whole = inputs[0].ndim == 2 + len(self.spatial)
            return _widest(known) if whole and max(params["axes"], default=0) < 2 else ALL
        moved = name in ("reshape", "permute", "broadcast_to", "slice", "pad", "concat", "copy")
        if moved or all(x.shape == outputs[0].shape for x in inputs):
            return _widest(known)
        return UNKNOWN


def _convolved(field: Axes, kernel: Any, stride: Any, dilation: Any) -> Axes:
    return tuple(
        (size + (k - 1) * d * jump, jump * s)
        for (size, jump), k, s, d in zip(field, kernel, stride, dilation, strict=True)
    )


def _transposed(field: Axes, kernel: Any, stride: Any, dilation: Any) -> Axes:
    """An output of a transposed convolution is met by ceil(((k - 1) d + 1) / s) inputs at most."""
    return tuple(
        (size + (-(-((k - 1) * d + 1) // s) - 1) * jump, jump / s)
        for (size, jump), k, s, d in zip(field, kernel, stride, dilation, strict=True)
    )


def _widest(fields: Sequence[Field]) -> Field:
    if UNKNOWN in fields:
        return UNKNOWN
    axes: list[Axes] = [f for f in fields if not isinstance(f, str)]
    return tuple(max(choices) for choices in zip(*axes, strict=True))
