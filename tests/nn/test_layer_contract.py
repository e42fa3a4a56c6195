"""What every layer promises, checked for each from one table."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.nn import (
    attention,
    cells,
    containers,
    conv,
    linear,
    normalization,
    pooling,
    recurrent,
    shaping,
)

# name, arguments, shapes of the inputs, shape of the output
TABLE = [
    ("Identity", {}, [(2, 3)], (2, 3)),
    ("Linear", {"in_features": 3, "out_features": 2}, [(2, 3)], (2, 2)),
    ("Linear", {"in_features": 3, "out_features": 2, "bias": False}, [(2, 2, 3)], (2, 2, 2)),
    (
        "Bilinear", {"in1_features": 2, "in2_features": 3, "out_features": 2},
        [(2, 2), (2, 3)], (2, 2),
    ),
    ("Conv1d", {"in_channels": 2, "out_channels": 3, "kernel_size": 2}, [(2, 2, 5)], (2, 3, 4)),
    (
        "Conv2d",
        {"in_channels": 2, "out_channels": 2, "kernel_size": 3, "padding": 1, "groups": 2},
        [(1, 2, 4, 3)], (1, 2, 4, 3),
    ),
    (
        "Conv2d",
        {
            "in_channels": 1, "out_channels": 2, "kernel_size": (2, 3), "stride": 2, "dilation": 2,
            "padding": (2, 2), "padding_mode": "reflect",
        },
        [(1, 1, 4, 5)], (1, 2, 3, 3),
    ),
    (
        "Conv3d", {"in_channels": 1, "out_channels": 2, "kernel_size": 2},
        [(1, 1, 3, 2, 3)], (1, 2, 2, 1, 2),
    ),
    (
        "ConvTranspose1d",
        {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "stride": 2},
        [(1, 2, 3)], (1, 3, 7),
    ),
    (
        "ConvTranspose2d",
        {
            "in_channels": 2, "out_channels": 2, "kernel_size": 3, "stride": 2, "padding": 1,
            "output_padding": 1, "groups": 2,
        },
        [(1, 2, 2, 3)], (1, 2, 4, 6),
    ),
    (
        "ConvTranspose3d", {"in_channels": 1, "out_channels": 1, "kernel_size": 2},
        [(1, 1, 2, 1, 2)], (1, 1, 3, 2, 3),
    ),
    ("MaxPool1d", {"kernel_size": 2}, [(2, 2, 5)], (2, 2, 2)),
    ("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}, [(1, 2, 5, 4)], (1, 2, 3, 2)),
    ("MaxPool3d", {"kernel_size": 2, "ceil_mode": True}, [(1, 1, 3, 2, 3)], (1, 1, 2, 1, 2)),
    ("AvgPool1d", {"kernel_size": 2, "padding": 1}, [(2, 2, 5)], (2, 2, 3)),
    ("AvgPool2d", {"kernel_size": 2, "ceil_mode": True}, [(1, 2, 5, 4)], (1, 2, 3, 2)),
    ("AvgPool3d", {"kernel_size": 2, "divisor_override": 3}, [(1, 1, 3, 2, 3)], (1, 1, 1, 1, 1)),
    ("LPPool1d", {"norm_type": 2, "kernel_size": 2}, [(2, 2, 5)], (2, 2, 2)),
    ("LPPool2d", {"norm_type": 2, "kernel_size": 2, "stride": 1}, [(1, 1, 3, 3)], (1, 1, 2, 2)),
    ("LPPool3d", {"norm_type": 2, "kernel_size": 2}, [(1, 1, 2, 2, 2)], (1, 1, 1, 1, 1)),
    ("AdaptiveAvgPool1d", {"output_size": 3}, [(2, 1, 5)], (2, 1, 3)),
    ("AdaptiveAvgPool2d", {"output_size": (2, None)}, [(1, 2, 3, 4)], (1, 2, 2, 4)),
    ("AdaptiveAvgPool3d", {"output_size": 1}, [(1, 2, 2, 2, 2)], (1, 2, 1, 1, 1)),
    ("AdaptiveMaxPool1d", {"output_size": 3}, [(2, 1, 5)], (2, 1, 3)),
    ("AdaptiveMaxPool2d", {"output_size": (2, 3)}, [(1, 2, 5, 4)], (1, 2, 2, 3)),
    ("AdaptiveMaxPool3d", {"output_size": 2}, [(1, 1, 3, 2, 4)], (1, 1, 2, 2, 2)),
    ("GlobalAvgPool1d", {}, [(2, 2, 5)], (2, 2, 1)),
    ("GlobalAvgPool2d", {}, [(2, 2, 3, 4)], (2, 2, 1, 1)),
    ("GlobalAvgPool3d", {"keepdim": False}, [(1, 2, 2, 2, 3)], (1, 2)),
    ("GlobalMaxPool1d", {}, [(2, 2, 5)], (2, 2, 1)),
    ("GlobalMaxPool2d", {"keepdim": False}, [(2, 2, 3, 4)], (2, 2)),
    ("GlobalMaxPool3d", {}, [(1, 2, 2, 2, 3)], (1, 2, 1, 1, 1)),
    ("Flatten", {}, [(2, 3, 2)], (2, 6)),
    ("Unflatten", {"dim": 1, "unflattened_size": (2, 3)}, [(2, 6)], (2, 2, 3)),
    ("Unfold", {"kernel_size": 2, "padding": 1, "stride": 2}, [(1, 2, 4, 3)], (1, 8, 6)),
    ("Fold", {"output_size": (3, 4), "kernel_size": 2}, [(1, 4, 6)], (1, 1, 3, 4)),
    ("PixelShuffle", {"upscale_factor": 2}, [(1, 4, 2, 3)], (1, 1, 4, 6)),
    ("PixelUnshuffle", {"downscale_factor": 2}, [(1, 1, 4, 2)], (1, 4, 2, 1)),
    ("Upsample", {"scale_factor": 2}, [(1, 2, 3)], (1, 2, 6)),
    ("Upsample", {"size": (5, 3), "mode": "bicubic"}, [(1, 1, 3, 4)], (1, 1, 5, 3)),
    ("UpsamplingNearest2d", {"scale_factor": 2}, [(1, 1, 2, 3)], (1, 1, 4, 6)),
    ("UpsamplingBilinear2d", {"size": (4, 5)}, [(1, 1, 3, 2)], (1, 1, 4, 5)),
    ("BatchNorm1d", {"num_features": 2}, [(4, 2)], (4, 2)),
    ("BatchNorm1d", {"num_features": 2, "momentum": None}, [(2, 2, 3)], (2, 2, 3)),
    ("BatchNorm2d", {"num_features": 2, "affine": False}, [(2, 2, 2, 2)], (2, 2, 2, 2)),
    (
        "BatchNorm3d", {"num_features": 1, "track_running_stats": False},
        [(2, 1, 2, 1, 2)], (2, 1, 2, 1, 2),
    ),
    ("InstanceNorm1d", {"num_features": 2, "affine": True}, [(2, 2, 4)], (2, 2, 4)),
    (
        "InstanceNorm2d", {"num_features": 2, "track_running_stats": True},
        [(1, 2, 2, 3)], (1, 2, 2, 3),
    ),
    ("InstanceNorm3d", {"num_features": 1}, [(1, 1, 2, 2, 2)], (1, 1, 2, 2, 2)),
    ("LayerNorm", {"normalized_shape": 4}, [(3, 4)], (3, 4)),
    ("LayerNorm", {"normalized_shape": (2, 3), "bias": False}, [(2, 2, 3)], (2, 2, 3)),
    ("RMSNorm", {"normalized_shape": 4}, [(3, 4)], (3, 4)),
    ("GroupNorm", {"num_groups": 2, "num_channels": 4}, [(2, 4, 3)], (2, 4, 3)),
    ("LocalResponseNorm", {"size": 3, "alpha": 0.5}, [(1, 4, 3)], (1, 4, 3)),
    ("RNNCell", {"input_size": 3, "hidden_size": 2}, [(2, 3), (2, 2)], (2, 2)),
    ("RNNCell", {"input_size": 3, "hidden_size": 2, "bias": False}, [(2, 3)], (2, 2)),
    ("LSTMCell", {"input_size": 3, "hidden_size": 2}, [(2, 3)], (2, 2)),
    ("GRUCell", {"input_size": 3, "hidden_size": 2}, [(2, 3), (2, 2)], (2, 2)),
    ("RNN", {"input_size": 2, "hidden_size": 3, "num_layers": 2}, [(4, 2, 2)], (4, 2, 3)),
    (
        "LSTM",
        {
            "input_size": 2, "hidden_size": 3, "proj_size": 1, "bidirectional": True,
            "batch_first": True,
        },
        [(2, 3, 2)], (2, 3, 2),
    ),
    ("GRU", {"input_size": 2, "hidden_size": 2, "bias": False}, [(3, 2, 2), (1, 2, 2)], (3, 2, 2)),
]  # fmt: skip

# Layers that draw, need more than floats, or are made of others, have tests of their own.
ELSEWHERE = {
    "FractionalMaxPool2d", "FractionalMaxPool3d",
    "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "Sequential", "ModuleList", "ModuleDict",
    "ParameterList", "ParameterDict", "Residual", "RNNBase", "RNNCellBase",
    "MultiheadAttention",
}  # fmt: skip


def make(name, arguments):
    """A layer in float64 with random parameters and buffers."""
    layer = getattr(nn, name)(**arguments).double()
    generator = np.random.default_rng(3)
    with cr.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.ndim:
                tensor.copy_(np.abs(generator.standard_normal(tensor.shape)) + 0.2)
    return layer


def rows(chosen):
    """The rows of the table that a test is about."""
    found = [(i, row) for i, row in enumerate(TABLE) if chosen(*row)]
    return pytest.mark.parametrize(
        ("name", "arguments", "shapes", "expected"),
        [row for _, row in found],
        ids=[f"{row[0]}-{i}" for i, row in found],
    )


table = rows(lambda *row: True)


def examples(shapes, requires_grad=False):
    generator = np.random.default_rng(4)
    return [cr.asarray(generator.standard_normal(s), requires_grad=requires_grad) for s in shapes]


def called(layer, *inputs):
    """The result, or the first of several."""
    y = layer(*inputs)
    return y[0] if isinstance(y, tuple) else y


def as_function(layer):
    """The layer as a function of its inputs and its parameters."""
    names = [name for name, _ in layer.named_parameters()]

    def function(*values):
        split = len(values) - len(names)
        twin = copy.deepcopy(layer)
        for name, value in zip(names, values[split:], strict=True):
            path, _, last = name.rpartition(".")
            twin.get_submodule(path)._parameters[last] = value
        return twin(*values[:split])

    return function


def test_every_layer_is_in_the_table():
    defined = {
        name for room in (
            attention, cells, containers, conv, linear, normalization, pooling, recurrent, shaping,
        )
        for name in room.__all__
    }  # fmt: skip
    assert defined == {name for name, *_ in TABLE} | ELSEWHERE
    assert all(hasattr(nn, name) for name in defined)


@table
def test_output_shape_and_dtype(name, arguments, shapes, expected):
    layer = getattr(nn, name)(**arguments)
    for dtype in (cr.float32, cr.float64):
        layer.to(dtype)
        y = called(layer, *[x.astype(dtype) for x in examples(shapes)])
        assert y.shape == expected
        assert y.dtype == dtype


@table
def test_an_empty_batch_gives_an_empty_batch(name, arguments, shapes, expected):
    layer = make(name, arguments).eval()
    empty = [cr.zeros((0, *s[1:]), dtype=cr.float64) for s in shapes]
    if name == "GRU":  # whose batch is the second axis, of both inputs
        empty = [cr.zeros((s[0], 0, *s[2:]), dtype=cr.float64) for s in shapes]
        assert called(layer, *empty).shape == (expected[0], 0, *expected[2:])
    else:
        assert called(layer, *empty).shape == (0, *expected[1:])


@table
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_derivatives(name, arguments, shapes, expected, mode):
    layer = getattr(make(name, arguments), mode)()
    inputs = [*examples(shapes, True), *[p.detach().requires_grad_() for p in layer.parameters()]]
    assert cr.autograd.gradcheck(as_function(layer), inputs)
    if mode == "train":
        assert cr.autograd.gradgradcheck(as_function(layer), inputs)


@table
def test_state_round_trip(name, arguments, shapes, expected, tmp_path):
    layer, other = make(name, arguments), getattr(nn, name)(**arguments).double()
    state = layer.state_dict()
    if state:
        cr.save(state, tmp_path / "layer.safetensors")
        state = cr.load(tmp_path / "layer.safetensors")
    result = other.load_state_dict(state)
    assert result == ([], [])
    assert str(result) == "<All keys matched successfully>"
    xs = examples(shapes)
    for mode in (True, False):
        np.testing.assert_array_equal(
            called(layer.train(mode), *xs).detach(), called(other.train(mode), *xs).detach()
        )
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, other.state_dict()[key])


@table
def test_same_seed_same_layer_and_reset(name, arguments, shapes, expected):
    states = []
    for seed in (5, 5, 6):
        cr.manual_seed(seed)
        states.append(getattr(nn, name)(**arguments).state_dict())
    for key, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][key])
    layer = make(name, arguments)
    if hasattr(layer, "reset_parameters"):
        cr.manual_seed(5)
        layer.float().reset_parameters()
        for key, value in layer.state_dict().items():
            np.testing.assert_array_equal(value, states[0][key])


@table
def test_deepcopy_is_independent(name, arguments, shapes, expected):
    layer = make(name, arguments)
    before = {key: np.array(value) for key, value in layer.state_dict().items()}
    twin = copy.deepcopy(layer)
    assert type(twin) is type(layer)
    assert repr(twin) == repr(layer)
    for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
        assert p is not q
        assert type(q) is nn.Parameter
        assert q.requires_grad
    called(twin, *examples(shapes)).sum().backward() if list(twin.parameters()) else None
    with cr.no_grad():
        for p in twin.parameters():
            p.zero_()
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    assert all(p.grad is None for p in layer.parameters())


@table
def test_evaluation_changes_nothing_and_modes_are_told(name, arguments, shapes, expected):
    layer = make(name, arguments)
    assert layer.training
    assert layer.eval() is layer
    assert not layer.training
    before = {key: np.array(value) for key, value in layer.state_dict().items()}
    layer(*examples(shapes))
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@table
def test_text_names_the_layer(name, arguments, shapes, expected):
    text = repr(getattr(nn, name)(**arguments))
    assert text.startswith(f"{name}(")
    assert text.endswith(")")
    assert "\n" not in text


@rows(lambda name, *_: name != "Identity")  # which takes anything
def test_an_unknown_argument_is_refused(name, arguments, shapes, expected):
    with pytest.raises(TypeError, match="surprise"):
        getattr(nn, name)(**arguments, surprise=1)


@rows(lambda name, arguments, *_: make(name, arguments).state_dict())
def test_pickling_of_state_is_refused(name, arguments, shapes, expected):
    layer = make(name, arguments)
    with pytest.raises(cr.errors.ChainruleError, match=r"cr\.save"):
        pickle.dumps(layer)


@table
def test_documented(name, arguments, shapes, expected):
    layer = getattr(nn, name)
    text = inspect.getdoc(layer)
    assert text
    assert len(text) > 40 or name == "Identity"


@rows(lambda name, *_: name not in ("Identity", "Flatten", "LocalResponseNorm"))
def test_wrong_input_is_an_error_that_names_the_layer(name, arguments, shapes, expected):
    model = nn.Sequential()
    model.register_module("part", getattr(nn, name)(**arguments))
    wrong = [cr.zeros((5,) * 7)] * len(shapes)
    with pytest.raises(cr.errors.ChainruleError) as caught:
        if len(shapes) == 1:
            model(*wrong)
        else:
            model.part(*wrong)
    assert name in str(caught.value)
    assert "(5, 5, 5" in str(caught.value)
    if len(shapes) == 1:
        assert "'part'" in str(caught.value)
