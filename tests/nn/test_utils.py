"""nn.utils: folding batch norm, and parameters as one vector."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.nn import utils


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
