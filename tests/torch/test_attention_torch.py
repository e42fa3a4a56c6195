"""Attention against PyTorch: results, weights, first and second derivatives, state."""

import itertools

import numpy as np
import pytest
from nn_agreement import agree

torch = pytest.importorskip("torch")

import chainrule as cr  # noqa: E402
from chainrule import nn  # noqa: E402
from chainrule.nn.functional import attention  # noqa: E402

TIGHT = {"rtol": 1e-10, "atol": 1e-11}


@pytest.fixture(autouse=True)
def with_second_derivatives():
    """PyTorch's fused attention has none."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        yield


def rng(seed=0):
    return np.random.default_rng(seed)


def masks(kind, lead, length, keys):
    """A mask for scaled_dot_product_attention, and other arguments."""
    if kind == "causal":
        return None, {"is_causal": True}
    if kind == "bool":
        mask = rng(5).random((*lead, length, keys)) < 0.6
        mask[..., 0] = True
        return mask, {}
    if kind == "keys":
        mask = rng(5).random((*lead[:1], *(1,) * len(lead[1:]), 1, keys)) < 0.6
        mask[..., 0] = True
        return mask, {}
    if kind == "float":
        mask = rng(5).standard_normal((length, keys))
        mask[0, 1] = -np.inf
        return mask, {}
    return None, {"scale": 0.3}


def both(mask):
    return (None, None) if mask is None else (cr.asarray(mask), torch.tensor(mask))


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("kind", ["none", "causal", "bool", "keys", "float"])
@pytest.mark.parametrize(("length", "keys"), [(5, 5), (9, 3), (4, 6)])
def test_scaled_dot_product_attention(kind, length, keys, blocked, monkeypatch):
    if blocked:
        monkeypatch.setattr(attention, "WHOLE", 0)
        monkeypatch.setattr(attention, "BLOCK", 2)
    lead = (2, 3)
    mask, kwargs = masks(kind, lead, length, keys)
    ours, theirs = both(mask)
    agree(
        lambda q, k, v: nn.functional.scaled_dot_product_attention(q, k, v, ours, **kwargs),
        lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, theirs, **kwargs),
        rng(0).standard_normal((*lead, length, 4)), rng(1).standard_normal((*lead, keys, 4)),
        rng(2).standard_normal((*lead, keys, 2)), **TIGHT,
    )  # fmt: skip


@pytest.mark.parametrize("blocked", [False, True])
def test_a_query_that_may_look_at_nothing_gives_zero(blocked, monkeypatch):
    if blocked:
        monkeypatch.setattr(attention, "WHOLE", 0)
        monkeypatch.setattr(attention, "BLOCK", 2)
    mask = rng(5).random((2, 1, 5, 4)) < 0.5
    mask[0, 0, 3] = mask[1, 0, 0] = False
    for m in (mask, np.where(mask, 0.0, -np.inf)):
        ours, theirs = both(m)
        agree(
            lambda q, k, v, m=ours: nn.functional.scaled_dot_product_attention(q, k, v, m),
            lambda q, k, v, m=theirs: torch.nn.functional.scaled_dot_product_attention(q, k, v, m),
            rng(0).standard_normal((2, 3, 5, 4)), rng(1).standard_normal((2, 3, 4, 4)),
            rng(2).standard_normal((2, 3, 4, 4)), second=False, **TIGHT,
        )  # fmt: skip


def test_a_mask_has_a_gradient_too():
    agree(
        lambda q, k, v, m: nn.functional.scaled_dot_product_attention(q, k, v, m),
        lambda q, k, v, m: torch.nn.functional.scaled_dot_product_attention(q, k, v, m),
        *[rng(i).standard_normal(s) for i, s in enumerate(((4, 3), (5, 3), (5, 3), (4, 5)))],
        **TIGHT,
    )


def test_grouped_queries():
    for key_heads, value_heads in ((2, 2), (1, 1), (4, 4)):
        agree(
            lambda q, k, v: nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True),
            lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(
                q, k, v, enable_gqa=True
            ),
            rng(0).standard_normal((2, 4, 5, 3)), rng(1).standard_normal((2, key_heads, 5, 3)),
            rng(2).standard_normal((2, value_heads, 5, 3)), **TIGHT,
        )  # fmt: skip


LAYERS = [
    {}, {"bias": False}, {"kdim": 5, "vdim": 3}, {"add_bias_kv": True}, {"add_zero_attn": True},
    {"add_bias_kv": True, "add_zero_attn": True, "kdim": 4}, {"batch_first": True},
]  # fmt: skip


def twins(kwargs):
    ours = nn.MultiheadAttention(6, 2, **kwargs).double()
    theirs = torch.nn.MultiheadAttention(6, 2, **kwargs).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(rng(int(p.numel())).standard_normal(p.shape)))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def layer_masks(kind, n, length, keys):
    """Arguments of the layer that mask."""
    generator = rng(7)
    found = {}
    if "pad" in kind:
        padding = generator.random((n, keys)) < 0.4
        padding[:, 0] = False
        found["key_padding_mask"] = padding if "bool" in kind else padding * -1.5
    if "attn" in kind:
        shape = (n * 2, length, keys) if "heads" in kind else (length, keys)
        mask = generator.random(shape) < 0.4
        mask[..., 0] = False
        found["attn_mask"] = mask if "bool" in kind else mask * 2.0 - 1
    if "causal" in kind:
        found["attn_mask"] = np.triu(np.ones((length, keys), dtype=bool), 1)
        found["is_causal"] = True
    return found


KINDS = ["", "pad bool", "pad", "attn bool", "attn heads", "attn bool pad heads", "causal"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kwargs", LAYERS)
@pytest.mark.parametrize("need_weights", [False, True])
def test_layer(kwargs, need_weights):
    ours, theirs = twins(kwargs)
    n, length, keys = 2, 4, 3
    sizes = (6, kwargs.get("kdim", 6), kwargs.get("vdim", 6))
    shapes = [
        (n, t, d) if kwargs.get("batch_first") else (t, n, d)
        for t, d in zip((length, keys, keys), sizes, strict=True)
    ]
    arrays = [rng(i).standard_normal(s) for i, s in enumerate(shapes)]
    for kind in KINDS:
        masking = layer_masks(kind, n, length, keys)
        mine = {k: v if k == "is_causal" else cr.asarray(v) for k, v in masking.items()}
        other = {k: v if k == "is_causal" else torch.tensor(v) for k, v in masking.items()}
        how = {"need_weights": need_weights, "average_attn_weights": kind != "pad"}
        agree(
            lambda q, k, v, m=mine, how=how: ours(q, k, v, **m, **how)[0],
            lambda q, k, v, m=other, how=how: theirs(q, k, v, **m, **how)[0],
            *arrays, **TIGHT,
        )  # fmt: skip
        a = ours(*map(cr.asarray, arrays), **mine, **how)[1]
        b = theirs(*map(torch.tensor, arrays), **other, **how)[1]
        assert (a is None) == (b is None) == (not need_weights)
        if need_weights:
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), **TIGHT)
            assert a.shape == b.shape


@pytest.mark.parametrize("batch_first", [False, True])
def test_self_attention_and_gradients_of_parameters(batch_first):
    ours, theirs = twins({"batch_first": batch_first})
    x = rng().standard_normal((4, 3, 6))
    for shared in (3, 2):
        a, b = cr.asarray(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        c, d = cr.asarray(x[::-1].copy()), torch.tensor(x[::-1].copy())
        mine = ours(a, a, a) if shared == 3 else ours(c, a, a)
        other = theirs(b, b, b) if shared == 3 else theirs(d, b, b)
        weight = rng(1).standard_normal(x.shape)
        ours.zero_grad()
        theirs.zero_grad()
        (mine[0] * cr.asarray(weight)).sum().backward()
        (other[0] * torch.tensor(weight)).sum().backward()
        np.testing.assert_allclose(a.grad, b.grad.numpy(), **TIGHT)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(p.grad, q.grad.numpy(), **TIGHT)


def test_one_sequence_without_a_batch():
    ours, theirs = twins({})
    arrays = [rng(i).standard_normal((t, 6)) for i, t in enumerate((4, 3, 3))]
    padding = np.array([False, True, False])
    a = ours(*map(cr.asarray, arrays), key_padding_mask=cr.asarray(padding))
    b = theirs(*map(torch.tensor, arrays), key_padding_mask=torch.tensor(padding))
    for mine, other in zip(a, b, strict=True):
        assert mine.shape == tuple(other.shape)
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), **TIGHT)


def test_initial_values_are_pytorch_s():
    cr.manual_seed(0)
    torch.manual_seed(0)
    for kwargs in ({"add_bias_kv": True}, {"kdim": 40, "vdim": 90}):
        ours = nn.MultiheadAttention(64, 4, **kwargs)
        theirs = torch.nn.MultiheadAttention(64, 4, **kwargs)
        for key, value in theirs.state_dict().items():
            a, b = np.asarray(ours.state_dict()[key]), value.numpy()
            assert a.std() == pytest.approx(b.std(), rel=0.35 if a.size < 100 else 0.05, abs=1e-9)


def test_every_combination_of_masks_and_extra_keys_has_the_right_shape():
    x = cr.zeros((4, 2, 6))
    for bias_kv, zero, need in itertools.product((False, True), repeat=3):
        layer = nn.MultiheadAttention(6, 3, add_bias_kv=bias_kv, add_zero_attn=zero)
        y, w = layer(x, x, x, need_weights=need)
        assert y.shape == x.shape
        assert w is None or w.shape == (2, 4, 4 + bias_kv + zero)
