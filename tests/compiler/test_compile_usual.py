"""The usual call: made natively, and made as any other as soon as something is not as it was."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
from worlds import MAKERS, World, adam, is_usual, numbers, plain, play, usual_calls

import chainrule as cr
from chainrule import nn, optim
from chainrule.compiler.native import runtime_call, runtime_objects

F = nn.functional


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_between_calls(maker, seed):
    """Random changes of the world between calls, beside the same changes and the eager step."""
    want, _ = play(seed, maker, plain)
    got, usual = play(seed, maker, lambda step: cr.compile(step, limit=200))
    for (mine, others), (theirs, wanted) in zip(got, want, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)
        assert others[:2] == wanted[:2]
        for a, b in zip(others[2], wanted[2], strict=True):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-5)
    assert usual > 15, usual  # or nothing of this was looked at


@pytest.fixture(params=MAKERS)
def trained(request):
    cr.random.manual_seed(0)
    world = World(MAKERS[request.param])
    world.model.parts = (1.0, 2.0)
    step = cr.compile(world.eager)
    x, y = numbers((5, 4)), numbers((5, 3), 1)
    for _ in range(12):
        step(x, y)
    assert is_usual(step, x, y)
    return world, step, x, y


def test_lists_and_dictionaries_of_a_module_are_usual():
    world = World(adam)
    step, x, y = cr.compile(world.eager), numbers((5, 4)), numbers((5, 3), 1)
    for _ in range(3):
        step(x, y)
    assert is_usual(step, x, y)
    world.model.parts[1] = 3.0
    assert not is_usual(step, x, y)
    assert step.traces == 2
    world.model.parts[1] = 2.0
    step(x, y)
    assert step.traces == 2
    assert is_usual(step, x, y)
    # The same entries in another order are another loop over them.
    world.model.settings["names"] = world.model.settings.pop("names")
    world.model.settings["scale"] = world.model.settings.pop("scale")
    assert not is_usual(step, x, y)


def test_what_somebody_holds_is_not_written_to(trained):
    world, step, x, y = trained
    weight = world.model.first.weight
    held, view = weight.detach(), weight.detach().numpy()
    before = view.copy()
    assert not is_usual(step, x, y)
    np.testing.assert_array_equal(view, before)
    np.testing.assert_array_equal(held.numpy(), before)
    step(x, y)
    assert is_usual(step, x, y)
    np.testing.assert_array_equal(view, before)
    assert not np.array_equal(weight.detach().numpy(), before)


def test_results_stay_what_they_were(trained):
    _, step, x, y = trained
    losses = [step(x, y) for _ in range(20)]
    values = [float(loss) for loss in losses]
    for _ in range(5):
        step(x, y)
    assert [float(loss) for loss in losses] == values
    assert len(set(values)) > 10
    assert usual_calls(step) > 25


def test_gradients_that_were_read_stay_what_they_were(trained):
    world, step, x, y = trained
    kept = []
    for _ in range(6):
        assert is_usual(step, x, y)
        gradient = world.model.last.weight.grad
        kept.append((gradient, gradient.numpy().copy()))
    for gradient, values in kept:
        np.testing.assert_array_equal(gradient.numpy(), values)
    assert not np.array_equal(kept[0][1], kept[-1][1])


def test_arguments_that_are_not_as_they_were(trained):
    _, step, x, y = trained
    assert not is_usual(step, x.detach().requires_grad_(), y)
    assert not is_usual(step, x[:3], y[:3])
    for other in (numbers((4, 5)).T, numbers((5, 4))[::-1]):
        assert not other._array.flags.c_contiguous
        assert not is_usual(step, other, y)
    step(x, y)
    assert is_usual(step, x, y)
    with pytest.raises(TypeError):
        step(x)
    with pytest.raises(TypeError):
        step(x, y, x)


def test_numpys_arrays_are_usual_and_views_of_them_are_right():
    add = cr.compile(lambda x, y: x + 2 * y)
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), np.float32)
    for _ in range(3):
        add(x, y)
    assert is_usual(add, x, y)
    np.testing.assert_array_equal(add(x, y).numpy(), x + 2)
    x.flags.writeable = False
    assert is_usual(add, x, y)
    turned = np.arange(6, dtype=np.float32).reshape(3, 2).T
    np.testing.assert_array_equal(add(turned, y).numpy(), turned + 2)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(2, 3)
    np.testing.assert_array_equal(add(unaligned, y).numpy(), x + 2)
    np.testing.assert_array_equal(add(x[:, :2], y[:, :2]).numpy(), x[:, :2] + 2)


def test_modes_of_the_thread(trained):
    world, _, x, _ = trained
    forward = cr.compile(world.model.eval())
    with cr.no_grad():
        for _ in range(3):
            forward(x)
        assert is_usual(forward, x)
    result = forward(x)
    assert result.requires_grad
    seen = []
    from chainrule.graph import observe

    with observe(lambda primitive, *rest: seen.append(primitive.name)), cr.no_grad():
        forward(x)
    assert "matmul" in seen

    @cr.compile
    def outer(x):
        return forward(x) * 2

    with cr.no_grad():
        np.testing.assert_allclose(outer(x).numpy(), 2 * forward(x).numpy(), rtol=1e-6)


def test_a_parameter_as_an_argument(trained):
    world, *_ = trained
    bias = world.model.last.bias
    double = cr.compile(lambda v: (v * bias).sum())
    with cr.no_grad():
        v = cr.ones((3,))
        for _ in range(3):
            double(v)
        assert is_usual(double, v)
        want = float((bias * bias).sum())
        assert abs(float(double(bias)) - want) < 1e-6


def test_refused_values_leave_the_state_as_it_was():
    model = nn.Linear(4, 3)
    opt = optim.Adam(model.parameters(), lr=0.1)

    @cr.compile
    def step(x, labels):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        opt.step()
        return loss

    x, right, wrong = numbers((2, 4)), cr.asarray([0, 2]), cr.asarray([0, 3])
    for _ in range(12):
        step(x, right)
    assert is_usual(step, x, right)
    before = [p.detach().numpy().copy() for p in model.parameters()]
    for _ in range(3):
        with pytest.raises(IndexError):
            step(x, wrong)
    for p, was in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), was)
        assert opt.state[p]["step"] == 13
    assert is_usual(step, x, right)


def test_a_number_that_cannot_be_computed_says_so():
    opt = optim.Adam([p := nn.Parameter(cr.ones((2,)))], lr=0.1)

    @cr.compile
    def step(x):
        opt.zero_grad()
        loss = (p * x).sum()
        loss.backward()
        opt.step()
        return loss

    x = cr.ones((2,))
    for _ in range(4):
        step(x)
    assert is_usual(step, x)
    opt.state[p]["step"] = -1  # the next is 0, by whose correction is divided
    with pytest.raises(ZeroDivisionError):
        step(x)
    opt.state[p]["step"] = 5
    step(x)
    assert opt.state[p]["step"] == 6


def test_another_number_of_threads(trained):
    _, step, x, y = trained
    before = cr.get_num_threads()
    try:
        for threads in (1, 2, before):
            cr.set_num_threads(threads)
            for _ in range(4):
                step(x, y)
            assert is_usual(step, x, y)
    finally:
        cr.set_num_threads(before)


def test_several_threads_of_the_users():
    total = cr.zeros((3,))

    @cr.compile
    def add(x):
        with cr.no_grad():
            total.copy_(total + x)
        return total * 1

    x = cr.ones((3,))
    for _ in range(12):
        add(x)
    threads = [threading.Thread(target=lambda: [add(x) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total.tolist() == [2012.0] * 3


def test_versions_by_turns_are_all_usual(trained):
    _, step, x, y = trained
    short = x[:2], y[:2]
    for _ in range(3):
        step(*short)
        step(x, y)
    before = sum(usual.calls() for usual in step._usuals)
    for _ in range(5):
        step(*short)
        step(x, y)
    assert sum(usual.calls() for usual in step._usuals) == before + 10


def test_nested_results():
    @cr.compile
    def parts(x):
        return {"twice": x * 2, "rest": [x + 1, None, "name"]}

    x = cr.ones((2,))
    for _ in range(3):
        parts(x)
    assert is_usual(parts, x)
    result = parts(x)
    assert result["twice"].tolist() == [2, 2]
    assert result["rest"][0].tolist() == [2, 2]
    assert result["rest"][1:] == [None, "name"]


def test_records_go_with_their_functions():
    model = nn.Linear(3, 2)
    step = cr.compile(lambda x: model(x).detach())
    x = cr.ones((1, 3))
    for _ in range(5):
        step(x)
    gone = weakref.ref(step.versions[0].launch.program)
    words = [np.asarray(usual._words) for usual in step._usuals]
    assert words
    del step
    gc.collect()
    assert gone() is None


def test_without_a_known_layout_calls_go_through_python(monkeypatch):
    monkeypatch.setattr(runtime_call, "layout", lambda: None)
    runtime_call.builtins.cache_clear()
    try:
        world = World(adam)
        step, x, y = cr.compile(world.eager), numbers((5, 4)), numbers((5, 3), 1)
        losses = [float(step(x, y)) for _ in range(5)]
        assert not step._usuals
        assert losses[-1] < losses[0]
    finally:
        runtime_call.builtins.cache_clear()


def test_the_layout_of_objects_is_found_or_refused(monkeypatch):
    found = runtime_objects.layout()
    assert found is not None
    runtime_objects.layout.cache_clear()
    monkeypatch.setattr(runtime_objects.platform, "python_implementation", lambda: "PyPy")
    assert runtime_objects.layout() is None
    runtime_objects.layout.cache_clear()
    monkeypatch.undo()
    assert runtime_objects.layout() == found


def test_no_references_are_lost_or_kept(trained):
    import sys

    world, step, x, y = trained
    things = [
        *world.model.parameters(), x, y, None, 0, np.dtype("float32"),
        *(g._grad for g in world.model.parameters()),
    ]  # fmt: skip
    counts = [sys.getrefcount(thing) for thing in things]
    for _ in range(200):
        step(x, y)
    for thing, before in zip(things, counts, strict=True):
        assert abs(sys.getrefcount(thing) - before) < 50, thing


def test_what_is_only_read_may_be_another_value():
    model = nn.Linear(3, 2)
    forward, x = cr.compile(model), cr.ones((1, 3))
    with cr.no_grad():
        for _ in range(3):
            forward(x)
        assert is_usual(forward, x)
        for by in (2.0, 3.0):
            model.weight.copy_(model.weight * by)
            np.testing.assert_allclose(forward(x).numpy(), model(x).numpy(), rtol=1e-6)
        model.bias = nn.Parameter(cr.ones((2,)))
        np.testing.assert_allclose(forward(x).numpy(), model(x).numpy(), rtol=1e-6)
        forward(x)
        assert is_usual(forward, x)


def test_a_state_as_an_argument():
    """Where it is read in another order than it is written the call must not be the usual one."""
    total = cr.arange(1000, dtype=cr.float32)

    @cr.compile
    def fold(x):
        with cr.no_grad():
            total.copy_(cr.flip(x) + total)

    for _ in range(3):
        fold(cr.zeros((1000,)))
    assert is_usual(fold, cr.zeros((1000,)))
    fold(total)
    assert total.tolist() == [999.0] * 1000


def test_what_python_was_told_of_a_number():
    p = nn.Parameter(cr.ones((2,)))
    opt = optim.SGD([p], lr=0.25)

    @cr.compile
    def step(x):
        opt.zero_grad()
        (p * x).sum().backward()
        if opt.param_groups[0]["lr"] > 0.5:
            p.grad = -p.grad
        opt.step()

    x = cr.ones((2,))
    for _ in range(3):
        step(x)
    assert is_usual(step, x)
    assert p.tolist() == [0.0, 0.0]
    opt.param_groups[0]["lr"] = 0.5
    assert is_usual(step, x)
    assert p.tolist() == [-0.5, -0.5]
    opt.param_groups[0]["lr"] = 1.0
    assert not is_usual(step, x)
    assert p.tolist() == [0.5, 0.5]
    assert step.traces == 2


def test_counters_that_are_set_back_between_both_ways():
    """Numbers that one way has computed are not taken for the other's."""

    def make(wrap):
        p = nn.Parameter(cr.ones((2,)))
        opt = optim.Adam([p], lr=0.1)

        def step(x):
            opt.zero_grad()
            (p * x * p).sum().backward()
            opt.step()

        return p, opt, wrap(step)

    x, left = cr.ones((2,)), []
    for wrap in (plain, cr.compile):
        p, opt, step = make(wrap)
        for _ in range(4):
            step(x)
        held = p.detach()
        step(x)  # not in place of what is held
        before = opt.state[p]["step"]
        del held
        for _ in range(3):
            step(x)
        opt.state[p]["step"] = before - 1
        held = p.detach()
        step(x)
        del held
        left.append(p.tolist())
        assert opt.state[p]["step"] == before
    np.testing.assert_allclose(left[0], left[1], rtol=1e-5)


