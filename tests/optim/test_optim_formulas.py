"""Every optimiser against its formula, written down a second time in NumPy from the papers."""

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import optim

STEPS = 50


class Problem:
    """The gradient of a quadratic plus a cosine, with noise that is the same in every run."""

    def __init__(self, shape=(4, 3)):
        rng = np.random.default_rng(7)
        self.start = rng.normal(size=shape)
        self.matrix = rng.normal(size=(6, shape[0]))
        self.target = rng.normal(size=(6, *shape[1:]))
        self.noise = rng.normal(size=(STEPS, *shape))

    def gradient(self, w, t):
        fit = self.matrix.T @ (self.matrix @ w - self.target)
        return 0.3 * fit - np.sin(w) + self.noise[t - 1]


PROBLEM = Problem()


def trajectory(cls, options, steps=STEPS, dtype="float64"):
    """The weights after every step of an optimiser."""
    p = cr.asarray(PROBLEM.start.astype(dtype), requires_grad=True)
    opt = cls([p], **options)
    path = []
    for t in range(1, steps + 1):
        p.grad = cr.asarray(PROBLEM.gradient(p.detach().numpy(), t).astype(dtype))
        opt.step()
        path.append(p.detach().numpy().copy())
    return np.stack(path)


def reference(step, options):
    """The weights after every step of a NumPy formula `step(w, g, t, memory, **options)`."""
    options = dict(options)
    sign = -1 if options.pop("maximize", False) else 1
    w, memory, path = PROBLEM.start.copy(), {}, []
    for t in range(1, STEPS + 1):
        w = step(w, sign * PROBLEM.gradient(w, t), t, memory, **options)
        path.append(w.copy())
    return np.stack(path)


# --- the formulas ---------------------------------------------------------------------------------


def sgd(w, g, t, m, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False):
    g = g + weight_decay * w
    m["v"] = g if t == 1 else momentum * m["v"] + (1 - dampening) * g
    return w - lr * (g + momentum * m["v"] if nesterov else m["v"])


def adagrad(
    w, g, t, m, lr=1e-2, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10
):
    g = g + weight_decay * w
    m["s"] = m.get("s", initial_accumulator_value) + g**2
    return w - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(m["s"]) + eps)


def rmsprop(w, g, t, m, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False):
    g = g + weight_decay * w
    m["s"] = alpha * m.get("s", 0) + (1 - alpha) * g**2
    m["a"] = alpha * m.get("a", 0) + (1 - alpha) * g
    step = g / (np.sqrt(m["s"] - m["a"] ** 2 if centered else m["s"]) + eps)
    m["v"] = momentum * m.get("v", 0) + step
    return w - lr * m["v"]


def adadelta(w, g, t, m, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0):
    g = g + weight_decay * w
    m["s"] = rho * m.get("s", 0) + (1 - rho) * g**2
    step = np.sqrt(m.get("u", 0) + eps) / np.sqrt(m["s"] + eps) * g
    m["u"] = rho * m.get("u", 0) + (1 - rho) * step**2
    return w - lr * step


def moments(g, t, m, betas):
    m["m"] = betas[0] * m.get("m", 0) + (1 - betas[0]) * g
    m["v"] = betas[1] * m.get("v", 0) + (1 - betas[1]) * g**2
    return m["m"], m["v"], m["m"] / (1 - betas[0] ** t), m["v"] / (1 - betas[1] ** t)


def adam(
    w, g, t, m, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False,
    decoupled_weight_decay=False,
):  # fmt: skip
    if decoupled_weight_decay:
        w = w - lr * weight_decay * w
    else:
        g = g + weight_decay * w
    _, v, mean, square = moments(g, t, m, betas)
    if amsgrad:
        m["max"] = np.maximum(m.get("max", 0), v)
        square = m["max"] / (1 - betas[1] ** t)
    return w - lr * mean / (np.sqrt(square) + eps)


def adamw(w, g, t, m, weight_decay=1e-2, **options):
    return adam(w, g, t, m, weight_decay=weight_decay, decoupled_weight_decay=True, **options)


def amsgrad(w, g, t, m, **options):
    return adam(w, g, t, m, amsgrad=True, **options)


