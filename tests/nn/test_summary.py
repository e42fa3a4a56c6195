"""cr.summary: counts that can be done by hand, and a model that stays as it was."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn


def mlp():
    return nn.Sequential(
        nn.Linear(784, 16), nn.Sigmoid(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 10)
    )


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84),
        nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def test_digit_network():
    table = cr.summary(mlp(), (1, 784))
    assert table.parameters == table.trainable_parameters == 13_002
    assert [row.parameters for row in table.rows] == [12_560, 0, 272, 0, 170]
    assert [row.output_shape for row in table.rows] == [(1, 16), (1, 16), (1, 16), (1, 16), (1, 10)]
    # A product of (1, n) and (n, m) is 2 n m, and m for the bias.
    assert [row.flops for row in table.rows] == [
        2 * 784 * 16 + 16, 16, 2 * 16 * 16 + 16, 16, 2 * 16 * 10 + 10,
    ]  # fmt: skip
    assert table.flops == sum(row.flops for row in table.rows)
    assert table.parameter_bytes == 13_002 * 4
    # The way back reads the outputs of both sigmoids; everything else is parameters or input.
    assert table.activation_bytes == 2 * 16 * 4
    text = str(table)
    assert text == repr(table)
    assert "13,002 parameters" in text
    assert "(1, 784)" in text
    assert len(text.splitlines()) == 8
    assert max(map(len, text.splitlines())) <= 100


def test_lenet():
    table = cr.summary(lenet(), (2, 1, 28, 28))
    assert table.parameters == 61_706
    assert [row.receptive_field for row in table.rows] == [
        "5x5", "5x5", "6x6", "14x14", "14x14", "16x16", "16x16", *["all"] * 5,
    ]  # fmt: skip
    first = table.rows[0]
    assert first.flops == 2 * (2 * 6 * 28 * 28 * 25) + 2 * 6 * 28 * 28
    assert first.output_shape == (2, 6, 28, 28)
    # Max pooling looks at four elements for each output.
    assert table.rows[2].flops == 4 * 2 * 6 * 14 * 14


@pytest.mark.parametrize(
    ("layers", "fields"),
    [
        ([nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)], ["3x3", "5x5", "7x7"]),
        ([nn.Conv2d(1, 1, 3, stride=2), nn.Conv2d(1, 1, 3)], ["3x3", "7x7"]),
        ([nn.Conv2d(1, 1, 3, dilation=4), nn.AvgPool2d((2, 3), 2)], ["9x9", "10x11"]),
        ([nn.MaxPool2d(3, 2), nn.MaxPool2d(3, 2)], ["3x3", "7x7"]),
        ([nn.Conv2d(1, 1, 4, stride=4), nn.ConvTranspose2d(1, 1, 4, 4), nn.Conv2d(1, 1, 3)],
         ["4x4", "4x4", "6x6"]),
        ([nn.Conv2d(1, 1, 3), nn.GlobalAvgPool2d()], ["3x3", "all"]),
        ([nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.ReLU()], ["3x3"] * 3),
        ([nn.GroupNorm(1, 1)], ["all"]),
        ([nn.Upsample(scale_factor=2)], ["?"]),
    ],
)  # fmt: skip
def test_receptive_fields(layers, fields):
    table = cr.summary(nn.Sequential(*layers), (1, 1, 30, 30))
    assert [row.receptive_field for row in table.rows] == fields


def test_receptive_field_is_where_the_gradient_reaches():
    """The field that is told is the size of the patch of the input that one output depends on."""
    cr.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, dilation=2),
        nn.Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))),
        nn.AvgPool2d(2),
    )
    told = cr.summary(model, (1, 1, 40, 40)).rows[-1].receptive_field
    x = cr.random.normal((1, 1, 40, 40)).requires_grad_()
    y = model(x)
    y[0, 0, 4, 4].backward()
    rows, columns = np.nonzero(np.asarray(x.grad)[0, 0])
    assert told == f"{np.ptp(rows) + 1}x{np.ptp(columns) + 1}" == "15x15"


def test_branches_count_what_they_do_themselves():
    model = nn.Sequential(nn.Residual(nn.Conv1d(2, 2, 3, padding=1)))
    table = cr.summary(model, (1, 2, 10))
    assert [(row.path, row.kind) for row in table.rows] == [
        ("0", "Residual"), ("0.module", "Conv1d"),
    ]  # fmt: skip
    assert table.rows[0].flops == 20
    assert table.rows[0].parameters == 0
    assert table.rows[0].receptive_field == "3"


def test_shared_and_unused_layers():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)
            self.unused.requires_grad_(False)

        def forward(self, x, y):
            return self.used(self.used(x)) + y, y

    table = cr.summary(Odd(), (3, 4), cr.ones((3, 4)))
    assert [(row.path, row.parameters) for row in table.rows] == [
        ("", 0), ("used", 20), ("used", 0),
    ]  # fmt: skip
    assert table.rows[0].output_shape == ((3, 4), (3, 4))
    assert table.rows[0].flops == 12
    assert table.parameters == 40
    assert table.trainable_parameters == 20
    assert table.uncalled == ["unused"]
    text = str(table)
    assert "(model)" in text
    assert "20 of them frozen" in text
    assert "not called: unused" in text


def test_the_model_stays_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.ReLU())
    calls = []
    model[0].register_forward_hook(lambda m, a, y: calls.append("mine"))
    model[3].eval()
    model(cr.random.normal((4, 1, 6, 6))).sum().backward()
    before = {key: np.array(value) for key, value in model.state_dict().items()}
    grads = [p.grad for p in model.parameters()]
    hooks = [m._hooks for m in model.modules()]
    state = cr.random.get_state()
    calls.clear()
    cr.summary(model, (4, 1, 6, 6))
    assert calls == ["mine"]
    np.testing.assert_array_equal(cr.random.get_state(), state)
    assert [m.training for m in model.modules()] == [True, True, True, True, False]
    assert all(a is b for a, b in zip(grads, [p.grad for p in model.parameters()], strict=True))
    assert all(a is b for a, b in zip(hooks, [m._hooks for m in model.modules()], strict=True))
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_an_error_on_the_way_leaves_the_model_as_it_was_too():
    model = mlp()
    with pytest.raises(cr.errors.ShapeError, match=r"'0' \(Linear\)"):
        cr.summary(model, (1, 28))
    assert model.training
    assert all(m._hooks is None for m in model.modules())
    with pytest.raises(cr.errors.ArgumentTypeError, match=r"nn\.Module"):
        cr.summary(lambda x: x, (1, 28))


def test_dtype_and_examples():
    assert cr.summary(mlp().double(), (1, 784)).parameter_bytes == 13_002 * 8
    assert cr.summary(mlp(), np.zeros((5, 784), np.float32)).rows[0].output_shape == (5, 16)
