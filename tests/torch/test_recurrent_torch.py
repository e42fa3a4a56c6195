"""Recurrent layers against PyTorch: state, outputs, states, first and second derivatives."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import chainrule as cr  # noqa: E402
from chainrule import nn  # noqa: E402
from chainrule.nn.utils import rnn  # noqa: E402

TIGHT = {"rtol": 1e-10, "atol": 1e-11}


def close(mine, other, what=""):
    a, b = np.asarray(mine.detach()), other.detach().numpy()
    assert a.shape == b.shape, what
    assert a.dtype == b.dtype, what
    np.testing.assert_allclose(a, b, err_msg=what, **TIGHT)


def twins(name, args, kwargs):
    ours, theirs = getattr(nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    assert repr(ours) == repr(theirs)
    ours, theirs = ours.double(), theirs.double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def leaves(x):
    if isinstance(x, rnn.PackedSequence | torch.nn.utils.rnn.PackedSequence):
        return [x.data]
    return [leaf for part in x for leaf in leaves(part)] if isinstance(x, tuple) else [x]


def compare(ours, theirs, f_ours, f_theirs, arrays):
    """Results, gradients of a weighted sum, and the gradients of a weighted sum of those."""
    mine = [cr.asarray(a, requires_grad=True) for a in arrays]
    other = [torch.tensor(a, requires_grad=True) for a in arrays]
    zs, ws = leaves(f_ours(ours, *mine)), leaves(f_theirs(theirs, *other))
    for i, (z, w) in enumerate(zip(zs, ws, strict=True)):
        close(z, w, f"result {i}")
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal(z.shape) for z in zs]
    xs, ys = [*mine, *ours.parameters()], [*other, *theirs.parameters()]
    total = sum((cr.sin(z) * cr.asarray(a)).sum() for z, a in zip(zs, weights, strict=True))
    other_total = sum(
        (w.sin() * torch.tensor(a)).sum() for w, a in zip(ws, weights, strict=True)
    )  # fmt: skip
    gs = cr.autograd.grad(total, xs, create_graph=True)
    hs = torch.autograd.grad(other_total, ys, create_graph=True)
    for i, (g, h) in enumerate(zip(gs, hs, strict=True)):
        close(g, h, f"gradient {i}")
    probes = [rng.standard_normal(g.shape) for g in gs]
    total = sum((cr.sin(g) * cr.asarray(a)).sum() for g, a in zip(gs, probes, strict=True))
    other_total = sum(
        (h.sin() * torch.tensor(a)).sum() for h, a in zip(hs, probes, strict=True)
    )  # fmt: skip
    gs, hs = cr.autograd.grad(total, xs), torch.autograd.grad(other_total, ys)
    for i, (g, h) in enumerate(zip(gs, hs, strict=True)):
        close(g, h, f"second derivative {i}")


LAYERS = [
    (name, {**kwargs, **extra})
    for name, extras in (
        ("RNN", ({}, {"nonlinearity": "relu"})), ("LSTM", ({}, {"proj_size": 2})), ("GRU", ({},)),
    )
    for extra, kwargs in itertools.product(
        extras,
        (
            {}, {"bias": False}, {"batch_first": True, "num_layers": 2}, {"bidirectional": True},
            {"num_layers": 3, "bidirectional": True, "bias": False},
        ),
    )
]  # fmt: skip


def states(layer, *lead):
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    units = [getattr(layer, "proj_size", 0) or layer.hidden_size, layer.hidden_size]
    rng = np.random.default_rng(2)
    kept = units if isinstance(layer, nn.LSTM) else units[:1]
    return [rng.standard_normal((count, *lead, m)) for m in kept]


def given(layer, x, *state):
    return layer(x, tuple(state) if len(state) > 1 else state[0])


@pytest.mark.parametrize(("name", "kwargs"), LAYERS)
def test_layers(name, kwargs):
    ours, theirs = twins(name, (3, 4), kwargs)
    x = np.random.default_rng(0).standard_normal((5, 2, 3))
    n = 5 if kwargs.get("batch_first") else 2
    compare(ours, theirs, given, given, [x, *states(ours, n)])
    for mine, other in zip(
        leaves(ours(cr.asarray(x))), leaves(theirs(torch.tensor(x))), strict=True
    ):
        close(mine, other, "without a state")
    alone = x[:, 0]
    compare(ours, theirs, given, given, [alone, *states(ours)])


def packing(room, lengths, enforce):
    def run(layer, x, *state):
        padded = room.pack_padded_sequence(
            x, lengths, batch_first=layer.batch_first, enforce_sorted=enforce
        )
        y, last = given(layer, padded, *state) if state else layer(padded)
        y, sizes = room.pad_packed_sequence(y, batch_first=layer.batch_first, padding_value=0.5)
        assert np.asarray(sizes).tolist() == list(lengths)
        return y, last

    return run


@pytest.mark.parametrize(("name", "kwargs"), LAYERS)
@pytest.mark.parametrize("lengths", [(5, 3, 3, 1), (2, 4, 1, 3)])
def test_sequences_of_different_lengths(name, kwargs, lengths):
    ours, theirs = twins(name, (3, 4), kwargs)
    x = np.random.default_rng(0).standard_normal((5, 4, 3))
    if kwargs.get("batch_first"):
        x = np.swapaxes(x, 0, 1).copy()
    enforce = lengths[0] == 5
    arguments = [x, *states(ours, 4)] if kwargs != {"bias": False} else [x]
    compare(
        ours, theirs, packing(rnn, lengths, enforce),
        packing(torch.nn.utils.rnn, lengths, enforce), arguments,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_cells(name, bias, lead):
    kwargs = {"nonlinearity": "relu"} if name == "RNNCell" and bias else {}
    ours, theirs = twins(name, (3, 4), {"bias": bias, **kwargs})
    rng = np.random.default_rng(0)
    shapes = [(*lead, 3), (*lead, 4), (*lead, 4)][: 3 if name == "LSTMCell" else 2]
    arrays = [rng.standard_normal(s) for s in shapes]
    compare(ours, theirs, given, given, arrays)
    x = arrays[0]
    for mine, other in zip(
        leaves(ours(cr.asarray(x))), leaves(theirs(torch.tensor(x))), strict=True
    ):
        close(mine, other, "without a state")


def test_packing_is_pytorch_s():
    x = np.random.default_rng(0).standard_normal((5, 4, 3, 2))
    for lengths, enforce in (((5, 4, 4, 1), True), ((2, 2, 4, 1), False)):
        a = rnn.pack_padded_sequence(cr.asarray(x), lengths, enforce_sorted=enforce)
        b = torch.nn.utils.rnn.pack_padded_sequence(
            torch.tensor(x), torch.tensor(lengths), enforce_sorted=enforce
        )
        close(a.data, b.data)
        close(a.batch_sizes, b.batch_sizes)
        if not enforce:
            close(a.sorted_indices, b.sorted_indices)
            close(a.unsorted_indices, b.unsorted_indices)
        for kwargs in ({}, {"batch_first": True, "padding_value": -1.0}, {"total_length": 7}):
            mine, sizes = rnn.pad_packed_sequence(a, **kwargs)
            other, others = torch.nn.utils.rnn.pad_packed_sequence(b, **kwargs)
            close(mine, other)
            close(sizes, others)
        for mine, other in zip(
            rnn.unpack_sequence(a), torch.nn.utils.rnn.unpack_sequence(b), strict=True
        ):
            close(mine, other)


def test_padding_is_pytorch_s():
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((n, 2)) for n in (3, 5, 1)]
    ours, theirs = [cr.asarray(a) for a in arrays], [torch.tensor(a) for a in arrays]
    for kwargs in (
        {}, {"batch_first": True}, {"padding_value": 2.5},
        {"padding_side": "left", "batch_first": True},
    ):  # fmt: skip
        close(
            rnn.pad_sequence(ours, **kwargs), torch.nn.utils.rnn.pad_sequence(theirs, **kwargs)
        )  # fmt: skip
    a = rnn.pack_sequence(ours, enforce_sorted=False)
    b = torch.nn.utils.rnn.pack_sequence(theirs, enforce_sorted=False)
    close(a.data, b.data)
    padded = rnn.pad_sequence(ours)
    for mine, other in zip(rnn.unpad_sequence(padded, [3, 5, 1]), arrays, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_initial_bounds_are_pytorch_s():
    cr.manual_seed(0)
    torch.manual_seed(0)
    for name, args in (("RNN", (40, 90)), ("LSTM", (20, 60)), ("GRUCell", (30, 70))):
        ours, theirs = getattr(nn, name)(*args), getattr(torch.nn, name)(*args)
        for key, value in theirs.state_dict().items():
            a, b = np.asarray(ours.state_dict()[key]), value.numpy()
            assert np.abs(a).max() == pytest.approx(np.abs(b).max(), rel=0.1), (name, key)
            assert a.std() == pytest.approx(b.std(), rel=0.15), (name, key)


def test_weights_go_both_ways(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    ours = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    cr.save(ours.state_dict(), tmp_path / "lstm.safetensors")
    theirs = torch.nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    theirs.load_state_dict(safetensors.load_file(tmp_path / "lstm.safetensors"))
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    np.testing.assert_allclose(
        np.asarray(ours(cr.asarray(x))[0].detach()), theirs(torch.tensor(x))[0].detach().numpy(),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
