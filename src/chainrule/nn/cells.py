"""One step of a recurrent network: the formulas, and the cells that are made of them.

A step takes what the input contributes to the gates, W_ih x + b_ih, for which `nn.RNN`, `nn.LSTM`
and `nn.GRU` need no loop, and the state before.
"""

from __future__ import annotations

import math
from typing import Any

from chainrule import array as xp
from chainrule.array._core import as_float
from chainrule.errors import ShapeError, unknown_name
from chainrule.nn import init
from chainrule.nn.functional.affine import linear
from chainrule.nn.linear import check_sizes, empty_parameter
from chainrule.nn.module import Module

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]

ACTIVATIONS = {"tanh": xp.tanh, "relu": xp.relu}


def rnn_step(activation: Any, x: Any, state: Any, w_hh: Any, b_hh: Any = None) -> Any:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu in the place of tanh."""
    (h,) = state
    return (activation(x + linear(h, w_hh, b_hh)),)


def lstm_step(x: Any, state: Any, w_hh: Any, b_hh: Any = None, w_hr: Any = None) -> Any:
    """c' = f c + i g and h' = o tanh(c'), with the gates i, f, g, o of W_ih x + W_hh h."""
    h, c = state
    i, f, g, o = xp.split(x + linear(h, w_hh, b_hh), 4, axis=-1)
    c = xp.sigmoid(f) * c + xp.sigmoid(i) * xp.tanh(g)
    h = xp.sigmoid(o) * xp.tanh(c)
    return (h if w_hr is None else linear(h, w_hr)), c


def gru_step(x: Any, state: Any, w_hh: Any, b_hh: Any = None) -> Any:
    """h' = (1 - z) n + z h, with n = tanh(W_in x + b_in + r (W_hn h + b_hn))."""
    (h,) = state
    x_r, x_z, x_n = xp.split(x, 3, axis=-1)
    h_r, h_z, h_n = xp.split(linear(h, w_hh, b_hh), 3, axis=-1)
    r, z = xp.sigmoid(x_r + h_r), xp.sigmoid(x_z + h_z)
    n = xp.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * h,)


class RNNCellBase(Module):
    """What the cells share: `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh`, for some gates."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        self.weight_ih = empty_parameter((rows, input_size), dtype, device)
        self.weight_hh = empty_parameter((rows, hidden_size), dtype, device)
        for name in ("bias_ih", "bias_hh"):
            parameter = empty_parameter((rows,), dtype, device) if bias else None
            self.register_parameter(name, parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew: uniform on [-1, 1] / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _advance(self, step: Any, input: Any, state: Any) -> Any:
        """The state after an input (N, input_size) or (input_size,); zeros before it if None."""
        x, name = as_float(input), type(self).__name__
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{name} takes an input (N, {self.input_size}) or ({self.input_size},), got shape "
                f"{x.shape}."
            )
        shape = (*x.shape[:-1], self.hidden_size)
        for h in state:
            if h is not None and as_float(h).shape != shape:
                raise ShapeError(
                    f"{name} takes a state of shape {shape} with an input of shape {x.shape}, got "
                    f"{as_float(h).shape}."
                )
        state = [xp.zeros(shape, dtype=x.dtype) if h is None else as_float(h) for h in state]
        alone = x.ndim == 1
        x = linear(x, self.weight_ih, self.bias_ih)
        if alone:
            x, state = x[None], [h[None] for h in state]
        after = step(x, state, self.weight_hh, self.bias_hh)
        return tuple(h[0] for h in after) if alone else after

    def extra_repr(self) -> str:
        shown = [str(self.input_size), str(self.hidden_size)]
        if self.bias is not True:
            shown.append(f"bias={self.bias}")
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            shown.append(f"nonlinearity={self.nonlinearity}")
        return ", ".join(shown)


class RNNCell(RNNCellBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh).

    Arguments:
        input_size, hidden_size: the lengths of x and of h.
        bias: whether b_ih and b_hh are there.
        nonlinearity: "tanh" or "relu".

    Parameters: `weight_ih` (hidden_size, input_size), `weight_hh` (hidden_size, hidden_size),
    `bias_ih` and `bias_hh` (hidden_size,), initially uniform on [-1, 1] / sqrt(hidden_size).

    Shapes: x (N, input_size) and h (N, hidden_size), or both without N, to h' of the shape of h. A
    state that is not given is 0. Elman (1990).
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        if nonlinearity not in ACTIVATIONS:
            raise unknown_name("nonlinearity", nonlinearity, ACTIVATIONS)
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Any = None) -> Any:
        activation = ACTIVATIONS[self.nonlinearity]
        (h,) = self._advance(lambda *a: rnn_step(activation, *a), input, (hx,))
        return h


class LSTMCell(RNNCellBase):
    """c' = f c + i g and h' = o tanh(c').

    i, f, o = sigmoid(W x + b + U h + d) and g = tanh(W x + b + U h + d), each with its own rows of
    `weight_ih` W, `bias_ih` b, `weight_hh` U and `bias_hh` d, in the order i, f, g, o.

    Arguments:
        input_size, hidden_size: the lengths of x and of h and c.
        bias: whether b and d are there.

    Parameters: `weight_ih` (4 hidden_size, input_size), `weight_hh` (4 hidden_size, hidden_size),
    `bias_ih` and `bias_hh` (4 hidden_size,), initially uniform on [-1, 1] / sqrt(hidden_size).

    Shapes: x (N, input_size) and (h, c), each (N, hidden_size), or all without N, to (h', c').
    Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000).
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        return self._advance(lstm_step, input, (None, None) if hx is None else hx)


class GRUCell(RNNCellBase):
    """h' = (1 - z) n + z h.

    r = sigmoid(W x + b + U h + d) and z likewise, n = tanh(W x + b + r (U h + d)), each with its
    own rows of `weight_ih` W, `bias_ih` b, `weight_hh` U and `bias_hh` d, in the order r, z, n.
    Lectures often write z for 1 - z, and apply r to h before U.

    Arguments:
        input_size, hidden_size: the lengths of x and of h.
        bias: whether b and d are there.

    Parameters: `weight_ih` (3 hidden_size, input_size), `weight_hh` (3 hidden_size, hidden_size),
    `bias_ih` and `bias_hh` (3 hidden_size,), initially uniform on [-1, 1] / sqrt(hidden_size).

    Shapes: x (N, input_size) and h (N, hidden_size), or both without N, to h' of the shape of h.
    Cho et al. (2014).
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Any:
        (h,) = self._advance(gru_step, input, (hx,))
        return h
