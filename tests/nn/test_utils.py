"""nn.utils: folding batch norm, and parameters as one vector."""

import copy

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.nn import utils
from chainrule.nn.utils import parametrizations, parametrize


def trained(norm):
    """A batch norm with random averages and parameters, in evaluation."""
    generator = np.random.default_rng(0)
    with cr.no_grad():
        for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
            tensor.copy_(np.abs(generator.standard_normal(tensor.shape)) + 0.1)
    return norm.eval()


CONVOLUTIONS = [
    (nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), (2, 2, 7)),
    (nn.Conv2d(2, 4, 3, groups=2, padding="same", bias=False), nn.BatchNorm2d(4), (2, 2, 5, 6)),
    (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False), (2, 2, 5, 6)),
    (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3, eps=0.1), (1, 2, 3, 3, 3)),
    (nn.ConvTranspose2d(2, 3, 3, stride=2), nn.BatchNorm2d(3), (2, 2, 4, 3)),
]


@pytest.mark.parametrize(("conv", "norm", "shape"), CONVOLUTIONS)
def test_folding_into_a_convolution(conv, norm, shape):
    conv, norm = conv.double().eval(), trained(norm.double())
    transpose = isinstance(conv, nn.ConvTranspose2d)
    fused = utils.fuse_conv_bn_eval(conv, norm, transpose)
    assert type(fused) is type(conv)
    assert fused is not conv
    x = cr.asarray(np.random.default_rng(1).standard_normal(shape))
    np.testing.assert_allclose(fused(x).detach(), norm(conv(x)).detach(), rtol=1e-12, atol=1e-12)
    assert fused.weight.requires_grad
    assert fused.bias is not None


@pytest.mark.parametrize("bias", [True, False])
def test_folding_into_a_linear_layer(bias):
    linear, norm = nn.Linear(5, 4, bias=bias).eval(), trained(nn.BatchNorm1d(4))
    x = cr.random.normal((6, 5))
    fused = utils.fuse_linear_bn_eval(linear, norm)
    assert fused.weight.dtype == cr.float32
    np.testing.assert_allclose(fused(x).detach(), norm(linear(x)).detach(), rtol=1e-5, atol=1e-6)


def test_what_does_not_fold():
    linear, norm = nn.Linear(5, 4), nn.BatchNorm1d(4)
    with pytest.raises(cr.errors.ArgumentError, match=r"eval\(\)"):
        utils.fuse_linear_bn_eval(linear, norm)
    linear.eval(), norm.eval()
    with pytest.raises(cr.errors.ShapeError, match="3 features"):
        utils.fuse_linear_bn_eval(linear, nn.BatchNorm1d(3).eval())
    with pytest.raises(cr.errors.ArgumentError, match="running averages"):
        utils.fuse_linear_bn_eval(linear, nn.BatchNorm1d(4, track_running_stats=False).eval())


def test_parameters_as_a_vector():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    vector = utils.parameters_to_vector(model.parameters())
    assert vector.shape == (11,)
    np.testing.assert_array_equal(vector[:6].detach(), model[0].weight.detach().reshape(-1))
    (vector * cr.arange(11.0)).sum().backward()
    assert model[1].bias.grad.tolist() == [10]
    utils.vector_to_parameters(cr.arange(11.0), model.parameters())
    assert model[0].bias.tolist() == [6, 7]
    assert model[0].bias.requires_grad
    np.testing.assert_array_equal(
        utils.parameters_to_vector(model.parameters()).detach(), np.arange(11)
    )
    for wrong in (cr.arange(10.0), cr.arange(12.0), cr.ones((11, 1))):
        with pytest.raises(cr.errors.ShapeError, match="11 parameters"):
            utils.vector_to_parameters(wrong, model.parameters())
    assert model[0].bias.tolist() == [6, 7]
    with pytest.raises(cr.errors.ArgumentTypeError):
        utils.vector_to_parameters([1.0], model.parameters())
    with pytest.raises(cr.errors.ArgumentError):
        utils.parameters_to_vector([])


# --- a module as a function -----------------------------------------------------------------------


def test_functional_call():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    held = dict(model.named_parameters())
    values = {name: p.detach() * 2 for name, p in held.items()}
    x = cr.random.normal((4, 3))
    expected = np.asarray(x) @ np.asarray(values["0.weight"]).T + np.asarray(values["0.bias"])
    weight = {"0.weight": values["0.weight"], "0.bias": values["0.bias"]}
    np.testing.assert_allclose(
        utils.functional_call(model[:1], weight, x).detach(), expected, rtol=1e-5
    )
    mean = cr.zeros((2,))
    utils.functional_call(model, {"1.running_mean": mean}, (x,))
    assert mean.any()
    assert not model[1].running_mean.any()
    assert all(dict(model.named_parameters())[name] is p for name, p in held.items())
    with pytest.raises(cr.errors.UnknownNameError, match=r"0\.weight"):
        utils.functional_call(model, {"0.wieght": mean}, x)
    with pytest.raises(cr.errors.ShapeError):
        utils.functional_call(model, {"0.weight": cr.ones((2, 9))}, x)
    assert model[0].weight is held["0.weight"]


def test_hessian_by_the_parameters_of_a_model():
    model = nn.Linear(2, 1, bias=False, dtype=cr.float64)
    x = cr.asarray([[1.0, 2.0], [3.0, 5.0]], dtype=cr.float64)

    def loss(weight):
        return utils.functional_call(model, {"weight": weight}, x).square().sum()

    hessian = np.asarray(cr.hessian(loss)(model.weight.detach())).reshape(2, 2)
    np.testing.assert_allclose(hessian, 2 * np.asarray(x).T @ np.asarray(x), rtol=1e-12)