def nadam(
    w, g, t, m, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, momentum_decay=4e-3,
    decoupled_weight_decay=False,
):  # fmt: skip
    if decoupled_weight_decay:
        w = w - lr * weight_decay * w
    else:
        g = g + weight_decay * w
    mus = [betas[0] * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in range(1, t + 2)]
    mean, _, _, square = moments(g, t, m, betas)
    ahead = mus[t] * mean / (1 - math.prod(mus)) + (1 - mus[t - 1]) * g / (1 - math.prod(mus[:t]))
    return w - lr * ahead / (np.sqrt(square) + eps)


def radam(
    w, g, t, m, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0,
    decoupled_weight_decay=False,
):  # fmt: skip
    if decoupled_weight_decay:
        w = w - lr * weight_decay * w
    else:
        g = g + weight_decay * w
    _, v, mean, _ = moments(g, t, m, betas)
    longest = 2 / (1 - betas[1]) - 1
    length = longest - 2 * t * betas[1] ** t / (1 - betas[1] ** t)
    if length <= 5:
        return w - lr * mean
    rectify = np.sqrt(
        (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    )
    return w - lr * rectify * mean * np.sqrt(1 - betas[1] ** t) / (np.sqrt(v) + eps)


def adamax(w, g, t, m, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0):
    g = g + weight_decay * w
    m["m"] = betas[0] * m.get("m", 0) + (1 - betas[0]) * g
    m["u"] = np.maximum(betas[1] * m.get("u", 0), np.abs(g) + eps)
    return w - lr / (1 - betas[0] ** t) * m["m"] / m["u"]


def lion(w, g, t, m, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
    mean = m.get("m", 0)
    direction = np.sign(betas[0] * mean + (1 - betas[0]) * g)
    m["m"] = betas[1] * mean + (1 - betas[1]) * g
    return w - lr * (direction + weight_decay * w)


def rprop(w, g, t, m, lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50)):
    size, before = m.get("size", np.full_like(w, lr)), m.get("g", np.zeros_like(w))
    w, g = w.copy(), g.copy()
    for i in np.ndindex(w.shape):
        if g[i] * before[i] > 0:
            size[i] = min(size[i] * etas[1], step_sizes[1])
        elif g[i] * before[i] < 0:
            size[i] = max(size[i] * etas[0], step_sizes[0])
            g[i] = 0
        w[i] -= np.sign(g[i]) * size[i]
    m["size"], m["g"] = size, g
    return w


def asgd(w, g, t, m, lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0):
    g = g + weight_decay * w
    rate = lr / (1 + lambd * lr * (t - 1)) ** alpha
    return (1 - lambd * rate) * w - rate * g


CASES = [
    (optim.SGD, sgd, {}),
    (optim.SGD, sgd, {"lr": 0.05, "momentum": 0.9}),
    (optim.SGD, sgd, {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1}),
    (optim.SGD, sgd, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (optim.SGD, sgd, {"lr": 2e-3, "maximize": True, "weight_decay": 0.1}),
    (optim.Adagrad, adagrad, {}),
    (optim.Adagrad, adagrad, {"lr": 0.3, "lr_decay": 0.1, "weight_decay": 0.1}),
    (optim.Adagrad, adagrad, {"initial_accumulator_value": 0.7, "eps": 0.1, "maximize": True}),
    (optim.RMSprop, rmsprop, {}),
    (optim.RMSprop, rmsprop, {"alpha": 0.9, "eps": 0.1, "weight_decay": 0.1}),
    (optim.RMSprop, rmsprop, {"momentum": 0.9, "centered": True, "alpha": 0.8}),
    (optim.RMSprop, rmsprop, {"centered": True, "maximize": True}),
    (optim.Adadelta, adadelta, {}),
    (optim.Adadelta, adadelta, {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
    (optim.Adadelta, adadelta, {"maximize": True}),
    (optim.Adam, adam, {}),
    (optim.Adam, adam, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.1, "weight_decay": 0.1}),
    (optim.Adam, adam, {"lr": 0.1, "amsgrad": True, "betas": (0.9, 0.9), "maximize": True}),
    (optim.Adam, adam, {"lr": 0.1, "weight_decay": 0.2, "decoupled_weight_decay": True}),
    (optim.AdamW, adamw, {"lr": 0.1}),
    (optim.AdamW, adamw, {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True, "betas": (0.5, 0.9)}),
    (optim.AMSGrad, amsgrad, {"lr": 0.1, "betas": (0.9, 0.9)}),
    (optim.NAdam, nadam, {}),
    (optim.NAdam, nadam, {"lr": 0.1, "betas": (0.8, 0.95), "momentum_decay": 0.3, "eps": 0.01}),
    (optim.NAdam, nadam, {"lr": 0.1, "weight_decay": 0.2}),
    (optim.NAdam, nadam, {"lr": 0.1, "weight_decay": 0.2, "decoupled_weight_decay": True}),
    (optim.RAdam, radam, {}),
    (optim.RAdam, radam, {"lr": 0.1, "betas": (0.9, 0.9), "eps": 0.01, "weight_decay": 0.2}),
    (optim.RAdam, radam, {"lr": 0.1, "weight_decay": 0.2, "decoupled_weight_decay": True}),
    (optim.Adamax, adamax, {}),
    (optim.Adamax, adamax, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.1, "weight_decay": 0.1}),
    (optim.Lion, lion, {"lr": 0.01}),
    (optim.Lion, lion, {"lr": 0.01, "betas": (0.5, 0.9), "weight_decay": 0.3}),
    (optim.Rprop, rprop, {}),
    (optim.Rprop, rprop, {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.02, 0.3)}),
    (optim.ASGD, asgd, {"lambd": 0.3, "lr": 0.1}),
    (optim.ASGD, asgd, {"lr": 0.1, "lambd": 0.3, "alpha": 0.5, "weight_decay": 0.1}),
]
IDS = [f"{cls.__name__}-{'-'.join(options) or 'defaults'}" for cls, _, options in CASES]


@pytest.mark.parametrize(("cls", "formula", "options"), CASES, ids=IDS)
def test_trajectory_follows_the_formula(cls, formula, options):
    ours, theirs = trajectory(cls, options), reference(formula, options)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("cls", "formula", "options"), CASES, ids=IDS)
