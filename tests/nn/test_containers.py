"""Modules that hold modules or parameters."""

import copy
import operator
from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, ArgumentTypeError, IndexingError, ShapeError


def linears(*sizes):
    return [nn.Linear(a, b) for a, b in pairwise(sizes)]


def names(container):
    return [name for name, _ in container.named_children()]


# --- Sequential -----------------------------------------------------------------------------------


def test_sequential_composes():
    a, b, c = linears(2, 3, 4, 5)
    model = nn.Sequential(a, b, c)
    x = cr.random.normal((2, 2))
    np.testing.assert_array_equal(model(x).detach(), c(b(a(x))).detach())
    assert nn.Sequential()(x) is x
    assert len(model) == 3
    assert list(model) == [a, b, c]
    assert b in model
    assert (model[0], model[-1]) == (a, c)
    part = model[1:]
    assert type(part) is nn.Sequential
    assert list(part) == [b, c]
    assert names(part) == ["1", "2"]
    with pytest.raises(IndexingError, match="out of range"):
        model[3]


def test_sequential_of_names():
    a, b = linears(2, 3, 4)
    model = nn.Sequential(OrderedDict(first=a, second=b))
    assert names(model) == ["first", "second"]
    assert model.first is a
    assert model[1] is b
    assert names(model[:1]) == ["first"]
    assert next(iter(model.state_dict())) == "first.weight"


def test_sequential_changes():
    a, b, c, d = linears(2, 3, 4, 5, 6)
    model = nn.Sequential(a)
    assert model.append(c) is model
    model.insert(1, b).extend([d])
    assert list(model) == [a, b, c, d]
    assert names(model) == ["0", "1", "2", "3"]
    model.insert(-1, a)
    assert list(model) == [a, b, c, a, d]
    del model[3]
    del model[-1]
    assert list(model) == [a, b, c]
    assert model.pop(1) is b
    assert names(model) == ["0", "1"]
    model[1] = d
    assert list(model) == [a, d]
    del model[:1]
    assert list(model) == [d]
    assert list(model + nn.Sequential(a)) == [d, a]
    model += nn.Sequential(b)
    assert list(model) == [d, b]
    assert list(model * 2) == list(2 * model) == [d, b, d, b]
    model *= 2
    assert list(model) == [d, b, d, b]
    with pytest.raises(ArgumentError, match="1 time"):
        model * 0
    with pytest.raises(TypeError):
        operator.add(model, [a])
    with pytest.raises(IndexingError, match="insertion"):
        model.insert(9, a)
    for wrong in (lambda: model.append(3), lambda: model.insert(0, 3), lambda: model.extend(3)):
        with pytest.raises(ArgumentTypeError):
            wrong()


def test_sequential_refuses_a_list():
    with pytest.raises(ArgumentTypeError, match=r"Sequential\(\*layers\)"):
        nn.Sequential(linears(2, 3))


# --- ModuleList and ModuleDict --------------------------------------------------------------------


def test_module_list():
    a, b, c = linears(2, 3, 4, 5)
    layers = nn.ModuleList([a, b])
    layers.append(c)
    assert len(layers) == 3
    assert list(layers) == [a, b, c]
    assert layers[-1] is c
    assert type(layers[1:]) is nn.ModuleList
    assert list(layers[1:]) == [b, c]
    layers += [a]
    layers.insert(0, c)
    assert list(layers) == [c, a, b, c, a]
    assert list(operator.add(nn.ModuleList([a]), [b])) == [a, b]
    layers[0] = b
    assert layers.pop() is a
    del layers[0]
    assert list(layers) == [a, b, c]
    assert len(list(layers.parameters())) == 6
    with pytest.raises(NotImplementedError):
        layers(1)
    with pytest.raises(ArgumentTypeError):
        nn.ModuleList(3)
    text = repr(nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Linear(1, 2)]))
    assert text == (
        "ModuleList(\n  (0-1): 2 x ReLU()\n"
        "  (2): Linear(in_features=1, out_features=2, bias=True)\n)"
    )
    assert repr(nn.ModuleList()) == "ModuleList()"


