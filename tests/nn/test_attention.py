"""Attention against its formula in NumPy, and what it promises beyond it."""

import tracemalloc

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.nn import functional
from chainrule.nn.functional import attention


def rng(seed=0):
    return np.random.default_rng(seed)


def formula(q, k, v, mask=None):
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_its_formula(causal):
    q, k, v = (rng(i).standard_normal((2, 3, 7, 4)) for i in range(3))
    y = functional.scaled_dot_product_attention(*map(cr.asarray, (q, k, v)), is_causal=causal)
    mask = np.tril(np.ones((7, 7), bool)) if causal else None
    np.testing.assert_allclose(y, formula(q, k, v, mask), rtol=1e-12)


def blocks(monkeypatch, size):
    monkeypatch.setattr(attention, "WHOLE", 0)
    monkeypatch.setattr(attention, "BLOCK", size)


@pytest.mark.parametrize("size", [1, 3, 6, 7])
def test_derivatives_of_blocks(size, monkeypatch):
    q, k, v, m = (
        cr.asarray(rng(i).standard_normal(s), requires_grad=True)
        for i, s in enumerate(((2, 6, 2), (2, 4, 2), (2, 4, 3), (6, 4)))
    )
    f = functional.scaled_dot_product_attention
    whole = cr.grad(lambda *a: (f(*a) ** 2).sum(), argnums=(0, 1, 2, 3))(q, k, v, m)
    blocks(monkeypatch, size)
    parts = cr.grad(lambda *a: (f(*a) ** 2).sum(), argnums=(0, 1, 2, 3))(q, k, v, m)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), rtol=1e-10, atol=1e-12)


def test_second_derivatives_of_blocks(monkeypatch):
    blocks(monkeypatch, 2)
    q, k, v = (
        cr.asarray(rng(i).standard_normal(s), requires_grad=True)
        for i, s in enumerate(((3, 2), (2, 2), (2, 1)))
    )
    assert cr.autograd.gradgradcheck(functional.scaled_dot_product_attention, (q, k, v))


def test_memory_grows_with_the_length_and_not_with_its_square():
    peaks = []
    for n in (1024, 4096):
        q, k, v = (
            cr.asarray(rng(i).standard_normal((n, 8)).astype("f4"), requires_grad=True)
            for i in range(3)
        )
        tracemalloc.start()
        functional.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 5 * peaks[0]


def test_dropout_falls_on_weights_and_keeps_the_mean():
    v = cr.ones((400, 1))
    q = k = cr.zeros((400, 2))
    cr.manual_seed(0)
    y = np.asarray(functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5))
    assert abs(y.mean() - 1) < 0.01
    assert 0.03 < y.std() < 0.07  # 1 / sqrt(400)
    cr.manual_seed(0)
    np.testing.assert_array_equal(
        y, functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    )


def test_dropout_in_blocks_is_drawn_anew_for_each(monkeypatch):
    blocks(monkeypatch, 5)
    q, k, v = cr.zeros((20, 2), requires_grad=True), cr.zeros((50, 2)), cr.ones((50, 1))
    y = functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    assert len(np.unique(np.asarray(y.detach()))) > 8
    y.sum().backward()
    assert q.grad.shape == q.shape


def test_layer_learns_to_look_back():
    """One head learns to give the element before: positions in, values of the previous one out."""
    cr.manual_seed(0)
    n = 8
    layer = nn.MultiheadAttention(2 * n, 1, batch_first=True)
    opt = cr.optim.Adam(layer.parameters(), lr=0.01)
    position = np.broadcast_to(np.eye(n, dtype="f4"), (16, n, n))
    losses = []
    for i in range(150):
        symbols = np.eye(n, dtype="f4")[rng(i).integers(0, n, (16, n))]
        x = cr.asarray(np.concatenate([position, symbols], axis=2))
        opt.zero_grad()
        y, _ = layer(x, x, x, need_weights=False)
        loss = functional.cross_entropy(
            y[:, 1:, n:].reshape((16 * (n - 1), n)) * 4,
            cr.asarray(symbols[:, :-1].argmax(axis=2).reshape(-1)),
        )
        loss.backward()
        opt.step()
        losses.append(float(loss))
    assert losses[-1] < 0.25 * losses[0]


def test_weights_are_probabilities_and_without_them_the_result_is_the_same():
    layer = nn.MultiheadAttention(6, 3).double()
    x = cr.asarray(rng().standard_normal((5, 2, 6)))
    y, w = layer(x, x, x)
    assert w.shape == (2, 5, 5)
    np.testing.assert_allclose(cr.sum(w, axis=-1).detach(), np.ones((2, 5)), rtol=1e-12)
    z, nothing = layer(x, x, x, need_weights=False)
    assert nothing is None
    np.testing.assert_allclose(y.detach(), z.detach(), rtol=1e-12)
    assert layer(x, x, x, average_attn_weights=False)[1].shape == (2, 3, 5, 5)


