"""Groups, state, errors and checkpoints of the optimisers."""

import math
import re
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import optim
from chainrule.errors import ArgumentError, ChainruleWarning, CheckpointError, DTypeError
from chainrule.serialize import load_state, save_state

ALL = [
    optim.SGD, optim.ASGD, optim.Adagrad, optim.RMSprop, optim.Adadelta, optim.Adam, optim.AdamW,
    optim.AMSGrad, optim.NAdam, optim.RAdam, optim.Adamax, optim.Lion, optim.Rprop,
]  # fmt: skip
RICH = {
    optim.SGD: {"momentum": 0.9},
    optim.RMSprop: {"momentum": 0.9, "centered": True},
    optim.Adam: {"amsgrad": True, "weight_decay": 0.1},
}
BY_NAME = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)


def leaf(*shape, seed=0, dtype="float64"):
    values = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    return cr.asarray(values, requires_grad=True)


def give_gradients(params, seed=1):
    rng = np.random.default_rng(seed)
    for p in params:
        p.grad = cr.asarray(rng.normal(size=p.shape).astype(p.dtype))


def make(cls, params, **options):
    return cls(params, **{**RICH.get(cls, {}), **options})


# --- parameters and groups ------------------------------------------------------------------------


def test_groups_have_their_own_hyperparameters():
    a, b, c = leaf(2), leaf(3), leaf(4)
    opt = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    opt.add_param_group({"params": (c,), "lr": 0.0})
    before = [p.detach().numpy() for p in (a, b, c)]
    for p in (a, b, c):
        p.grad = cr.ones_like(p)
    opt.step()
    for p, value, lr in zip((a, b, c), before, (0.1, 0.5, 0.0), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), value - lr, rtol=1e-15)
    assert [g["lr"] for g in opt.param_groups] == [0.1, 0.5, 0.0]
    opt.param_groups[2]["lr"] = 1.0
    opt.step()
    np.testing.assert_allclose(c.detach().numpy(), before[2] - 1, rtol=1e-15)


def test_named_parameters():
    a, b = leaf(2), leaf(3)
    opt = optim.Adam([("weight", a), ("bias", b)])
    assert opt.param_groups[0]["param_names"] == ["weight", "bias"]
    assert opt.param_groups[0]["params"][1] is b
    assert opt.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    with pytest.raises(ArgumentError, match="either all parameters"):
        opt.add_param_group({"params": [leaf(1)]})
    with pytest.raises(ArgumentError, match="name all of them or none"):
        optim.SGD([("weight", a), b])


def test_the_users_group_is_not_changed():
    group = {"params": [leaf(2)], "lr": 0.5}
    optim.SGD([group])
    assert group.keys() == {"params", "lr"}


def test_numbers_come_out_of_tensors_and_numpy():
    opt = optim.Adam([leaf(1)], lr=cr.asarray(0.25), betas=[np.float32(0.5), cr.asarray(0.75)])
    group = opt.param_groups[0]
    assert type(group["lr"]) is float and group["lr"] == 0.25
    assert group["betas"] == (0.5, 0.75)
    assert all(type(b) is float for b in group["betas"])


def test_parameters_without_gradient_stay_and_have_no_state():
    a, b = leaf(2), leaf(2)
    opt = optim.Adam([a, b])
    give_gradients([a])
    before = b.detach().tolist()
    opt.step()
    assert b.detach().tolist() == before
    assert list(opt.state_dict()["state"]) == [0]


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ([], ArgumentError, "no parameters"),
        (iter(()), ArgumentError, "used up"),
        (cr.ones(2), DTypeError, r"\[tensor\]"),
        ([np.ones(2)], DTypeError, r"params\[0\] is a ndarray"),
        ({cr.ones(2)}, DTypeError, "order"),
        ({"weight": cr.ones(2)}, DTypeError, "got a dict"),
        (None, DTypeError, "NoneType"),
        (leaf, DTypeError, "Call it"),
        ([{"lr": 0.1}], ArgumentError, "'params'"),
        ([{"params": {cr.ones(2)}}], DTypeError, "order"),
        ([leaf(2) * 2], ArgumentError, "computed from other tensors"),
    ],
)
def test_parameters_that_are_refused(params, error, words):
    with pytest.raises(error, match=words):
        optim.SGD(params)


def test_a_parameter_given_twice_is_refused():
    a, b = leaf(2), leaf(3)
    with pytest.raises(ArgumentError, match=re.escape("params[1], of shape (2,)")):
        optim.SGD([a, a])
    opt = optim.SGD([b, a])
    with pytest.raises(ArgumentError, match="given to SGD before"):
        opt.add_param_group({"params": [a]})
    assert len(opt.param_groups) == 1


