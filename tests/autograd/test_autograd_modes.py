"""no_grad, enable_grad, set_grad_enabled: contexts, decorators, threads, generators."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import chainrule as cr


def recorded() -> bool:
    return (cr.asarray(1.0, requires_grad=True) * 2).requires_grad


def test_contexts_nest_and_put_back_what_was() -> None:
    assert recorded()
    with cr.no_grad():
        assert not recorded()
        with cr.enable_grad():
            assert recorded()
            with cr.no_grad():
                assert not cr.is_grad_enabled()
            assert cr.is_grad_enabled()
        assert not recorded()
    assert recorded()


def test_contexts_put_back_after_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), cr.no_grad():
        raise ZeroDivisionError
    assert recorded()


def test_one_context_object_entered_twice() -> None:
    off = cr.no_grad()
    with off, off:
        assert not recorded()
    assert recorded()


def test_decorators_with_and_without_brackets() -> None:
    @cr.no_grad()
    def one(value: bool) -> bool:
        """Its docstring."""
        return recorded() is value

    @cr.no_grad
    def two() -> bool:
        return recorded()

    @cr.enable_grad()
    def three() -> bool:
        return recorded()

    assert one(False)
    assert (one.__name__, one.__doc__) == ("one", "Its docstring.")
    assert not two()
    with cr.no_grad():
        assert three()
    assert recorded()


def test_set_grad_enabled_works_at_once_and_as_a_context() -> None:
    with cr.set_grad_enabled(False):
        assert not recorded()
    assert recorded()
    cr.set_grad_enabled(False)
    try:
        assert not recorded()
        with cr.set_grad_enabled(True):
            assert recorded()
        assert not recorded()
    finally:
        cr.set_grad_enabled(True)
    assert recorded()


def test_set_grad_enabled_as_a_decorator_changes_the_function_alone() -> None:
    @cr.set_grad_enabled(False)
    def function() -> bool:
        return recorded()

    assert recorded()
    assert not function()
    assert recorded()


def test_generators_run_in_the_mode_and_their_consumers_do_not() -> None:
    @cr.no_grad()
    def numbers() -> Iterator[bool]:
        sent = yield recorded()
        assert sent == "message"
        yield recorded()
        return "end"

    generator = numbers()
    assert next(generator) is False
    assert recorded()
    assert generator.send("message") is False
    with pytest.raises(StopIteration, match="end"):
        next(generator)


def test_each_thread_has_its_own_mode() -> None:
    inside, go_on = threading.Event(), threading.Event()
    result = []

    def other() -> None:
        result.append(recorded())
        with cr.no_grad():
            inside.set()
            go_on.wait(10)
            result.append(recorded())

    with cr.no_grad():
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
        assert not recorded()
    assert recorded()  # while the other thread does not record
    go_on.set()
    thread.join()
    assert result == [True, False]


def test_threads_walk_graphs_side_by_side() -> None:
    def work(n: int, results: dict[int, float]) -> None:
        x = cr.asarray(float(n), requires_grad=True)
        y = x
        for _ in range(200):
            y = y + x * 0.5
        y.backward()
        results[n] = x.grad.item()

    results: dict[int, float] = {}
    threads = [threading.Thread(target=work, args=(n, results)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == dict.fromkeys(range(4), 101.0)


def test_detach_cuts_and_shares() -> None:
    x = cr.asarray([1.0, 2.0], requires_grad=True)
    d = x.detach()
    assert not d.requires_grad
    y = cr.sum(x * d)
    y.backward()
    assert x.grad.tolist() == [1.0, 2.0]
    d += 1.0
    assert x.tolist() == [1.0, 2.0]
