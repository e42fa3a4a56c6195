"""detect_anomaly: which operation, of which inputs, on which line, forward and backward."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.autograd import detect_anomaly
from chainrule.errors import NonFiniteError
from chainrule.graph import observe


def here() -> int:
    """The line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_the_first_operation_and_its_inputs_and_line_are_named() -> None:
    x = cr.asarray([4.0, 0.0, -1.0])
    with detect_anomaly(), pytest.raises(NonFiniteError) as caught:
        line = here() + 1
        y = cr.log(x)
        y * 2.0
    message = str(caught.value)
    assert "first NaN was made by log" in message
    assert "ln x" in message
    assert "(3,) from -1 to 4" in message
    assert message.endswith(f"{__file__}:{line}]")


def test_infinities_are_told_from_nan() -> None:
    with detect_anomaly(), pytest.raises(NonFiniteError, match=r"infinity was made by exp.*1000"):
        cr.exp(cr.asarray([1000.0]))


def test_who_was_given_a_nan_is_not_to_blame() -> None:
    x = cr.asarray([np.nan, np.inf, 1.0])
    with detect_anomaly():
        cr.sum(cr.exp(x) - x)


def test_it_looks_inside_only() -> None:
    with detect_anomaly():
        pass
    assert np.isnan(cr.log(cr.asarray(-1.0)).item())


def test_derivatives_are_watched_and_the_forward_line_is_named() -> None:
    x = cr.asarray([0.0, 4.0], requires_grad=True)
    with detect_anomaly():
        line = here() + 1
        y = cr.sqrt(x)
        loss = cr.sum(y)
        with pytest.raises(NonFiniteError) as caught:
            loss.backward()
    message = str(caught.value)
    assert f"in the derivative of sqrt, applied at {__file__}:{line}" in message
    assert "infinity was made by div" in message
    assert re.search(rf"{re.escape(__file__)}:{line + 3}\]$", message)


def test_derivatives_of_graphs_that_were_made_outside() -> None:
    x = cr.asarray([0.0], requires_grad=True)
    loss = cr.sum(cr.sqrt(x))
    with detect_anomaly(), pytest.raises(NonFiniteError, match="in the derivative of sqrt: "):
        loss.backward()


def test_gradients_as_they_add_up_are_watched() -> None:
    x = cr.asarray([1e38], requires_grad=True)
    y = 3.0 * x + 3.0 * x
    with detect_anomaly(), pytest.raises(NonFiniteError, match="made by add"):
        y.backward(cr.asarray([1e38]))


def test_operations_of_many_inputs() -> None:
    with detect_anomaly(), pytest.raises(NonFiniteError, match=r"x float32 .*; y float32"):
        cr.asarray([1.0]) / cr.asarray([0.0])


def test_observers_see_forward_and_gradient_operations() -> None:
    seen: list[str] = []

    def note(primitive: Any, inputs: Any, outputs: Any, params: Any) -> None:
        seen.append(primitive.name)
        assert isinstance(outputs, tuple)

    x = cr.asarray([1.0, 2.0], requires_grad=True)
    with observe(note):
        y = cr.sum(cr.sin(x))
        assert seen == ["sin", "sum"]
        y.backward()
    assert seen == ["sin", "sum", "reshape", "broadcast_to", "cos", "mul"]
    cr.exp(x)
    assert len(seen) == 6


def test_observers_nest() -> None:
    first: list[str] = []
    second: list[str] = []
    with observe(lambda p, *_: first.append(p.name)):
        cr.exp(cr.asarray(1.0))
        with observe(lambda p, *_: second.append(p.name)):
            cr.sin(cr.asarray(1.0))
        cr.cos(cr.asarray(1.0))
    assert first == ["exp", "sin", "cos"]
    assert second == ["sin"]
