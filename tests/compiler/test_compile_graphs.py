"""Graphs that go through compiled calls: higher derivatives, tensors assigned with their graph."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import GraphFreedError

backends = pytest.mark.parametrize("backend", ["numpy", "native"])


def normal(*shape, seed=0):
    return cr.asarray(np.random.default_rng(seed).standard_normal(shape))


def derivatives(f, x, order):
    """f and its derivatives, each of the sum of the one before."""
    x = x.detach().requires_grad_()
    found = [f(x).sum()]
    for _ in range(order):
        if not found[-1].requires_grad:
            break
        found += cr.autograd.grad(found[-1].sum(), [x], create_graph=True, allow_unused=True)
        if found[-1] is None:
            break
    return [None if z is None else z.detach().numpy() for z in found]


def without(x):
    with cr.no_grad():
        y = x * x
    return x * y


CUT = {
    "detach": lambda x: x * x.detach() + x**3,
    "detach of a result": lambda x: cr.exp(x) * cr.exp(x).detach(),
    "no_grad": without,
    "a variance that is clipped apart": lambda x: nn.functional.gaussian_nll_loss(
        x, cr.zeros_like(x), cr.abs(x), eps=0.7, reduction="none"
    ),
    "a gradient inside": lambda x: cr.autograd.grad(
        (y := x.detach().requires_grad_()) ** 3, [y], cr.ones_like(y)
    )[0] * x,
    "logsumexp": lambda x: cr.logsumexp(x, axis=0),
}  # fmt: skip


@backends
@pytest.mark.parametrize("name", CUT)
def test_what_was_detached_stays_so_in_higher_derivatives(name, backend):
    f, x = CUT[name], normal(4)
    found = derivatives(cr.compile(f, backend=backend), x, 3), derivatives(f, x, 3)
    assert len(found[0]) == len(found[1])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def stateful(kind):
    cr.manual_seed(0)
    linear = nn.Linear(3, 4)
    layer = {
        "dropout": lambda: nn.Sequential(linear, nn.Tanh(), nn.Dropout(0.5)),
        "batch norm": lambda: nn.Sequential(linear, nn.BatchNorm1d(4), nn.Tanh()),
        "spectral norm": lambda: nn.Sequential(
            nn.utils.parametrizations.spectral_norm(linear), nn.Tanh()
        ),
    }[kind]()
    return layer.double()


@backends
@pytest.mark.parametrize("kind", ["dropout", "batch norm", "spectral norm"])
def test_higher_derivatives_know_the_state_before_the_call(kind, backend):
    found = []
    for compiled in (True, False):
        layer, x = stateful(kind), normal(5, 3).requires_grad_()
        f = cr.compile(layer, backend=backend) if compiled else layer
        results = []
        for _ in range(2):
            inputs = [x, *layer.parameters()]
            first = cr.autograd.grad((f(x) ** 2).sum(), inputs, create_graph=True)
            f(x)  # changes the state again
            second = cr.autograd.grad(sum((g * g).sum() for g in first), inputs, allow_unused=True)
            results += [g for g in (*first, *second) if g is not None]
            results += layer.buffers()
        found.append([z.detach().numpy() for z in results])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@backends
def test_a_state_may_carry_its_graph_into_the_next_call(backend):
    """Truncated backpropagation without a cut, as it is eagerly."""
    found = []
    for compiled in (True, False):
        w, h = cr.asarray(np.array(0.5), requires_grad=True), cr.zeros((), dtype="float64")

        def step(x, w=w, h=h):
            h.copy_(cr.tanh(w * x + h))
            return h * 2

        f = cr.compile(step, backend=backend) if compiled else step
        outputs = [f(cr.asarray(np.array(1.0 + i))) for i in range(4)]
        h.backward(retain_graph=True)
        first = w.grad
        sum(outputs).backward()
        assert h.grad_fn is not None
        found.append([float(z) for z in (h, first, w.grad, *outputs)])
        if compiled:
            assert f.traces == 2  # without a graph behind h, and with one
    np.testing.assert_allclose(*found, rtol=1e-12)


@backends
def test_a_state_may_lose_its_graph(backend):
    for compiled in (True, False):
        w, h = cr.ones(()).requires_grad_(), cr.ones(()) * 1

        def keep(w=w, h=h):
            h.copy_(h * w)

        def lose(h=h):
            h.copy_((h * 2).detach())

        def use(w=w, h=h):
            h.copy_(h * w)
            (h * h).backward()

        keep, lose, use = (
            cr.compile(f, backend=backend) if compiled else f for f in (keep, lose, use)
        )
        keep()
        assert h.requires_grad
        lose()
        assert not h.requires_grad
        use()
        assert float(w.grad) == 8
        with pytest.raises(GraphFreedError):
            h.backward()
        assert float(h) == 2


@backends
def test_layers_that_work_in_place_take_what_was_computed_outside(backend):
    layer = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2), nn.ELU(inplace=True)).double()
    found = []
    for compiled in (True, False):
        model = copy.deepcopy(layer)
        f = cr.compile(model, backend=backend) if compiled else model
        x = normal(4, 3).requires_grad_()
        results = []
        for _ in range(2):
            inside = x * 2
            y = f(inside)
            ((y * y).sum() + (inside * inside).sum()).backward()
            results += [y, inside, x.grad, *[p.grad for p in model.parameters()]]
        found.append([z.detach().numpy() for z in results])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