def test_every_option_changes_the_trajectory(cls, formula, options):
    """So that a term that is missing on both sides cannot go unseen."""
    full = reference(formula, options)
    for name in options:
        without = reference(formula, {k: v for k, v in options.items() if k != name})
        assert np.abs(full - without).max() > 1e-5, name


@pytest.mark.parametrize(("cls", "formula", "options"), CASES, ids=IDS)
def test_single_precision_stays_single(cls, formula, options):
    path = trajectory(cls, options, steps=5, dtype="float32")
    assert path.dtype == np.float32
    np.testing.assert_allclose(path, reference(formula, options)[:5], rtol=2e-4, atol=2e-5)


# --- closed forms ---------------------------------------------------------------------------------


def constant_gradient(cls, gradient, steps, **options):
    """How far an optimiser has moved after each step when the gradient never changes."""
    p = cr.asarray(np.zeros_like(gradient), requires_grad=True)
    opt, path = cls([p], **options), []
    for _ in range(steps):
        p.grad = cr.asarray(gradient)
        opt.step()
        path.append(-p.detach().numpy())
    return np.stack(path)


G = np.array([0.5, -3.0, 1e-3])
T = np.arange(1, 21)[:, None]


def test_sgd_on_a_parabola_is_a_geometric_series():
    w = cr.asarray(np.array([2.0]), requires_grad=True)
    opt = optim.SGD([w], lr=0.1)
    for _ in range(30):
        opt.zero_grad()
        cr.sum(1.5 * w * w).backward()
        opt.step()
    assert w.detach().item() == pytest.approx(2 * (1 - 0.1 * 3) ** 30, rel=1e-12)


def test_momentum_on_a_parabola_is_a_linear_recurrence():
    lr, beta, curvature = 0.1, 0.9, 3.0
    step = np.array([[1 - lr * curvature, -lr * beta], [curvature, beta]])
    w = cr.asarray(np.array([2.0]), requires_grad=True)
    opt = optim.SGD([w], lr=lr, momentum=beta)
    for _ in range(30):
        w.grad = curvature * w.detach()
        opt.step()
    expected = np.linalg.matrix_power(step, 30) @ [2.0, 0.0]
    assert w.detach().item() == pytest.approx(expected[0], rel=1e-11)
    assert opt.state[w]["momentum_buffer"].item() == pytest.approx(expected[1], rel=1e-11)