def test_module_dict():
    a, b, c = linears(2, 3, 4, 5)
    layers = nn.ModuleDict({"a": a, "b": b})
    layers["c"] = c
    assert list(layers) == list(layers.keys()) == ["a", "b", "c"]
    assert list(layers.values()) == [a, b, c]
    assert dict(layers.items()) == {"a": a, "b": b, "c": c}
    assert "a" in layers
    assert layers.b is b
    layers.update([("b", c)])
    assert layers["b"] is c
    assert layers.pop("c") is c
    del layers["a"]
    assert len(layers) == 1
    layers.clear()
    assert not list(layers.parameters())
    with pytest.raises(cr.errors.UnknownNameError, match="unknown module 'x'"):
        layers["x"]
    with pytest.raises(ArgumentError, match="already"):
        nn.ModuleDict({"keys": a})
    with pytest.raises(ArgumentError, match="length 1"):
        layers.update([("a",)])
    with pytest.raises(ArgumentTypeError):
        layers.update(3)


# --- ParameterList and ParameterDict --------------------------------------------------------------


def test_parameter_list():
    p, q = nn.Parameter(cr.ones(2)), cr.zeros((2, 3))
    held = nn.ParameterList([p, q])
    assert held[0] is p
    assert type(held[1]) is nn.Parameter
    assert len(held) == 2
    held.append(p)
    held += [cr.ones(1)]
    held.extend([cr.ones(1)])
    assert [name for name, _ in held.named_parameters()] == ["0", "1", "3", "4"]
    assert [p.shape for p in held] == [(2,), (2, 3), (2,), (1,), (1,)]
    assert type(held[1:3]) is nn.ParameterList
    held[0] = cr.zeros(7)
    assert held[0].shape == (7,)
    assert held.pop(1).shape == (2, 3)
    assert [p.shape for p in held] == [(7,), (2,), (1,), (1,)]
    assert list(held.state_dict()) == ["0", "1", "2", "3"]
    assert repr(nn.ParameterList([p])) == (
        "ParameterList((0): Parameter containing: [float32 of size (2,)])"
    )
    assert copy.deepcopy(held)[0].shape == (7,)
    with pytest.raises(IndexingError):
        held[9]
    with pytest.raises(ArgumentTypeError):
        held.extend(3)


def test_parameter_dict():
    p, q = nn.Parameter(cr.ones(2)), cr.zeros((2, 3))
    held = nn.ParameterDict({"p": p})
    held["q"] = q
    assert held["p"] is held.p is p
    assert type(held["q"]) is nn.Parameter
    assert list(held) == list(held.keys()) == ["p", "q"]
    assert [k for k, _ in held.items()] == ["p", "q"]
    assert held.get("r") is None
    assert held.setdefault("r", cr.ones(3)).shape == (3,)
    assert len(held) == 3
    assert len(held | {"s": p}) == 4
    held |= {"s": p}
    assert held.pop("s") is p
    del held["r"]
    assert list(held.state_dict()) == ["p", "q"]
    assert len(held.values()) == 2
    assert "p" in held
    held.clear()
    assert len(held) == 0
    with pytest.raises(cr.errors.UnknownNameError):
        held["p"]
    with pytest.raises(ArgumentError, match="named 'keys'"):
        held["keys"] = p


# --- Residual -------------------------------------------------------------------------------------


def test_residual():
    inner = nn.Linear(3, 3)
    model = nn.Residual(inner)
    x = cr.random.normal((2, 3))
    np.testing.assert_allclose(model(x).detach(), (x + inner(x)).detach())
    shortcut = nn.Linear(3, 3, bias=False)
    model = nn.Residual(inner, shortcut)
    np.testing.assert_allclose(model(x).detach(), (shortcut(x) + inner(x)).detach())
    assert names(model) == ["module", "shortcut"]
    assert list(nn.Residual(inner).state_dict()) == ["module.weight", "module.bias"]
    with pytest.raises(ShapeError, match=r"\(2, 3\) to \(2, 1\).*shortcut="):
        nn.Residual(nn.Linear(3, 1))(x)


def test_gradient_of_a_residual_is_one_and_the_module_s():
    x = cr.asarray([1.0, 2.0], requires_grad=True)
    nn.Residual(nn.ReLU())(x).sum().backward()
    assert x.grad.tolist() == [2, 2]
