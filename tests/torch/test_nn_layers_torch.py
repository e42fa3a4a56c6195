"""Layers against PyTorch: state, output, first and second derivatives, over a grid of arguments."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import chainrule as cr  # noqa: E402
from chainrule import nn  # noqa: E402

IMAGE = (2, 4, 7, 6)


def conv_cases(n):
    """Arguments of Conv{n}d with an input shape each: odd sizes, every argument at work."""
    size = {1: (11,), 2: (8, 7), 3: (5, 6, 5)}[n]
    other = {1: 2, 2: (3, 2), 3: (2, 1, 3)}[n]
    yield (4, 6, 3), {}, (2, 4, *size)
    yield (4, 6, 1), {"bias": False}, (3, 4, *size)
    yield (4, 6, 3), {"stride": 2, "padding": 1}, (2, 4, *size)
    yield (4, 6, other), {"stride": other, "padding": 1, "dilation": 2}, (2, 4, *size)
    yield (4, 6, 3), {"groups": 2, "padding": 2}, (1, 4, *size)
    yield (4, 8, 3), {"groups": 4, "stride": 2, "bias": False}, (2, 4, *size)
    yield (4, 2, 4), {"padding": "same"}, (2, 4, *size)
    yield (4, 2, 3), {"padding": "same", "dilation": 2}, (2, 4, *size)
    yield (4, 2, 2), {"padding": "valid"}, (2, 4, *size)
    yield (4, 2, 3), {"padding": 1}, (4, *size)
    yield (4, 2, 3), {"padding": 2, "padding_mode": "reflect"}, (2, 4, *size)
    yield (4, 2, 3), {"padding": 2, "padding_mode": "replicate", "stride": 2}, (2, 4, *size)
    yield (4, 2, 3), {"padding": 1, "padding_mode": "circular"}, (2, 4, *size)
    yield (4, 2, 4), {"padding": "same", "padding_mode": "circular"}, (2, 4, *size)


def conv_transpose_cases(n):
    size = {1: (7,), 2: (4, 5), 3: (3, 4, 2)}[n]
    other = {1: 2, 2: (3, 2), 3: (2, 1, 3)}[n]
    yield (4, 6, 3), {}, (2, 4, *size)
    yield (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, (2, 4, *size)
    yield (4, 6, other), {"stride": 3, "bias": False, "output_padding": 2}, (2, 4, *size)
    yield (4, 6, 3), {"dilation": 3, "output_padding": 2, "padding": 1}, (2, 4, *size)
    yield (4, 6, 3), {"dilation": 3, "output_padding": 2}, (2, 4, *size)
    yield (4, 6, 3), {"dilation": 4, "output_padding": 3, "padding": 2, "stride": 2}, (2, 4, *size)
    yield (4, 6, 2), {"groups": 2, "stride": 2}, (2, 4, *size)
    yield (4, 6, 3), {"stride": 2}, (4, *size)


def pool_cases():
    for n, shape in ((1, (2, 3, 11)), (2, (2, 3, 9, 8)), (3, (2, 2, 6, 5, 7))):
        for kwargs in (
            {"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1},
            {"kernel_size": 3, "stride": 2, "ceil_mode": True},
            {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
        ):  # fmt: skip
            yield f"MaxPool{n}d", (), kwargs, shape
            yield f"AvgPool{n}d", (), kwargs, shape
        yield f"MaxPool{n}d", (), {"kernel_size": 3, "dilation": 2, "stride": 1}, shape
        yield f"MaxPool{n}d", (), {"kernel_size": 2, "dilation": 3, "padding": 1}, shape
        yield f"MaxPool{n}d", (2,), {}, shape[1:]
        avg = {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}
        yield f"AvgPool{n}d", (), avg, shape
        yield f"AvgPool{n}d", (), avg | {"ceil_mode": True}, shape
        if n > 1:
            yield f"AvgPool{n}d", (), {"kernel_size": 2, "divisor_override": 3}, shape
        for p in (1, 2, 3, 1.5):
            positive = p == 1.5
            yield f"LPPool{n}d", (p, 2), {"stride": 1}, shape, positive
            yield f"LPPool{n}d", (p, 3), {"ceil_mode": True}, shape, True
        for out in (1, 2, 5, 4):
            yield f"AdaptiveAvgPool{n}d", (out,), {}, shape
            yield f"AdaptiveMaxPool{n}d", (out,), {}, shape
        yield f"AdaptiveAvgPool{n}d", (3,), {}, shape[1:]
    yield "AdaptiveAvgPool2d", ((3, None),), {}, (2, 3, 9, 8)
    yield "AdaptiveMaxPool2d", ((None, 7),), {}, (2, 3, 9, 8)
    yield "AdaptiveAvgPool3d", ((1, None, 2),), {}, (2, 2, 6, 5, 7)
    yield "MaxPool2d", ((3, 2),), {"stride": (2, 1), "padding": (1, 0)}, (2, 3, 9, 8)


def norm_cases():
    shapes = {1: (4, 3, 5), 2: (2, 3, 5, 4), 3: (2, 3, 2, 3, 4)}
    for n, shape in shapes.items():
        yield f"BatchNorm{n}d", (3,), {}, shape
        yield f"BatchNorm{n}d", (3,), {"momentum": None, "eps": 0.1}, shape
        yield f"BatchNorm{n}d", (3,), {"affine": False, "momentum": 0.3}, shape
        yield f"BatchNorm{n}d", (3,), {"track_running_stats": False}, shape
        yield f"BatchNorm{n}d", (3,), {"bias": False}, shape
        yield f"InstanceNorm{n}d", (3,), {}, shape
        yield f"InstanceNorm{n}d", (3,), {"affine": True, "track_running_stats": True}, shape
        yield f"InstanceNorm{n}d", (3,), {"affine": True, "momentum": 0.2}, shape[1:]
    yield "BatchNorm1d", (6,), {}, (5, 6)
    yield "LayerNorm", (6,), {}, (2, 5, 6)
    yield "LayerNorm", ((5, 6),), {"eps": 1e-3}, (2, 5, 6)
    yield "LayerNorm", ([6],), {"elementwise_affine": False}, (4, 6)
    yield "LayerNorm", (6,), {"bias": False}, (6,)
    yield "RMSNorm", (6,), {}, (2, 5, 6)
    yield "RMSNorm", ((5, 6),), {"eps": 1e-3}, (2, 5, 6)
    yield "RMSNorm", (6,), {"elementwise_affine": False}, (4, 6)
    yield "GroupNorm", (2, 6), {}, (3, 6, 4, 5)
    yield "GroupNorm", (6, 6), {"affine": False}, (3, 6, 4)
    yield "GroupNorm", (1, 6), {"eps": 1e-2}, (3, 6)
    yield "GroupNorm", (3, 6), {"bias": False}, (2, 6, 3)
    for size in (1, 2, 3, 5, 9):
        yield "LocalResponseNorm", (size,), {"alpha": 0.3, "k": 1.5}, (2, 5, 4, 3)
    yield "LocalResponseNorm", (3,), {"beta": 1.2}, (2, 5, 4)


def shape_cases():
    yield "Flatten", (), {}, (2, 3, 4, 5)
    yield "Flatten", (0, 2), {}, (2, 3, 4, 5)
    yield "Flatten", (-2,), {}, (2, 3, 4)
    yield "Unflatten", (1, (2, 3)), {}, (4, 6, 2)
    yield "Unflatten", (-1, (-1, 3)), {}, (4, 6)
    yield "Identity", (54,), {"unused": 1}, (3, 2)
    yield "PixelShuffle", (2,), {}, (2, 8, 3, 4)
    yield "PixelShuffle", (3,), {}, (9, 2, 3)
    yield "PixelUnshuffle", (2,), {}, (2, 3, 4, 6)
    yield "Unfold", (3,), {"padding": 1, "stride": 2}, (2, 3, 6, 7)
    yield "Unfold", ((2, 3),), {"dilation": (2, 1), "padding": (1, 0)}, (3, 6, 7)
    yield "Fold", ((5, 6), 2), {}, (2, 12, 20)
    yield "Fold", ((6, 5), (3, 2)), {"padding": 1, "stride": (2, 1), "dilation": (1, 2)}, (6, 15)
    spatial = {1: (7,), 2: (5, 6), 3: (3, 4, 5)}
    linear = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}
    for n, size in spatial.items():
        shape = (2, 3, *size)
        for how in ({"scale_factor": 2}, {"size": (4, 9, 3)[:n]}, {"scale_factor": 1.7}):
            for mode in ("nearest", "nearest-exact", "area"):
                yield "Upsample", (), {**how, "mode": mode}, shape
            for mode in linear[n]:
                for corners in (None, False, True):
                    yield "Upsample", (), {**how, "mode": mode, "align_corners": corners}, shape
        recomputed = {"scale_factor": 1.7, "recompute_scale_factor": True}
        yield "Upsample", (), {**recomputed, "mode": linear[n][0]}, shape
        yield "Upsample", (), {"size": size, "mode": linear[n][0]}, shape
    yield "Upsample", (), {"size": (1, 1), "mode": "bicubic", "align_corners": True}, (1, 2, 4, 5)
    yield "Upsample", (), {"scale_factor": (2.5, 0.5), "mode": "bilinear"}, (1, 2, 4, 6)
    yield "UpsamplingNearest2d", (), {"scale_factor": 3}, (1, 2, 3, 4)
    yield "UpsamplingBilinear2d", (), {"size": (7, 5)}, (1, 2, 3, 4)


def linear_cases():
    yield "Linear", (5, 3), {}, (4, 5)
    yield "Linear", (5, 3), {"bias": False}, (2, 3, 4, 5)
    yield "Linear", (5, 3), {}, (5,)
    yield "Linear", (5, 1), {}, (7, 5)
    yield "Linear", (5, 3), {}, (0, 5)


def convolutions():
    for n in (1, 2, 3):
        for args, kwargs, shape in conv_cases(n):
            yield f"Conv{n}d", args, kwargs, shape
        for args, kwargs, shape in conv_transpose_cases(n):
            yield f"ConvTranspose{n}d", args, kwargs, shape


CASES = [*linear_cases(), *convolutions(), *pool_cases(), *norm_cases(), *shape_cases()]


def label(case):
    name, args, kwargs, shape = case[:4]
    given = [*map(str, args), *(f"{k}={v}" for k, v in kwargs.items())]
    return f"{name}({', '.join(given)})-{'x'.join(map(str, shape))}".replace(" ", "")


def twins(name, args, kwargs, seed=0):
    """One layer of each, in float64, with the same random state."""
    ours = getattr(nn, name)(*args, **kwargs).double()
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    generator = np.random.default_rng(seed)
    state = {}
    for key, value in theirs.state_dict().items():
        assert key in ours.state_dict()
        drawn = generator.standard_normal(value.shape)
        if key.endswith("running_var"):
            drawn = np.abs(drawn) + 0.5
        state[key] = np.zeros((), np.int64) if key.endswith("tracked") else drawn
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    ours.load_state_dict(state)
    return ours, theirs


def close(ours, theirs, what):
    a = np.asarray(ours.detach()) if isinstance(ours, cr.Tensor) else ours
    b = theirs.detach().numpy()
    assert a.shape == b.shape, what
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10, err_msg=what)


def compare_derivatives(ours, theirs, xs, f_ours=None, f_theirs=None):
    """Output, gradients, and gradients of a function of the gradients, by everything."""
    generator = np.random.default_rng(7)
    a = [cr.asarray(x.copy(), requires_grad=True) for x in xs]
    b = [torch.tensor(x, requires_grad=True) for x in xs]
    y, z = (f_ours or ours)(*a), (f_theirs or theirs)(*b)
    close(y, z, "output")
    mine, other = [*a, *ours.parameters()], [*b, *theirs.parameters()]
    upstream = generator.standard_normal(z.shape)
    first = cr.autograd.grad(y, mine, cr.asarray(upstream), create_graph=True)
    g = torch.autograd.grad(z, other, torch.tensor(upstream), create_graph=True)
    for i, (p, q) in enumerate(zip(first, g, strict=True)):
        close(p, q, f"first derivative {i}")
    weights = [generator.standard_normal(q.shape) for q in g]
    total = sum((p * cr.asarray(w)).sum() for p, w in zip(first, weights, strict=True))
    reference = sum((q * torch.tensor(w)).sum() for q, w in zip(g, weights, strict=True))
    if not reference.requires_grad:
        return
    second = cr.autograd.grad(total, mine, allow_unused=True) if total.requires_grad else ()
    h = torch.autograd.grad(reference, other, allow_unused=True)
    for i, q in enumerate(h):
        p = second[i] if second else None
        size = np.zeros(other[i].shape) if p is None else p
        close(size, torch.zeros(other[i].shape) if q is None else q, f"second derivative {i}")


@pytest.mark.parametrize("case", CASES, ids=label)
def test_layer(case):
    name, args, kwargs, shape, *positive = case
    x = np.random.default_rng(1).standard_normal(shape)
    x = np.abs(x) if positive and positive[0] else x
    ours, theirs = twins(name, args, kwargs)
    assert repr(ours) == repr(theirs)
    for mode in (True, False):
        ours.train(mode)
        theirs.train(mode)
        compare_derivatives(ours, theirs, [x])
        for key, value in theirs.state_dict().items():
            close(ours.state_dict()[key], value, key)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_bilinear(lead):
    generator = np.random.default_rng(0)
    for bias in (True, False):
        ours, theirs = twins("Bilinear", (4, 3, 5), {"bias": bias})
        xs = [generator.standard_normal((*lead, 4)), generator.standard_normal((*lead, 3))]
        compare_derivatives(ours, theirs, xs)
        assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_conv_transpose_output_size(n):
    spatial = (5, 4, 3)[:n]
    ours, theirs = twins(f"ConvTranspose{n}d", (2, 3, 3), {"stride": 3, "padding": 1})
    x = np.random.default_rng(0).standard_normal((2, 2, *spatial))
    least = [(m - 1) * 3 - 2 + 3 for m in spatial]
    for extra in (0, 1, 2):
        size = [m + extra for m in least]
        for given in (size, [2, 3, *size]):
            compare_derivatives(
                ours, theirs, [x], lambda t, s=given: ours(t, output_size=s),
                lambda t, s=given: theirs(t, output_size=s),
            )  # fmt: skip
    with pytest.raises(cr.errors.ArgumentError, match="sizes from"):
        ours(cr.asarray(x), output_size=[m + 3 for m in least])


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("how", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}])
def test_max_pool_indices_and_unpool(n, how):
    x = np.random.default_rng(0).standard_normal((2, 3, *(7, 6, 8)[:n]))
    ours = getattr(nn, f"MaxPool{n}d")(return_indices=True, **how)
    theirs = getattr(torch.nn, f"MaxPool{n}d")(return_indices=True, **how)
    (y, i), (z, j) = ours(cr.asarray(x)), theirs(torch.tensor(x))
    close(y, z, "values")
    assert i.dtype == cr.int64
    np.testing.assert_array_equal(np.asarray(i), j.numpy())
    up, up2 = getattr(nn, f"MaxUnpool{n}d")(**how), getattr(torch.nn, f"MaxUnpool{n}d")(**how)
    assert repr(up) == repr(up2)
    size = x.shape
    # Overlapping windows may name one place twice; with one window each the way back is unique.
    if how["kernel_size"] == 2:
        compare_derivatives(
            up, up2, [np.asarray(y)], lambda t: up(t, i, output_size=size),
            lambda t: up2(t, j, output_size=list(size)),
        )  # fmt: skip
        compare_derivatives(up, up2, [np.asarray(y)], lambda t: up(t, i), lambda t: up2(t, j))
    out, (values, index) = (4, 3, 5)[:n], (None, None)
    values, index = getattr(nn.functional, f"adaptive_max_pool{n}d")(cr.asarray(x), out, True)
    expected = getattr(torch.nn.functional, f"adaptive_max_pool{n}d")(torch.tensor(x), out, True)
    close(values, expected[0], "adaptive values")
    np.testing.assert_array_equal(np.asarray(index), expected[1].numpy())


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("how", [{"output_size": 3}, {"output_ratio": 0.6}, {"output_size": 1}])
def test_fractional_max_pool(n, how):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((3, 4, *(9, 8, 7)[:n]))
    u = generator.random((3, 4, n))
    how = {"kernel_size": (2, 3, 2)[:n], "return_indices": True, **how}
    name = f"FractionalMaxPool{n}d"
    ours = getattr(nn, name)(**how, _random_samples=cr.asarray(u))
    theirs = getattr(torch.nn, name)(**how, _random_samples=torch.tensor(u))
    compare_derivatives(
        ours, theirs, [x], lambda t: ours(t)[0], lambda t: theirs(t)[0]
    )  # fmt: skip
    np.testing.assert_array_equal(
        np.asarray(ours(cr.asarray(x))[1]), theirs(torch.tensor(x))[1].numpy()
    )
    assert repr(ours) == repr(theirs)
    free = getattr(nn, name)(**how)
    cr.manual_seed(0)
    first = free(cr.asarray(x))[1]
    assert (np.asarray(first) != np.asarray(free(cr.asarray(x))[1])).any() or how.get(
        "output_size"
    ) == 1


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim):
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6))
    ours, theirs = nn.Conv2d(3, 4, 2).double(), torch.nn.Conv2d(3, 4, 2).double()
    nn.utils.parametrizations.weight_norm(ours, dim=dim)
    torch.nn.utils.parametrizations.weight_norm(theirs, dim=dim)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    close(ours(cr.asarray(x)), theirs(torch.tensor(x)), "output")

    def composed(x):
        # PyTorch's fused form along axis 0 fails its own gradgradcheck; the formula does not.
        g, v = (getattr(theirs.parametrizations.weight, f"original{i}") for i in (0, 1))
        axes = [a for a in range(4) if a != dim]
        w = v * (g / v.square().sum(axes, keepdim=True).sqrt())
        return torch.nn.functional.conv2d(x, w, theirs.bias)

    compare_derivatives(ours, theirs, [x], f_theirs=composed)


@pytest.mark.parametrize("name", ["Linear", "Conv1d", "ConvTranspose1d"])
def test_spectral_norm(name):
    args = (3, 4) if name == "Linear" else (3, 4, 2)
    x = np.random.default_rng(0).standard_normal((2, 3) if name == "Linear" else (2, 3, 6))
    ours, theirs = getattr(nn, name)(*args).double(), getattr(torch.nn, name)(*args).double()
    nn.utils.parametrizations.spectral_norm(ours, n_power_iterations=2)
    torch.nn.utils.parametrizations.spectral_norm(theirs, n_power_iterations=2)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for mode in (True, False):
        compare_derivatives(ours.train(mode), theirs.train(mode), [x])
        for key, value in theirs.state_dict().items():
            close(ours.state_dict()[key], value, key)


@pytest.mark.parametrize("name", ["Conv2d", "ConvTranspose2d"])
def test_folding(name):
    ours, theirs = twins(name, (2, 3, 2), {})
    norm, norm2 = twins("BatchNorm2d", (3,), {})
    transpose = name == "ConvTranspose2d"
    mine = nn.utils.fuse_conv_bn_eval(ours.eval(), norm.eval(), transpose)
    reference = torch.nn.utils.fuse_conv_bn_eval(theirs.eval(), norm2.eval(), transpose)
    close(mine.weight, reference.weight, "weight")
    close(mine.bias, reference.bias, "bias")


SAMPLED = [
    (mode, padding, corners, n)
    for mode in ("bilinear", "nearest", "bicubic")
    for padding in ("zeros", "border", "reflection")
    for corners in (False, True)
    for n in ((2, 3) if mode != "bicubic" else (2,))
]


@pytest.mark.parametrize(("mode", "padding", "corners", "n"), SAMPLED)
def test_grid_sample(mode, padding, corners, n):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 3, *(5, 4, 6)[:n]))
    grid = generator.uniform(-1.7, 1.7, (2, *(3, 4, 2)[:n], n))
    how = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    a, b = cr.asarray(x, requires_grad=True), cr.asarray(grid, requires_grad=True)
    c, d = torch.tensor(x, requires_grad=True), torch.tensor(grid, requires_grad=True)
    y, z = nn.functional.grid_sample(a, b, **how), torch.nn.functional.grid_sample(c, d, **how)
    close(y, z, "output")
    upstream = generator.standard_normal(y.shape)
    y.backward(cr.asarray(upstream))
    z.backward(torch.tensor(upstream))
    close(a.grad, c.grad, "by the input")
    if mode == "nearest":
        assert b.grad is None
        assert not d.grad.any()
    else:
        close(b.grad, d.grad, "by the grid")


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 1, 3), (2, 3, 2, 4, 3)])
def test_affine_grid(size, corners):
    n = len(size) - 2
    theta = np.random.default_rng(0).standard_normal((2, n, n + 1))
    compare_derivatives(
        nn.Identity(), torch.nn.Identity(), [theta],
        lambda t: nn.functional.affine_grid(t, size, corners),
        lambda t: torch.nn.functional.affine_grid(t, size, corners),
    )  # fmt: skip


def test_nearest_sizes_fall_where_pytorch_s_do():
    """Positions that fall on an edge between elements, in both precisions."""
    for dtype in (np.float32, np.float64):
        for n_in in range(1, 24):
            x = np.arange(n_in, dtype=dtype).reshape(1, 1, n_in)
            for n_out in range(1, 50):
                for mode in ("nearest", "nearest-exact"):
                    y = nn.functional.interpolate(cr.asarray(x), n_out, mode=mode)
                    z = torch.nn.functional.interpolate(torch.tensor(x), n_out, mode=mode)
                    close(y, z, f"{mode} {n_in} to {n_out} in {dtype.__name__}")


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(3, 4), (5, 20), (9, 11), (1, 2)])
def test_antialiased(mode, size):
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 11))
    for corners in (False,) if mode == "lanczos" else (False, True):
        y = nn.functional.interpolate(
            cr.asarray(x), size, mode=mode, antialias=True, align_corners=corners
        )
        z = torch.nn.functional.interpolate(
            torch.tensor(x), size, mode=mode, antialias=True, align_corners=corners
        )
        close(y, z, mode)


def test_float32_too():
    """Single precision goes the same way, to its own rounding."""
    x = np.random.default_rng(0).standard_normal((4, 3, 12, 12)).astype(np.float32)
    ours = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(288, 5),
    )  # fmt: skip
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(288, 5),
    )  # fmt: skip
    ours.load_state_dict(theirs.state_dict())
    y, z = ours(cr.asarray(x)), theirs(torch.tensor(x))
    assert y.dtype == cr.float32
    np.testing.assert_allclose(np.asarray(y.detach()), z.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_initial_bounds_are_pytorch_s():
    """The same distributions: equal bounds of all weights and biases, from many draws."""
    cr.manual_seed(0)
    torch.manual_seed(0)
    for name, args in (
        ("Linear", (40, 900)), ("Bilinear", (4, 3, 900)), ("Conv1d", (8, 900, 5)),
        ("Conv2d", (6, 900, 2)), ("ConvTranspose2d", (6, 900, 2)), ("Conv3d", (3, 900, 2)),
        ("ConvTranspose1d", (4, 900, 3)),
    ):  # fmt: skip
        ours, theirs = getattr(nn, name)(*args), getattr(torch.nn, name)(*args)
        for key, value in theirs.state_dict().items():
            a, b = np.asarray(ours.state_dict()[key]), value.numpy()
            assert np.abs(a).max() == pytest.approx(np.abs(b).max(), rel=0.03), (name, key)
            assert a.std() == pytest.approx(b.std(), rel=0.1), (name, key)


def test_weights_from_pytorch_give_the_same_outputs_and_gradients(tmp_path):
    safetensors_torch = pytest.importorskip("safetensors.torch")

    def network(room):
        return room.Sequential(
            room.Conv2d(1, 6, 5, padding=2), room.BatchNorm2d(6), room.ReLU(), room.MaxPool2d(2),
            room.Conv2d(6, 16, 5, bias=False), room.GroupNorm(4, 16), room.Tanh(),
            room.AvgPool2d(2), room.Flatten(), room.Linear(400, 84), room.LayerNorm(84),
            room.GELU(), room.Linear(84, 10),
        )  # fmt: skip

    theirs = network(torch.nn).double()
    x = np.random.default_rng(0).standard_normal((8, 1, 28, 28))
    theirs(torch.tensor(x))  # so that the running averages are not the initial ones
    safetensors_torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    ours = network(nn).double()
    assert not any(ours.load_state_dict(cr.load(tmp_path / "model.safetensors")))
    assert repr(ours) == repr(theirs)
    for mode in (False, True):
        y, z = ours.train(mode)(cr.asarray(x)), theirs.train(mode)(torch.tensor(x))
        close(y, z, "output")
        ours.zero_grad()
        theirs.zero_grad()
        y.square().sum().backward()
        z.square().sum().backward()
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-9, atol=1e-9, err_msg=name)