def test_constant_gradients():
    adam = {"lr": 0.1, "eps": 0.0}
    np.testing.assert_allclose(
        constant_gradient(optim.Adam, G, 20, **adam), 0.1 * T * np.sign(G), rtol=1e-12
    )
    np.testing.assert_allclose(
        constant_gradient(optim.Adamax, G, 20, **adam), 0.1 * T * np.sign(G), rtol=1e-12
    )
    np.testing.assert_allclose(
        constant_gradient(optim.Lion, G, 20, lr=0.1), 0.1 * T * np.sign(G), rtol=1e-12
    )
    np.testing.assert_allclose(
        constant_gradient(optim.Adagrad, G, 20, lr=0.1, eps=0.0),
        0.1 * np.sign(G) * np.cumsum(1 / np.sqrt(T), axis=0), rtol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(
        constant_gradient(optim.RMSprop, G, 20, lr=0.1, alpha=0.9, eps=0.0),
        0.1 * np.sign(G) * np.cumsum(1 / np.sqrt(1 - 0.9**T), axis=0), rtol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(
        constant_gradient(optim.Rprop, G, 20, lr=0.01),
        0.01 * np.sign(G) * np.cumsum(1.2 ** (T - 1), axis=0), rtol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(
        constant_gradient(optim.SGD, G, 20, lr=0.1, momentum=0.5),
        0.1 * G * np.cumsum(2 * (1 - 0.5**T), axis=0), rtol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize("cls", [optim.AdamW, optim.Lion])
def test_decoupled_decay_without_gradient_is_exponential(cls):
    p = cr.asarray(np.array([3.0, -2.0]), requires_grad=True)
    opt = cls([p], lr=0.1, weight_decay=0.5)
    for _ in range(10):
        p.grad = cr.zeros((2,), dtype=cr.float64)
        opt.step()
    np.testing.assert_allclose(p.detach().numpy(), np.array([3.0, -2.0]) * 0.95**10, rtol=1e-13)


def test_asgd_averages_from_t0_on():
    p = cr.asarray(np.array([0.0]), requires_grad=True)
    opt = optim.ASGD([p], lr=1.0, lambd=0.0, t0=10)
    for t in range(1, 21):
        p.grad = cr.asarray(np.array([-1.0]))
        opt.step()
        # p = t. From t0 + 1 on the average starts anew with weights 1, 1, 1/2, 1/3, ...
        expected = t if t <= 12 else 12 + (t - 12) / 2
        assert opt.state[p]["ax"].item() == pytest.approx(expected, rel=1e-12), t


# --- the lecture's forms --------------------------------------------------------------------------


def test_lecture_momentum_is_minus_lr_times_ours():
    lr, beta = 0.05, 0.9
    w, velocity = PROBLEM.start.copy(), np.zeros_like(PROBLEM.start)
    path = []
    for t in range(1, STEPS + 1):
        velocity = beta * velocity - lr * PROBLEM.gradient(w, t)
        w = w + velocity
        path.append(w)
    ours = trajectory(optim.SGD, {"lr": lr, "momentum": beta})
    np.testing.assert_allclose(ours, np.stack(path), rtol=1e-12)


@pytest.mark.parametrize("gradient", [0.5, -3.0, 1e-3])
def test_epsilon_inside_the_root_is_another_epsilon_outside(gradient):
    """(s + eps)^(1/2) = s^(1/2) + eps / (2 s^(1/2)) to first order; lectures write the left."""
    s = 0.1 * gradient**2
    eps = 1e-3 * s
    lecture = 0.01 * gradient / math.sqrt(s + eps)
    options = {"lr": 0.01, "alpha": 0.9}
    g = np.array([gradient])
    ours = constant_gradient(optim.RMSprop, g, 1, eps=eps / (2 * math.sqrt(s)), **options)
    without = constant_gradient(optim.RMSprop, g, 1, eps=0.0, **options)
    assert abs(ours.item() / lecture - 1) < 1e-6
    assert abs(without.item() / lecture - 1) > 1e-4