def test_tied_parameters_are_replaced_together():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    doubled = utils.functional_call(model, {"1.weight": 2 * cr.eye(2)}, cr.ones((1, 2)))
    assert doubled.tolist() == [[4, 4]]


# --- parametrised weights -------------------------------------------------------------------------


class Symmetric(nn.Module):
    def forward(self, x):
        return cr.triu(x) + cr.triu(x, k=1).T

    def right_inverse(self, x):
        return cr.triu(x)


def test_a_parametrised_weight():
    layer = nn.Linear(3, 3, dtype=cr.float64)
    original = layer.weight
    assert not parametrize.is_parametrized(layer)
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    w = np.asarray(layer.weight.detach())
    np.testing.assert_array_equal(w, w.T)
    assert list(layer.state_dict()) == ["bias", "parametrizations.weight.original"]
    assert layer.parametrizations.weight.original is original
    layer(cr.ones((1, 3), dtype=cr.float64)).sum().backward()
    assert (np.asarray(original.grad) == np.array([[1, 2, 2], [0, 1, 2], [0, 0, 1]])).all()
    layer.weight = cr.ones((3, 3), dtype=cr.float64)
    assert original.tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert layer.weight.tolist() == [[1, 1, 1]] * 3
    twin = copy.deepcopy(layer)
    assert twin.weight.tolist() == [[1, 1, 1]] * 3
    assert twin.parametrizations.weight.original is not original
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer.weight) is nn.Parameter
    assert layer.weight.tolist() == [[1, 1, 1]] * 3
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    parametrize.remove_parametrizations(twin, "weight", leave_parametrized=False)
    assert twin.weight.tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]


def test_several_parametrisations_follow_each_other():
    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

        def right_inverse(self, x):
            return x / 2

    layer = nn.Linear(2, 2)
    before = np.array(layer.weight.detach())
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.register_parametrization(layer, "weight", Doubled())
    np.testing.assert_array_equal(layer.weight.detach(), before)
    np.testing.assert_array_equal(layer.parametrizations.weight.original.detach(), before / 4)


def test_what_is_no_parametrisation():
    layer = nn.Linear(2, 3)
    with pytest.raises(cr.errors.ShapeError, match=r"\(3, 2\)"):
        parametrize.register_parametrization(layer, "weight", nn.Flatten(0))
    assert type(layer.weight) is nn.Parameter
    with pytest.raises(cr.errors.ArgumentError, match="'wait'"):
        parametrize.register_parametrization(layer, "wait", Symmetric())
    with pytest.raises(cr.errors.ArgumentError, match="no parametrised"):
        parametrize.remove_parametrizations(layer, "weight")
    parametrize.register_parametrization(layer, "weight", nn.ReLU())
    with pytest.raises(cr.errors.ArgumentError, match="right_inverse"):
        layer.weight = cr.ones((3, 2))


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim):
    layer = nn.Conv2d(2, 3, 2, dtype=cr.float64)
    before = np.array(layer.weight.detach())
    assert parametrizations.weight_norm(layer, dim=dim) is layer
    np.testing.assert_allclose(layer.weight.detach(), before, rtol=1e-13)
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    assert g.shape == {0: (3, 1, 1, 1), 1: (1, 2, 1, 1), None: ()}[dim]
    with cr.no_grad():
        v *= 3.0
    np.testing.assert_allclose(layer.weight.detach(), before, rtol=1e-13)
    with cr.no_grad():
        g *= 2.0
    np.testing.assert_allclose(layer.weight.detach(), 2 * before, rtol=1e-13)
    with pytest.raises(cr.errors.ArgumentError, match="2 tensors"):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    parametrize.remove_parametrizations(layer, "weight")
    np.testing.assert_allclose(layer.weight.detach(), 2 * before, rtol=1e-13)


@pytest.mark.parametrize(
    ("layer", "axis"),
    [(nn.Linear(5, 4), 0), (nn.Conv1d(3, 4, 2), 0), (nn.ConvTranspose1d(3, 4, 2), 1)],
)
def test_spectral_norm(layer, axis):
    layer = layer.double()
    original = np.moveaxis(np.array(layer.weight.detach()), axis, 0).reshape(4, -1)
    parametrizations.spectral_norm(layer, n_power_iterations=50)
    for _ in range(5):
        w = np.moveaxis(np.array(layer.weight.detach()), axis, 0).reshape(4, -1)
    assert np.linalg.norm(w, 2) == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(w, original / np.linalg.norm(original, 2), rtol=1e-8)
    u = np.array(layer.parametrizations.weight[0]._u)
    layer.eval()
    np.testing.assert_array_equal(np.array(layer.weight.detach()), np.array(layer.weight.detach()))
    np.testing.assert_array_equal(layer.parametrizations.weight[0]._u, u)
    with pytest.raises(cr.errors.ArgumentError):
        parametrizations.spectral_norm(nn.Linear(2, 2), n_power_iterations=0)
    with pytest.raises(cr.errors.ArgumentError, match="no axis"):
        parametrizations.spectral_norm(nn.Linear(2, 2), dim=2)


def test_clipping_is_here_too():
    p = nn.Parameter(cr.ones(4))
    (3 * p).sum().backward()
    assert utils.clip_grad_norm_([p], 1.0).item() == pytest.approx(6)
    np.testing.assert_allclose(p.grad, [0.5] * 4, rtol=1e-5)