def test_permuting_the_inputs_permutes_the_outputs():
    """Without positions attention cannot tell one order from another."""
    layer = nn.MultiheadAttention(6, 2).double()
    x = rng().standard_normal((5, 1, 6))
    order = [3, 0, 4, 1, 2]
    y, _ = layer(*[cr.asarray(x)] * 3)
    z, _ = layer(*[cr.asarray(x[order])] * 3)
    np.testing.assert_allclose(y.detach().numpy()[order], z.detach(), rtol=1e-12)


def test_derivatives_of_the_layer():
    for kwargs in ({"add_bias_kv": True}, {"kdim": 3, "vdim": 2, "add_zero_attn": True}):
        layer = nn.MultiheadAttention(4, 2, **kwargs).double()
        names = [name for name, _ in layer.named_parameters()]
        shapes = ((3, 2, 4), (2, 2, kwargs.get("kdim", 4)), (2, 2, kwargs.get("vdim", 4)))
        inputs = [
            cr.asarray(rng(i).standard_normal(s), requires_grad=True) for i, s in enumerate(shapes)
        ]
        parameters = [p.detach().requires_grad_() for p in layer.parameters()]

        def call(*values, layer=layer, names=names):
            given = dict(zip(names, values[3:], strict=True))
            return nn.utils.functional_call(layer, given, values[:3])

        assert cr.autograd.gradcheck(call, [*inputs, *parameters])


def test_dropout_is_for_training():
    layer = nn.MultiheadAttention(4, 2, dropout=0.5)
    x = cr.asarray(rng().standard_normal((5, 2, 4)).astype("f4"))
    for need in (True, False):
        layer.train()
        one, two = (layer(x, x, x, need_weights=need)[0].detach() for _ in range(2))
        assert not np.array_equal(one, two)
        layer.eval()
        one, two = (layer(x, x, x, need_weights=need)[0].detach() for _ in range(2))
        np.testing.assert_array_equal(one, two)


def test_text_names_the_parts():
    text = repr(nn.MultiheadAttention(4, 2))
    assert text.startswith("MultiheadAttention(\n  (out_proj): ")
    assert "in_features=4, out_features=4, bias=True" in text


Z = cr.zeros((3, 2, 4))
MISTAKES = [
    (lambda: nn.MultiheadAttention(5, 2), "multiple of num_heads"),
    (lambda: nn.MultiheadAttention(4, 2, dropout=2), "probability"),
    (lambda: nn.MultiheadAttention(4, 2)(Z, Z, cr.zeros((3, 2, 5))), r"\(3, 2, 5\)"),
    (lambda: nn.MultiheadAttention(4, 2)(Z, Z, cr.zeros((4, 2, 4))), "a value for each key"),
    (lambda: nn.MultiheadAttention(4, 2)(Z[0], Z, Z), "the same of all three"),
    (lambda: nn.MultiheadAttention(4, 2)(Z, Z, Z, is_causal=True), "attn_mask"),
    (lambda: nn.MultiheadAttention(4, 2)(Z, Z, Z, attn_mask=cr.zeros((2, 2))), r"\(3, 3\)"),
    (lambda: nn.MultiheadAttention(4, 2)(Z, Z, Z, cr.zeros((3, 2)) > 0), r"\(2, 3\)"),
    (lambda: nn.MultiheadAttention(4, 2)(Z, Z, Z, cr.zeros((2, 3), dtype=cr.int64)), "int64"),
    (lambda: functional.scaled_dot_product_attention(Z, Z, Z[:, :1]), "a value for each key"),
    (lambda: functional.scaled_dot_product_attention(Z, Z[..., :3], Z), "equal length"),
    (lambda: functional.scaled_dot_product_attention(Z, Z, Z.astype(cr.float64)), "float64"),
    (
        lambda: functional.scaled_dot_product_attention(Z, Z, Z, cr.zeros((2, 2)), is_causal=True),
        "not both",
    ),
    (lambda: functional.scaled_dot_product_attention(Z, Z, Z, cr.zeros((3, 2))), r"\(3, 2\)"),
    (lambda: functional.scaled_dot_product_attention(Z, Z, Z, dropout_p=-1.0), "probability"),
    (
        lambda: functional.scaled_dot_product_attention(Z, Z[:2], Z[:2], enable_gqa=True),
        "enable_gqa",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_mistakes_are_explained(call, message):
    with pytest.raises(cr.errors.ChainruleError, match=message):
        call()
