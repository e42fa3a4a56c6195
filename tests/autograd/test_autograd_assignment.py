"""Assignment is a value's change: it is differentiable, and it cannot spoil a recorded gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.errors import GradError, ShapeError


def leaf(*values: float) -> cr.Tensor:
    return cr.asarray(np.array(values, np.float64), requires_grad=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.__setitem__(0, 100.0),
        lambda x: x.__setitem__(slice(None), 100.0),
        lambda x: x.__iadd__(100.0),
        lambda x: x.__imul__(100.0),
        lambda x: x.copy_(cr.asarray([7.0, 8.0, 9.0])),
        lambda x: x.fill_(5.0),
        lambda x: x.zero_(),
    ],
)
def test_a_recorded_gradient_outlives_every_assignment(change: Any) -> None:
    w = leaf(1.0, 2.0, 3.0)
    x = w * 1.0
    y = x * x  # saved: x
    z = cr.exp(x)  # saved: z itself
    before = z.detach()
    change(x)
    change(z)
    cr.sum(y).backward(retain_graph=True)
    assert w.grad.tolist() == [2.0, 4.0, 6.0]
    assert y.tolist() == [1.0, 4.0, 9.0]
    u = w * 1.0
    v = cr.exp(u)
    kept = v * 1.0
    change(v)
    w.grad = None
    cr.sum(kept).backward()
    np.testing.assert_array_equal(w.grad.numpy(), before.numpy())


def test_gradient_at_the_value_that_a_leaf_had() -> None:
    w = leaf(1.0, 2.0)
    y = cr.sum(w * w)
    with cr.no_grad():
        w.copy_(cr.asarray([50.0, 60.0]))
    y.backward()
    assert w.grad.tolist() == [2.0, 4.0]
    assert w.tolist() == [50.0, 60.0]
    assert w.is_leaf
    assert w.requires_grad
    w.grad = None
    cr.sum(w * w).backward()
    assert w.grad.tolist() == [100.0, 120.0]


def test_leaves_are_assigned_under_no_grad_alone() -> None:
    w = leaf(1.0, 2.0)
    for change in (
        lambda: w.__setitem__(0, 1.0),
        lambda: w.__iadd__(1.0),
        lambda: w.copy_(w),
        w.zero_,
    ):
        with pytest.raises(GradError, match="no_grad"):
            change()
    with cr.no_grad():
        w[0] = 5.0
        w += 1.0
        w *= 2.0
    assert w.tolist() == [12.0, 6.0]
    assert w.is_leaf


def test_under_no_grad_only_the_value_changes() -> None:
    """As in PyTorch: the graph behind a computed tensor stays, whatever its value becomes."""
    w = leaf(1.0, 2.0)
    h = 3 * w
    with cr.no_grad():
        h += 100.0
    assert h.tolist() == [103.0, 106.0]
    assert h.requires_grad
    cr.sum(h * h).backward()
    assert w.grad.tolist() == [2 * 103.0 * 3, 2 * 106.0 * 3]


def test_assigned_elements_differentiate_through_old_and_new_value() -> None:
    w, v = leaf(1.0, 2.0, 3.0), leaf(10.0)
    x = w * w
    x[1] = v * v
    c = cr.asarray(np.array([1.0, 10.0, 100.0]))
    cr.sum(c * x).backward()
    assert w.grad.tolist() == [2.0, 0.0, 600.0]
    assert v.grad.tolist() == [200.0]


def test_assigned_slices_broadcast_their_value() -> None:
    w, v = leaf(*range(6)), leaf(1.0)
    x = (w * 2.0).reshape(2, 3)
    x[:, ::2] = v
    c = cr.asarray(np.arange(6.0).reshape(2, 3))
    cr.sum(c * x).backward()
    assert w.grad.tolist() == [0.0, 2.0, 0.0, 0.0, 8.0, 0.0]
    assert v.grad.tolist() == [0.0 + 2.0 + 3.0 + 5.0]


def test_of_a_key_named_twice_the_last_value_stands_and_has_the_gradient() -> None:
    w, v = leaf(0.0, 0.0, 0.0), leaf(1.0, 2.0, 3.0, 4.0)
    x = w * 1.0
    x[cr.asarray([2, 0, 2, 2])] = v
    assert x.tolist() == [2.0, 0.0, 4.0]
    cr.sum(x * cr.asarray(np.array([1.0, 10.0, 100.0]))).backward()
    assert w.grad.tolist() == [0.0, 10.0, 0.0]
    assert v.grad.tolist() == [0.0, 1.0, 0.0, 100.0]


def test_in_place_arithmetic_is_arithmetic() -> None:
    w = leaf(2.0)
    x = w * 1.0
    x += w
    x *= x
    x -= 1.0
    x /= 2.0
    x **= 2  # ((4 w^2 - 1) / 2)^2 with w = 2
    assert x.item() == 7.5**2
    x.backward()
    assert w.grad.tolist() == [2 * 7.5 * 4 * 2.0]


def test_in_place_arithmetic_keeps_the_shape() -> None:
    x = cr.asarray([1.0, 2.0])
    with pytest.raises(ShapeError):
        x += cr.zeros((3, 2))


def test_a_constant_that_is_assigned_a_tracked_value_is_tracked() -> None:
    w = leaf(3.0)
    x = cr.zeros((2,), dtype=cr.float64)
    x[0] = w[0] * w[0]
    assert x.requires_grad
    x[1] = 1.0
    cr.sum(x).backward()
    assert w.grad.tolist() == [6.0]


def test_copy_takes_gradients_to_its_source() -> None:
    w, x = leaf(3.0), leaf(1.0) * 2.0
    x.copy_(w * w)
    x.backward()
    assert w.grad.tolist() == [6.0]


def test_loops_that_fill_a_tensor() -> None:
    w = leaf(0.5)
    x = cr.zeros((5,), dtype=cr.float64)
    x[0] = 1.0
    for i in range(1, 5):
        x[i] = x[i - 1] * w[0]
    cr.sum(x).backward()  # 1 + w + w^2 + w^3 + w^4
    assert w.grad.tolist() == [1 + 2 * 0.5 + 3 * 0.25 + 4 * 0.125]


def test_clone_is_a_value_of_its_own() -> None:
    w = leaf(1.0, 2.0)
    x = w.clone()
    x[0] = 9.0
    cr.sum(x * x).backward()
    assert w.tolist() == [1.0, 2.0]
    assert w.grad.tolist() == [0.0, 4.0]


def test_same_object_under_another_name() -> None:
    """Functions that have nothing to do give a value of its own, not the object that they got."""
    for same in (
        lambda t: t[:],
        lambda t: t.reshape(t.shape),
        lambda t: cr.permute_dims(t, (0,)),
        lambda t: +t,
        lambda t: t**1,
        lambda t: cr.broadcast_to(t, t.shape),
        lambda t: cr.flatten(t),
        lambda t: t.detach(),
    ):
        x = leaf(1.0, 2.0) * 1.0
        y = same(x)
        y[0] = 100.0
        assert x.tolist() == [1.0, 2.0]


KEYS = st.sampled_from(
    [0, -1, slice(None), slice(1, None), slice(None, None, -1), slice(0, 4, 2), [0, 2], [1, 1, 3],
     [True, False, True, False]]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(KEYS, st.sampled_from(["set", "add", "mul"])), min_size=1, max_size=5))
def test_programs_of_assignments_have_the_derivatives_of_their_arithmetic(program: Any) -> None:
    """Central differences see only the values; the graph must say the same."""

    def run(w: Any) -> Any:
        x = w * w
        for step, (key, action) in enumerate(program):
            key = cr.asarray(key) if isinstance(key, list) else key
            if action == "set":
                x[key] = w[step % 4] * 0.5
            elif action == "add":
                x[key] += w[key]
            else:
                x *= w
        return x

    w = cr.asarray(np.array([0.5, -1.25, 2.0, 0.75]), requires_grad=True)
    assert cr.autograd.gradcheck(run, w, atol=1e-7, rtol=1e-6)
