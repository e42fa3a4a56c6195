"""Recurrent networks: a cell applied over time by `cr.scan`, in layers and directions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from chainrule import array as xp
from chainrule.array._core import as_float
from chainrule.compiler.control import scan
from chainrule.errors import ArgumentError, ShapeError, unknown_name
from chainrule.nn import functional, init
from chainrule.nn.cells import ACTIVATIONS, gru_step, lstm_step, rnn_step
from chainrule.nn.functional._checks import warn_once
from chainrule.nn.linear import check_sizes, empty_parameter
from chainrule.nn.module import Module
from chainrule.nn.packing import PackedSequence, packed, padded, sequences_in

__all__ = ["GRU", "LSTM", "RNN", "RNNBase"]


class Kind(NamedTuple):
    """A kind of recurrent network.

    Attributes:
        step: its formula, from cells.py.
        gates: how many rows of weights there are for each hidden unit.
        states: how many tensors its state is made of.
        joint: whether b_ih and b_hh are only ever added to each other.
    """

    step: Callable[..., Any]
    gates: int
    states: int
    joint: bool


KINDS = {
    "RNN_TANH": Kind(functools.partial(rnn_step, ACTIVATIONS["tanh"]), 1, 1, True),
    "RNN_RELU": Kind(functools.partial(rnn_step, ACTIVATIONS["relu"]), 1, 1, True),
    "LSTM": Kind(lstm_step, 4, 2, True),
    "GRU": Kind(gru_step, 3, 1, False),
}


class RNNBase(Module):
    """What `RNN`, `LSTM` and `GRU` share: layers, directions, and the shapes of their arguments."""

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        proj_size: int = 0, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        if mode not in KINDS:
            raise unknown_name("mode", mode, KINDS)
        check_sizes(input_size=input_size)
        for name, value in (("hidden_size", hidden_size), ("num_layers", num_layers)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArgumentError(f"{name} is an integer of at least 1, got {value!r}.")
        if isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise ArgumentError(f"dropout is a probability from 0 to 1, got {dropout!r}.")
        if dropout > 0 and num_layers == 1:
            warn_once(
                "rnn dropout",
                f"dropout={dropout} is applied between layers, and there is one layer: it has no "
                "effect. Use num_layers of 2 or more, or nn.Dropout behind the network.",
            )
        if not 0 <= proj_size < hidden_size:
            raise ArgumentError(
                f"proj_size is from 0 (none) to less than hidden_size, {hidden_size}; got "
                f"{proj_size}."
            )
        if proj_size and mode != "LSTM":
            raise ArgumentError(f"proj_size is for LSTM alone; this is {mode}.")
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        for k, suffix in self._sweeps():
            for name, shape in self._shapes(k).items():
                parameter = empty_parameter(shape, dtype, device)
                self.register_parameter(f"{name}_l{k}{suffix}", parameter)
        self.reset_parameters()

    def _sweeps(self) -> list[tuple[int, str]]:
        """(layer, "" or "_reverse") in the order in which states lie."""
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        return [(k, suffix) for k in range(self.num_layers) for suffix in suffixes]

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """The parameters of one sweep over a layer's input."""
        rows = KINDS[self.mode].gates * self.hidden_size
        out = self.proj_size or self.hidden_size
        inputs = self.input_size if layer == 0 else out * (2 if self.bidirectional else 1)
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, out)}
        if self.bias:
            shapes.update(bias_ih=(rows,), bias_hh=(rows,))
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        return shapes

    def reset_parameters(self) -> None:
        """Draw the parameters anew: uniform on [-1, 1] / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: there is no layout to prepare."""

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters of each layer and direction."""
        return [list(self._weights(*sweep).values()) for sweep in self._sweeps()]

    def _weights(self, layer: int, suffix: str) -> dict[str, Any]:
        return {name: getattr(self, f"{name}_l{layer}{suffix}") for name in self._shapes(layer)}

    # --- over time --------------------------------------------------------------------------------

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        x = as_float(input)
        self._check_input(x)
        alone = x.ndim == 2
        state = self._state(x, hx, 1 if alone else x.shape[0 if self.batch_first else 1], alone)
        if alone:
            x = x[:, None]
        elif self.batch_first:
            x = xp.swapaxes(x, 0, 1)
        y, state = self._over_layers(x, state, None)
        if alone:
            return y[:, 0], self._handed_out([s[:, 0] for s in state])
        return xp.swapaxes(y, 0, 1) if self.batch_first else y, self._handed_out(state)

    def _forward_packed(self, input: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """Over sequences of different lengths: each state stands still behind its end."""
        n = sequences_in(input)
        x, there = padded(as_float(input.data), input.batch_sizes, n)
        self._check_input(x)
        state = self._state(x, hx, n, False)
        if input.sorted_indices is not None and hx is not None:
            state = [xp.take(s, input.sorted_indices, axis=1) for s in state]
        y, state = self._over_layers(x, state, there[:, :, None])
        if input.unsorted_indices is not None:
            state = [xp.take(s, input.unsorted_indices, axis=1) for s in state]
        data = packed(y, input.batch_sizes, input.data.shape[0])
        return input._replace(data=data), self._handed_out(state)

    def _over_layers(self, x: Any, state: list[Any], there: Any) -> tuple[Any, list[Any]]:
        """x (T, N, inputs) through all layers; `state` holds tensors (layers, N, units)."""
        directions = 2 if self.bidirectional else 1
        after = []
        for k in range(self.num_layers):
            if k > 0 and self.dropout > 0:
                x = functional.dropout(x, self.dropout, self.training)
            outputs = []
            for d, suffix in enumerate(("", "_reverse")[:directions]):
                start = tuple(s[k * directions + d] for s in state)
                y, last = self._sweep(x, start, there, self._weights(k, suffix), d == 1)
                outputs.append(y)
                after.append(last)
            x = outputs[0] if directions == 1 else xp.concat(outputs, axis=2)
        return x, [xp.stack(parts) for parts in zip(*after, strict=True)]

    def _sweep(
        self, x: Any, state: tuple[Any, ...], there: Any, weights: dict[str, Any], reverse: bool
    ) -> tuple[Any, tuple[Any, ...]]:
        """One layer in one direction: (all h, the last state)."""
        kind = KINDS[self.mode]
        w_hr = {"w_hr": weights["weight_hr"]} if self.proj_size else {}
        b_ih, b_hh = weights.get("bias_ih"), weights.get("bias_hh")
        if kind.joint and b_hh is not None:
            b_ih, b_hh = b_ih + b_hh, None
        # What the inputs contribute takes no loop: one product for all steps.
        projected = functional.linear(x, weights["weight_ih"], b_ih)

        def step(state: Any, now: Any) -> Any:
            x, here = now
            after = kind.step(x, state, weights["weight_hh"], b_hh, **w_hr)
            if here is not None:
                after = tuple(xp.where(here, s, t) for s, t in zip(after, state, strict=True))
            return tuple(after), after[0]

        state, ys = scan(step, state, (projected, there), reverse=reverse)
        return ys, state

    # --- arguments --------------------------------------------------------------------------------

    def _check_input(self, x: Any) -> None:
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "N, T" if self.batch_first else "T, N"
            raise ShapeError(
                f"{type(self).__name__} takes an input ({axes}, {self.input_size}) or, for one "
                f"sequence, (T, {self.input_size}); got shape {x.shape}."
            )

    def _state(self, x: Any, hx: Any, n: int, alone: bool) -> list[Any]:
        """The state before the first step, as tensors (layers times directions, n, units)."""
        count = len(self._sweeps())
        units = [self.proj_size or self.hidden_size, self.hidden_size][: KINDS[self.mode].states]
        if hx is None:
            return [xp.zeros((count, n, m), dtype=x.dtype) for m in units]
        given = [as_float(s) for s in (hx if len(units) > 1 else (hx,))]
        if len(given) != len(units):
            raise ArgumentError(f"{type(self).__name__} takes hx = (h_0, c_0), got {len(given)}.")
        for s, m in zip(given, units, strict=True):
            expected = (count, m) if alone else (count, n, m)
            if s.shape != expected:
                raise ShapeError(
                    f"{type(self).__name__} takes an initial state of shape {expected} with an "
                    f"input of shape {x.shape}, got {s.shape}."
                )
        return [s[:, None] for s in given] if alone else given

    def _handed_out(self, state: list[Any]) -> Any:
        return state[0] if KINDS[self.mode].states == 1 else tuple(state)

    def extra_repr(self) -> str:
        defaults = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0,
            "bidirectional": False,
        }  # fmt: skip
        shown = [f"{k}={getattr(self, k)}" for k, v in defaults.items() if getattr(self, k) != v]
        return ", ".join([str(self.input_size), str(self.hidden_size), *shown])


class RNN(RNNBase):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), over a sequence.

    Arguments:
        input_size, hidden_size: the lengths of x_t and of h_t.
        num_layers: layers stacked; each takes the outputs of the one below.
        nonlinearity: "tanh" or "relu".
        bias: whether b_ih and b_hh are there.
        batch_first: inputs and outputs are (N, T, ...) instead of (T, N, ...); states are not.
        dropout: the probability of dropout on the outputs of each layer but the last, in training.
        bidirectional: a second set of weights goes from the last element to the first, and the two
            outputs stand side by side.

    Parameters, for layer k (with the suffix `_reverse` for the second direction): `weight_ih_lk`
    (hidden_size, inputs), `weight_hh_lk` (hidden_size, hidden_size), `bias_ih_lk` and `bias_hh_lk`
    (hidden_size,), initially uniform on [-1, 1] / sqrt(hidden_size).

    Shapes: input (T, N, input_size), or (T, input_size) for one sequence, or a `PackedSequence`;
    hx, the initial state, (num_layers D, N, hidden_size), where D is 2 if bidirectional and else 1,
    without N for one sequence, 0 if None. Returns the outputs (T, N, D hidden_size) of the last
    layer, and the last states in the shape of hx. Elman (1990).
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        if nonlinearity not in ACTIVATIONS:
            raise unknown_name("nonlinearity", nonlinearity, ACTIVATIONS)
        super().__init__(
            f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias, batch_first,
            dropout, bidirectional, device=device, dtype=dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """c_t = f c_(t-1) + i g and h_t = o tanh(c_t), over a sequence.

    i, f, o = sigmoid(W x_t + b + U h_(t-1) + d) and g = tanh(W x_t + b + U h_(t-1) + d), each with
    its own rows of W, b, U and d, in the order i, f, g, o.

    Arguments:
        input_size, hidden_size: the lengths of x_t and of c_t.
        num_layers: layers stacked; each takes the outputs of the one below.
        bias: whether b and d are there.
        batch_first: inputs and outputs are (N, T, ...) instead of (T, N, ...); states are not.
        dropout: the probability of dropout on the outputs of each layer but the last, in training.
        bidirectional: a second set of weights goes from the last element to the first, and the two
            outputs stand side by side.
        proj_size: if not 0, h_t = R (o tanh(c_t)) has this length.

    Parameters, for layer k (with the suffix `_reverse` for the second direction): `weight_ih_lk` W
    (4 hidden_size, inputs), `weight_hh_lk` U (4 hidden_size, length of h), `bias_ih_lk` b and
    `bias_hh_lk` d (4 hidden_size,), `weight_hr_lk` R (proj_size, hidden_size), initially uniform on
    [-1, 1] / sqrt(hidden_size).

    Shapes: input (T, N, input_size), or (T, input_size) for one sequence, or a `PackedSequence`;
    hx = (h_0, c_0), of shape (num_layers D, N, length of h) and (num_layers D, N, hidden_size),
    where D is 2 if bidirectional and else 1, without N for one sequence, 0 if None. Returns the
    outputs (T, N, D length of h) of the last layer, and the last (h, c) in the shapes of hx.
    Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000); the projection is
    that of Sak et al. (2014).
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        proj_size: int = 0, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, device, dtype,
        )  # fmt: skip