def test_numbers_among_the_arguments():
    weight = cr.ones((3,))

    @cr.compile
    def blend(x, t, n):
        with cr.no_grad():
            weight.copy_(weight * (1 - t) + x * t)
        if n > 2:
            return weight * n
        return weight - n

    x, want = cr.asarray([1.0, 2.0, 3.0]), np.ones(3, np.float32)
    made = 0
    for t, n in [(0.5, 1), (0.25, 1), (0.25, 2), (0.75, 2), (0.5, 3), (0.5, 5)] * 3:
        want = want * np.float32(1 - t) + x.numpy() * np.float32(t)
        before = usual_calls(blend)
        got = blend(x, t, n)
        made += usual_calls(blend) == before + 1
        np.testing.assert_allclose(got.numpy(), want * n if n > 2 else want - n, rtol=1e-5)
    assert made > 10
    assert blend.traces == 2
    assert not is_usual(blend, x, np.float64(0.5), 1)
    assert not is_usual(blend, x, 1, 1)  # an int in the place of a float
    assert not is_usual(blend, x, True, 1)
    assert blend.traces == 4


def test_arguments_in_structures_and_by_name():
    @cr.compile
    def f(batch, *, scale, flags=("a",)):
        return {"sum": batch["x"] + batch["rest"][0] * scale}

    def usual_shaped():
        return sum(usual.calls() for usual in f._shaped)

    x = np.arange(3, dtype=np.float32)
    for i in range(12):
        batch = {"x": cr.asarray(x + i), "rest": [x * i, None]}
        np.testing.assert_allclose(f(batch, scale=0.5)["sum"].numpy(), x + i + 0.5 * x * i)
    assert usual_shaped() == 10
    batch = {"x": cr.ones((3,)), "rest": [cr.ones((3,)), 3]}
    assert f(batch, scale=0.5)["sum"].tolist() == [1.5] * 3
    assert f({"rest": batch["rest"], "x": batch["x"]}, scale=2.0)["sum"].tolist() == [3.0] * 3
    assert f(batch, scale=0.5, flags=("b",))["sum"].tolist() == [1.5] * 3
    assert f.traces == 4
    both = cr.ones((3,))
    assert f({"x": both, "rest": [both, None]}, scale=1.0)["sum"].tolist() == [2.0] * 3
