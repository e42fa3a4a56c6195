"""Recurrent layers against their formulas in NumPy, and what they promise beyond them."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.nn.utils import rnn


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gates(p, x, h, n, suffix):
    """W_ih x + b_ih and W_hh h + b_hh, in n parts."""
    one = x @ p[f"weight_ih{suffix}"].T + p.get(f"bias_ih{suffix}", 0)
    two = h @ p[f"weight_hh{suffix}"].T + p.get(f"bias_hh{suffix}", 0)
    return np.split(one, n, axis=-1), np.split(two, n, axis=-1)


def rnn_formula(p, x, state, suffix):
    (a,), (b,) = gates(p, x, state[0], 1, suffix)
    return (np.tanh(a + b),)


def lstm_formula(p, x, state, suffix):
    a, b = gates(p, x, state[0], 4, suffix)
    i, f, g, o = (u + v for u, v in zip(a, b, strict=True))
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_formula(p, x, state, suffix):
    a, b = gates(p, x, state[0], 3, suffix)
    r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
    n = np.tanh(a[2] + r * b[2])
    return ((1 - z) * n + z * state[0],)


FORMULAS = {"RNN": rnn_formula, "LSTM": lstm_formula, "GRU": gru_formula}


def numpy_layers(layer, formula, x, state):
    """A stack of layers in one or two directions, x (T, N, inputs)."""
    p = {key: np.asarray(value) for key, value in layer.state_dict().items()}
    after, k = [], 0
    for depth in range(layer.num_layers):
        outputs = []
        for suffix in ("", "_reverse") if layer.bidirectional else ("",):
            s, ys = tuple(part[k] for part in state), np.empty((*x.shape[:2], layer.hidden_size))
            for t in reversed(range(len(x))) if suffix else range(len(x)):
                s = formula(p, x[t], s, f"_l{depth}{suffix}")
                ys[t] = s[0]
            outputs.append(ys)
            after.append(s)
            k += 1
        x = np.concatenate(outputs, axis=2)
    return x, [np.stack(parts) for parts in zip(*after, strict=True)]


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("kwargs", [{}, {"num_layers": 2, "bidirectional": True, "bias": False}])
def test_layers_are_their_formulas(name, kwargs):
    layer = getattr(nn, name)(3, 4, **kwargs).double()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 2, 3))
    count = 4 if kwargs else 1
    state = [rng.standard_normal((count, 2, 4)) for _ in range(2 if name == "LSTM" else 1)]
    given = [cr.asarray(s) for s in state]
    y, last = layer(cr.asarray(x), tuple(given) if name == "LSTM" else given[0])
    expected, after = numpy_layers(layer, FORMULAS[name], x, state)
    np.testing.assert_allclose(y.detach(), expected, rtol=1e-12, atol=1e-13)
    for mine, other in zip(last if name == "LSTM" else (last,), after, strict=True):
        np.testing.assert_allclose(mine.detach(), other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_layer_is_its_cell_over_time(name):
    layer, cell = getattr(nn, name)(3, 4).double(), getattr(nn, f"{name}Cell")(3, 4).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x = cr.asarray(np.random.default_rng(0).standard_normal((6, 2, 3)))
    state, outputs = None, []
    for t in range(6):
        state = cell(x[t], state)
        outputs.append(state[0] if name == "LSTM" else state)
    y, _ = layer(x)
    np.testing.assert_allclose(y.detach(), cr.stack(outputs).detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences_give_what_each_alone_gives(name, bidirectional):
    layer = getattr(nn, name)(3, 4, 2, bidirectional=bidirectional).double()
    rng = np.random.default_rng(0)
    alone = [cr.asarray(rng.standard_normal((n, 3))) for n in (2, 5, 1, 5)]
    packed = rnn.pack_sequence(alone, enforce_sorted=False)
    y, last = layer(packed)
    last = last if name == "LSTM" else (last,)
    for i, (x, out) in enumerate(zip(alone, rnn.unpack_sequence(y), strict=True)):
        expected, state = layer(x)
        np.testing.assert_allclose(out.detach(), expected.detach(), rtol=1e-12, atol=1e-14)
        for mine, other in zip(last, state if name == "LSTM" else (state,), strict=True):
            np.testing.assert_allclose(mine[:, i].detach(), other.detach(), rtol=1e-12, atol=1e-14)


def test_padding_has_no_influence():
    """Neither on results nor on gradients, whatever stands in it."""
    layer = nn.LSTM(3, 4, bidirectional=True)
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    found = []
    for junk in (0.0, np.nan):
        x[2:, 1] = junk
        inputs = cr.asarray(x, requires_grad=True)
        layer.zero_grad()
        y, _ = layer(rnn.pack_padded_sequence(inputs, [5, 2]))
        out, _ = rnn.pad_packed_sequence(y)
        (out**2).sum().backward()
        found.append([out.detach(), inputs.grad, *[p.grad for p in layer.parameters()]])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.any(np.asarray(found[0][1])[2:, 1])


def test_dropout_stands_between_layers_in_training_alone():
    x = cr.ones((4, 3, 2))
    one = nn.GRU(2, 3, 2, dropout=1.0)
    top = nn.GRU(3, 3)
    top.load_state_dict(
        {k.replace("l1", "l0"): v for k, v in one.state_dict().items() if "l1" in k}
    )
    np.testing.assert_allclose(
        one(x)[0].detach(), top(cr.zeros((4, 3, 3)))[0].detach(), rtol=1e-6
    )  # fmt: skip
    plain = nn.GRU(2, 3, 2)
    plain.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(one.eval()(x)[0].detach(), plain(x)[0].detach())
    half = nn.GRU(2, 3, 2, dropout=0.5)
    cr.manual_seed(1)
    first = half(x)[0].detach()
    assert not np.array_equal(first, half(x)[0].detach())
    cr.manual_seed(1)
    np.testing.assert_array_equal(first, half(x)[0].detach())


def test_dropout_with_one_layer_is_warned_of():
    from chainrule.nn.functional import _checks

    _checks._warned.discard("rnn dropout")
    with pytest.warns(cr.errors.ChainruleWarning, match="one layer"):
        nn.LSTM(2, 3, dropout=0.5)


def test_learns_to_add_up():
    """A network of 8 units learns the running sum of a few numbers."""
    cr.manual_seed(0)
    rng = np.random.default_rng(0)
    model, head = nn.GRU(1, 8), nn.Linear(8, 1)
    opt = cr.optim.Adam([*model.parameters(), *head.parameters()], lr=0.02)
    losses = []
    for _ in range(120):
        x = rng.uniform(-1, 1, (6, 32, 1)).astype(np.float32)
        opt.zero_grad()
        y, _ = model(cr.asarray(x))
        loss = nn.functional.mse_loss(head(y), cr.asarray(np.cumsum(x, axis=0)))
        loss.backward()
        opt.step()
        losses.append(float(loss))
    assert np.mean(losses[-10:]) < 0.05 * np.mean(losses[:3])


def test_long_sequences_are_one_loop():
    """The graph of a thousand steps is as large as that of ten."""
    sizes = []
    for n in (10, 1000):
        seen = []
        with cr.graph.observe(lambda p, *rest, seen=seen: seen.append(p.name)):
            nn.LSTM(2, 3)(cr.zeros((n, 1, 2)))[0].sum().backward()
        sizes.append(seen)
    assert sizes[0] == sizes[1]
    assert sizes[0].count("scan") == 2


MISTAKES = [
    (lambda: nn.RNN(2, 0), "hidden_size"),
    (lambda: nn.RNN(2, 3, 0), "num_layers"),
    (lambda: nn.RNN(2, 3, 1, "gelu"), "gelu.*tanh"),
    (lambda: nn.RNNCell(2, 3, nonlinearity="gelu"), "gelu.*tanh"),
    (lambda: nn.LSTM(2, 3, proj_size=3), "proj_size"),
    (lambda: nn.RNNBase("GRU", 2, 3, proj_size=1), "LSTM alone"),
    (lambda: nn.GRU(2, 3, dropout=1.5), "dropout"),
    (lambda: nn.GRU(2, 3)(cr.zeros((4, 5, 3))), r"\(T, N, 2\).*\(4, 5, 3\)"),
    (lambda: nn.GRU(2, 3)(cr.zeros((2,))), r"\(2,\)"),
    (lambda: nn.GRU(2, 3)(cr.zeros((4, 5, 2)), cr.zeros((1, 4, 3))), r"\(1, 5, 3\).*\(1, 4, 3\)"),
    (lambda: nn.GRU(2, 3)(cr.zeros((4, 2)), cr.zeros((1, 1, 3))), r"\(1, 3\).*\(1, 1, 3\)"),
    (lambda: nn.LSTM(2, 3)(cr.zeros((4, 5, 2)), (cr.zeros((1, 5, 3)),)), r"\(h_0, c_0\)"),
    (lambda: nn.GRUCell(2, 3)(cr.zeros((4, 3))), r"\(N, 2\)"),
    (lambda: nn.GRUCell(2, 3)(cr.zeros((4, 2)), cr.zeros((5, 3))), r"\(4, 3\).*\(5, 3\)"),
    (lambda: nn.GRU(2, 3)(cr.zeros((4, 5, 2), dtype=cr.float64)), "float64.*float32"),
    (lambda: rnn.pack_padded_sequence(cr.zeros((3, 2)), [1, 2]), "enforce_sorted=False"),
    (lambda: rnn.pack_padded_sequence(cr.zeros((3, 2)), [2, 0]), "at least 1"),
    (lambda: rnn.pack_padded_sequence(cr.zeros((3, 2)), [4, 1]), "longest length is 4"),
    (lambda: rnn.pack_padded_sequence(cr.zeros((3, 2)), [3]), "2 sequences"),
    (lambda: rnn.pad_packed_sequence(rnn.pack_sequence([cr.ones(3)]), total_length=2), "total"),
    (lambda: rnn.pad_sequence([cr.ones((2, 2)), cr.ones((2, 3))]), r"\(2, 3\)"),
    (lambda: rnn.pad_sequence([cr.ones(2)], padding_side="top"), "top"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_mistakes_are_explained(call, message):
    with pytest.raises(cr.errors.ChainruleError, match=message):
        call()


def test_errors_name_the_layer():
    model = nn.Sequential(nn.LSTM(2, 3))
    with pytest.raises(cr.errors.ShapeError, match=r"layer '0' \(LSTM\)"):
        model(cr.zeros((4, 5, 3)))