class GRU(RNNBase):
    """h_t = (1 - z) n + z h_(t-1), over a sequence.

    r = sigmoid(W x_t + b + U h_(t-1) + d) and z likewise, n = tanh(W x_t + b + r (U h_(t-1) + d)),
    each with its own rows of W, b, U and d, in the order r, z, n. Lectures often write z for 1 - z,
    and apply r to h before U.

    Arguments:
        input_size, hidden_size: the lengths of x_t and of h_t.
        num_layers: layers stacked; each takes the outputs of the one below.
        bias: whether b and d are there.
        batch_first: inputs and outputs are (N, T, ...) instead of (T, N, ...); states are not.
        dropout: the probability of dropout on the outputs of each layer but the last, in training.
        bidirectional: a second set of weights goes from the last element to the first, and the two
            outputs stand side by side.

    Parameters, for layer k (with the suffix `_reverse` for the second direction): `weight_ih_lk` W
    (3 hidden_size, inputs), `weight_hh_lk` U (3 hidden_size, hidden_size), `bias_ih_lk` b and
    `bias_hh_lk` d (3 hidden_size,), initially uniform on [-1, 1] / sqrt(hidden_size).

    Shapes: input (T, N, input_size), or (T, input_size) for one sequence, or a `PackedSequence`;
    hx, the initial state, (num_layers D, N, hidden_size), where D is 2 if bidirectional and else 1,
    without N for one sequence, 0 if None. Returns the outputs (T, N, D hidden_size) of the last
    layer, and the last states in the shape of hx. Cho et al. (2014).
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype,
        )  # fmt: skip
