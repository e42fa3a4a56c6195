"""Clipping of gradients."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ArgumentError, NonFiniteError


def params_with(*gradients):
    made = []
    for g in gradients:
        p = cr.zeros(np.shape(g), dtype="float64", requires_grad=True)
        p.grad = None if g is None else cr.asarray(np.asarray(g, dtype="float64"))
        made.append(p)
    return made


def gradients(params):
    return np.concatenate([p.grad.numpy().ravel() for p in params if p.grad is not None])


RNG = np.random.default_rng(0)
GRADS = [RNG.normal(size=(3, 2)) * 10, RNG.normal(size=4), np.array(2.0)]
FLAT = np.concatenate([g.ravel() for g in GRADS])


@pytest.mark.parametrize("p", [1, 2.0, 3.5, 0.5, math.inf, -math.inf, 0])
def test_norm_of_all_gradients_together(p):
    # Norms of norms are norms of the whole, except for 0 and -inf where both count parts as well.
    parts = [np.linalg.norm(g.ravel(), p) for g in GRADS]
    expected = np.linalg.norm(parts, p)
    if p not in (0, -math.inf):
        assert expected == pytest.approx(np.linalg.norm(FLAT, p), rel=1e-12)
    assert optim.get_total_norm([cr.asarray(g) for g in GRADS], p).item() == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("p", [1, 2.0, math.inf])
@pytest.mark.parametrize("bound", [0.1, 1.0, 1e3])
def test_clip_by_norm(p, bound):
    params = [*params_with(*GRADS), cr.zeros(3, requires_grad=True)]
    norm = np.linalg.norm(FLAT, p)
    total = optim.clip_grad_norm_(params, bound, p)
    assert total.item() == pytest.approx(norm, rel=1e-12)
    factor = min(1, bound / (norm + 1e-6))
    np.testing.assert_allclose(gradients(params), FLAT * factor, rtol=1e-12)
    assert params[-1].grad is None


def test_clipping_replaces_and_does_not_write():
    (p,) = params_with([3.0, 4.0])
    held = p.grad
    optim.clip_grad_norm_(p, 1.0)
    assert held.tolist() == [3.0, 4.0]
    assert p.grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-6)


def test_clip_by_value():
    params = params_with([-5.0, 0.3, 5.0], [[0.5, -0.5]])
    assert optim.clip_grad_value_(iter(params), 0.5) is None
    assert gradients(params).tolist() == [-0.5, 0.3, 0.5, 0.5, -0.5]
    with pytest.raises(ArgumentError, match="clip_value >= 0"):
        optim.clip_grad_value_(params, -1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_rescaling_always_gives_the_norm(values, norm):
    params = params_with(np.array(values), np.array([1.0]))
    before = np.linalg.norm([*values, 1.0])
    assert optim.rescale_grad_norm_(params, norm).item() == pytest.approx(before, rel=1e-12)
    np.testing.assert_allclose(
        gradients(params), np.array([*values, 1.0]) * norm / before, rtol=1e-11, atol=1e-300
    )
    assert np.linalg.norm(gradients(params)) == pytest.approx(norm, rel=1e-11)


def test_rescaling_leaves_zeros():
    params = params_with([0.0, 0.0])
    optim.rescale_grad_norm_(params, 5.0)
    assert gradients(params).tolist() == [0.0, 0.0]


def test_dtypes_stay():
    p, q = cr.zeros(2, requires_grad=True), cr.zeros(2, dtype="float64", requires_grad=True)
    p.grad, q.grad = cr.asarray([3.0, 0.0]), cr.asarray(np.array([0.0, 4.0]))
    assert optim.clip_grad_norm_([p, q], 1.0).item() == pytest.approx(5.0)
    assert (p.grad.dtype, q.grad.dtype) == (cr.float32, cr.float64)
    optim.clip_grad_value_([p, q], 0.1)
    assert (p.grad.dtype, q.grad.dtype) == (cr.float32, cr.float64)
    assert q.grad.tolist() == [0.0, 0.1]


def test_nothing_to_clip():
    assert optim.clip_grad_norm_([], 1.0).item() == 0.0
    assert optim.clip_grad_norm_([cr.zeros(2, requires_grad=True)], 1.0).item() == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_that_are_not_finite(bad):
    params = params_with([1.0, bad])
    with pytest.raises(NonFiniteError, match="cannot be clipped"):
        optim.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert params[0].grad[0].item() == 1.0
    optim.clip_grad_norm_(params, 1.0)


def test_names_in_nn_utils():
    assert nn.utils.clip_grad_norm_ is optim.clip_grad_norm_
    assert nn.utils.clip_grad_value_ is optim.clip_grad_value_