@pytest.mark.parametrize(
    ("cls", "options", "words"),
    [
        (optim.SGD, {"lr": -1}, "SGD needs lr to be a number >= 0, but got -1"),
        (optim.SGD, {"lr": math.nan}, "lr"),
        (optim.SGD, {"momentum": -0.1}, "momentum"),
        (optim.SGD, {"weight_decay": -0.1}, "weight_decay"),
        (optim.SGD, {"nesterov": True}, "Nesterov"),
        (optim.SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "Nesterov"),
        (optim.Adam, {"betas": (1.0, 0.9)}, r"betas to be two numbers in \[0, 1\)"),
        (optim.Adam, {"betas": (0.9, -0.1)}, "betas"),
        (optim.Adam, {"eps": -1e-8}, "eps"),
        (optim.NAdam, {"momentum_decay": -1}, "momentum_decay"),
        (optim.RMSprop, {"alpha": -1}, "alpha"),
        (optim.Adadelta, {"rho": 1.5}, "rho"),
        (optim.Adagrad, {"initial_accumulator_value": -1}, "initial_accumulator_value"),
        (optim.Adagrad, {"lr_decay": -1}, "lr_decay"),
        (optim.Rprop, {"etas": (1.5, 1.2)}, "etas"),
        (optim.Rprop, {"step_sizes": (0.0, 1.0)}, "step_sizes"),
        (optim.Lion, {"betas": (0.9, 1.0)}, "betas"),
        (optim.LBFGS, {"max_iter": 0}, "max_iter"),
        (optim.LBFGS, {"line_search_fn": "armijo"}, "strong_wolfe"),
        (optim.SGD, {"differentiable": True}, "differentiable"),
    ],
)
def test_hyperparameters_outside_their_domain(cls, options, words):
    with pytest.raises(ArgumentError, match=words):
        cls([leaf(2)], **options)
    if "differentiable" not in options and "max_iter" not in options and cls is not optim.LBFGS:
        with pytest.raises(ArgumentError, match=words):
            cls([{"params": [leaf(2)], **options}])


def test_hyperparameters_of_the_wrong_kind():
    with pytest.raises(DTypeError, match=r"lr to be a number >= 0, but got '0\.1'"):
        optim.SGD([leaf(2)], lr="0.1")
    with pytest.raises(DTypeError, match="betas"):
        optim.Adam([leaf(2)], betas=0.9)
    with pytest.raises(TypeError, match="unexpected keyword argument 'learning_rate'"):
        optim.SGD([leaf(2)], learning_rate=0.1)


@BY_NAME
def test_pytorchs_hints_are_accepted(cls):
    a, b = leaf(3), leaf(3)
    plain, hinted = make(cls, [a]), make(cls, [b], foreach=True, fused=False, capturable=False)
    give_gradients([a])
    give_gradients([b])
    plain.step()
    hinted.step()
    assert a.detach().tolist() == b.detach().tolist()


def test_an_optimiser_of_ones_own():
    class SignDescent(optim.Optimizer):
        def __init__(self, params, lr=0.01):
            super().__init__(params, {"lr": lr})

        def update(self, p, g, state, group):
            p.copy_(p - group["lr"] * cr.sign(g))

    w = leaf(3)
    before = w.detach().numpy()
    give_gradients([w])
    SignDescent([w], lr=0.5).step()
    np.testing.assert_allclose(w.detach().numpy(), before - 0.5 * np.sign(w.grad.numpy()))


# --- the step -------------------------------------------------------------------------------------


@BY_NAME
def test_step_learns_through_backward(cls):
    w = leaf(5, 2)
    x, y = np.random.default_rng(3).normal(size=(20, 5)), np.ones((20, 2))
    opt = make(cls, [w], lr=0.02)

    def closure():
        opt.zero_grad()
        loss = cr.mean((cr.asarray(x) @ w - cr.asarray(y)) ** 2)
        loss.backward()
        return loss

    losses = [opt.step(closure).item() for _ in range(30)]
    assert losses[-1] < losses[0]
    assert w.requires_grad and w.is_leaf


@BY_NAME
def test_a_step_records_no_graph_and_keeps_old_values(cls):
    w = leaf(3)
    kept, y = w.detach(), w * w
    before = kept.tolist()
    opt = make(cls, [w])
    give_gradients([w])
    opt.step()
    opt.step()
    assert kept.tolist() == before != w.detach().tolist()
    assert all(
        not value.requires_grad for value in opt.state[w].values() if isinstance(value, cr.Tensor)
    )
    # The graph made before the step still has the values of then.
    (g,) = cr.autograd.grad([y], [w], [cr.ones_like(y)])
    np.testing.assert_allclose(g.numpy(), 2 * np.array(before), rtol=1e-15)


@BY_NAME
def test_maximize_is_the_way_of_the_negated_gradient(cls):
    a, b = leaf(4), leaf(4)
    up, down = make(cls, [a], maximize=True), make(cls, [b])
    for seed in range(5):
        give_gradients([a], seed)
        b.grad = -a.grad
        up.step()
        down.step()
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-15)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3)])
@BY_NAME
def test_odd_shapes(cls, shape):
    w = leaf(*shape)
    opt = make(cls, [w])
    for seed in range(3):
        give_gradients([w], seed)
        opt.step()
    assert w.shape == shape and w.dtype == cr.float64
    again = make(cls, [leaf(*shape)])
    again.load_state_dict(opt.state_dict())


