"""Every layer of the contract's table: outputs, gradients and buffers compiled are those eager."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from test_layer_contract import TABLE, examples, make

import chainrule as cr
from chainrule import nn, optim

table = pytest.mark.parametrize(
    ("name", "arguments", "shapes", "expected"), TABLE,
    ids=[f"{row[0]}-{i}" for i, row in enumerate(TABLE)],
)  # fmt: skip


backends = pytest.mark.parametrize("backend", ["numpy", "native"])


def arrays(values):
    return [np.array(v.detach().numpy()) for v in values]


def assert_same(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def leaves(result):
    if isinstance(result, tuple | list):
        return [leaf for item in result for leaf in leaves(item)]
    return [result]


def gradients(layer, inputs, function):
    """Outputs, and the gradients of inputs and parameters, called from outside."""
    layer.zero_grad()
    inputs = [x.detach().requires_grad_() for x in inputs]
    outputs = leaves(function(*inputs))
    seeds = [cr.cos(cr.arange(z.size, dtype=cr.float64)).reshape(z.shape) for z in outputs]
    used = [(z, s) for z, s in zip(outputs, seeds, strict=True) if z.requires_grad]
    cr.autograd.backward([z for z, _ in used], [s for _, s in used])
    found = [*arrays(outputs), *arrays(x.grad for x in inputs)]
    return found + arrays(p.grad for p in layer.parameters() if p.grad is not None)


@table
@backends
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_outputs_gradients_and_buffers(name, arguments, shapes, expected, mode, backend):
    layer = getattr(make(name, arguments), mode)()
    twin = copy.deepcopy(layer)
    compiled = cr.compile(twin, backend=backend)
    for _ in range(2):
        got = gradients(twin, examples(shapes), compiled)
        assert_same(got, gradients(layer, examples(shapes), layer))
        assert_same(arrays(twin.buffers()), arrays(layer.buffers()))
    assert compiled.traces == 1


@table
@backends
def test_a_whole_step(name, arguments, shapes, expected, backend):
    layer = make(name, arguments)
    twin = copy.deepcopy(layer)

    def make_step(layer, compiled):
        parameters = list(layer.parameters())
        opt = optim.SGD(parameters, lr=0.1, momentum=0.9) if parameters else None

        def step(*inputs):
            if opt is not None:
                opt.zero_grad()
            loss = sum((z * z).mean() for z in leaves(layer(*inputs)))
            if opt is not None:
                loss.backward()
                opt.step()
            return loss

        return cr.compile(step, backend=backend) if compiled else step

    eager, step = make_step(layer, False), make_step(twin, True)
    for _ in range(3):
        assert_same(arrays([step(*examples(shapes))]), arrays([eager(*examples(shapes))]))
    assert step.traces == 1
    for a, b in zip(twin.state_dict().values(), layer.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-13)
    for p, q in zip(twin.parameters(), layer.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12, atol=1e-13)


DRAWING = [
    (nn.Dropout, {"p": 0.3}, (4, 5)),
    (nn.Dropout1d, {"p": 0.5}, (3, 4, 5)),
    (nn.Dropout2d, {"p": 0.5}, (3, 4, 2, 2)),
    (nn.AlphaDropout, {"p": 0.3}, (4, 5)),
    (nn.FeatureAlphaDropout, {"p": 0.3}, (4, 5, 2)),
    (nn.FractionalMaxPool2d, {"kernel_size": 2, "output_size": 3}, (1, 2, 7, 7)),
    (nn.RReLU, {}, (3, 4)),
]


@pytest.mark.parametrize(("layer", "arguments", "shape"), DRAWING)
@backends
def test_layers_that_draw_draw_the_same_numbers(layer, arguments, shape, backend):
    module = layer(**arguments)
    compiled = cr.compile(module, backend=backend)
    x = examples([shape])[0]
    cr.manual_seed(7)
    expected = [module(x).numpy() for _ in range(3)]
    after = cr.random.get_state()
    cr.manual_seed(7)
    for value in expected:
        np.testing.assert_allclose(compiled(x).numpy(), value, rtol=1e-13)
    np.testing.assert_array_equal(cr.random.get_state(), after)
    assert compiled.traces == 1
    assert not np.array_equal(expected[0], expected[1])


def test_activations():
    x = cr.asarray(np.linspace(-4, 4, 24).reshape(2, 12))
    for name in (
        "CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh",
        "LeakyReLU", "LogSigmoid", "LogSoftmax", "Mish", "PReLU", "ReLU", "ReLU6", "SELU", "SiLU",
        "Sigmoid", "Softmax", "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink",
    ):  # fmt: skip
        arguments = {"dim": 1} if name in ("LogSoftmax", "Softmax", "Softmin") else {}
        layer = getattr(nn, name)(**arguments).double()
        compiled = cr.compile(layer, backend="numpy")
        assert_same(gradients(layer, [x], compiled), gradients(layer, [x], layer))
        assert compiled.traces == 1, name


LABELS = np.array([0, 2, 1, 3])
SCORES = (4, 4)
LOSSES = [
    ("cross_entropy", LABELS, {"label_smoothing": 0.1, "ignore_index": 2}),
    ("nll_loss", LABELS, {}),
    ("multi_margin_loss", LABELS, {}),
    ("multilabel_margin_loss", np.array([[0, 2, -1, 1], [1, -1, 0, 0], [3, 2, 1, 0]] * 2)[:4], {}),
    ("multilabel_soft_margin_loss", np.eye(4), {}),
    ("soft_margin_loss", np.sign(np.arange(16).reshape(4, 4) - 7.5), {}),
    ("hinge_embedding_loss", np.sign(np.arange(16).reshape(4, 4) - 7.5), {}),
    ("binary_cross_entropy_with_logits", np.eye(4), {}),
    ("mse_loss", np.eye(4), {}), ("l1_loss", np.eye(4), {}), ("smooth_l1_loss", np.eye(4), {}),
    ("huber_loss", np.eye(4), {}), ("kl_div", np.full((4, 4), 0.25), {"reduction": "batchmean"}),
    ("poisson_nll_loss", np.eye(4), {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "target", "options"), LOSSES, ids=[row[0] for row in LOSSES])
@backends
def test_losses(name, target, options, backend):
    function = getattr(nn.functional, name)
    x = examples([SCORES])[0]
    target = cr.asarray(target)
    compiled = cr.compile(lambda x, t: function(x, t, **options), backend=backend)
    layer = nn.Identity()
    got = gradients(layer, [x], lambda x: compiled(x, target))
    assert_same(got, gradients(layer, [x], lambda x: function(x, target, **options)))
    assert compiled.traces == 1