def test_zero_grad():
    w = leaf(3)
    opt = optim.SGD([w])
    give_gradients([w])
    held = w.grad
    opt.zero_grad(set_to_none=False)
    assert w.grad.tolist() == [0, 0, 0] and held.tolist() != [0, 0, 0]
    opt.zero_grad()
    assert w.grad is None


def test_a_backward_that_reached_nothing_warns_once():
    w, other = leaf(3), leaf(3)
    opt = optim.SGD([w])
    cr.sum(other).backward()
    with pytest.warns(ChainruleWarning, match="reached none of the 1 parameters") as caught:
        opt.step()
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cr.sum(other).backward()
        opt.step()


def test_no_warning_without_a_backward_or_with_a_gradient():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        w, frozen = leaf(3), leaf(3)
        opt = optim.SGD([w, frozen])
        opt.step()
        cr.sum(w).backward()
        opt.step()
        opt.zero_grad()
        opt.step()


# --- checkpoints ----------------------------------------------------------------------------------


def train(opt, params, seeds):
    for seed in seeds:
        give_gradients(params, seed)
        opt.step()
    return [p.detach().numpy() for p in params]


@BY_NAME
def test_resuming_is_exact(cls, tmp_path):
    def fresh():
        params = [leaf(3, 2, seed=5), leaf(2, seed=6, dtype="float32")]
        return params, make(cls, [{"params": params[:1]}, {"params": params[1:], "lr": 0.05}])

    params, opt = fresh()
    expected = train(opt, params, range(10))
    params, opt = fresh()
    train(opt, params, range(4))
    save_state({"w": params, "opt": opt.state_dict()}, tmp_path / "run.ckpt")
    loaded = load_state(tmp_path / "run.ckpt")

    params, opt = fresh()
    with cr.no_grad():
        for p, value in zip(params, loaded["w"], strict=True):
            p.copy_(value)
    opt.load_state_dict(loaded["opt"])
    for ours, theirs in zip(train(opt, params, range(4, 10)), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@BY_NAME
def test_a_state_dict_is_a_snapshot_and_loading_it_shares_nothing(cls):
    a, b = leaf(3), leaf(3)
    one, two = make(cls, [a]), make(cls, [b])
    train(one, [a], range(2))
    state = one.state_dict()
    values = {k: np.array(v) for k, v in state["state"][0].items()}
    two.load_state_dict(state)
    train(one, [a], range(3))
    train(two, [b], range(3))
    two.param_groups[0]["lr"] = 7.0
    for name, value in values.items():
        np.testing.assert_array_equal(np.array(state["state"][0][name]), value)
    assert one.param_groups[0]["lr"] != 7.0 != state["param_groups"][0]["lr"]


def test_layout_of_the_state_dict():
    a, b, c = leaf(2), leaf(3), leaf(4)
    opt = optim.Adam([{"params": [a, b]}, {"params": [c], "lr": 0.5}])
    give_gradients([a, c])
    opt.step()
    state = opt.state_dict()
    assert state.keys() == {"state", "param_groups"}
    assert state["state"].keys() == {0, 2}
    assert state["state"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert state["state"][2]["step"] == 1
    assert [g["params"] for g in state["param_groups"]] == [[0, 1], [2]]
    assert state["param_groups"][1] == {
        "lr": 0.5, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False,
        "maximize": False, "decoupled_weight_decay": False, "params": [2],
    }  # fmt: skip


def test_states_that_do_not_fit_are_refused():
    a, b = leaf(2), leaf(3)
    opt = optim.Adam([a, b])
    give_gradients([a, b])
    opt.step()
    state = opt.state_dict()
    with pytest.raises(CheckpointError, match=re.escape("groups with [2] parameters")):
        optim.Adam([leaf(2)]).load_state_dict(state)
    with pytest.raises(CheckpointError, match="no dampening, momentum"):
        optim.SGD([leaf(2), leaf(3)]).load_state_dict(state)
    swapped = optim.Adam([leaf(3), leaf(2)])
    with pytest.raises(CheckpointError, match=re.escape("shape (2,) in the state")):
        swapped.load_state_dict(state)
    assert not swapped.state
    with pytest.raises(CheckpointError, match="parameter 9"):
        opt.load_state_dict({**state, "state": {9: {}}})
    bad = {**state, "param_groups": [{**state["param_groups"][0], "lr": -1}]}
    with pytest.raises(ArgumentError, match="lr"):
        opt.load_state_dict(bad)


def test_older_states_lack_switches():
    opt = optim.Adam([leaf(2)])
    state = opt.state_dict()
    del state["param_groups"][0]["maximize"]
    opt.load_state_dict(state)
    assert opt.param_groups[0]["maximize"] is False


def test_repr_lists_the_groups():
    text = repr(optim.SGD([{"params": [leaf(2)]}, {"params": [leaf(2)], "lr": 0.5}], lr=0.1))
    assert "Parameter Group 1\n    dampening: 0\n    lr: 0.5" in text
