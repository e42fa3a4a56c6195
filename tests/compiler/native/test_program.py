"""Programs: phases of kernels on bound arrays."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest

from chainrule.compiler.native import runtime
from chainrule.compiler.native.jit import assemble
from chainrule.compiler.native.kernel import PARAMETERS, Buffer
from chainrule.compiler.native.program import (
    HostCall,
    Label,
    Phase,
    Place,
    Program,
    ProgramError,
    Tables,
    Task,
    address_of,
    export_kernels,
)
from chainrule.compiler.native.target import host
from chainrule.compiler.native.text import Function, Module, Reg

N = 1000


def axpy(module: Module, name: str, source: int, target: int, factor: float, plus: float) -> str:
    """target[i] = factor source[i] + plus, ten elements a unit; slot 0 is the arena."""
    f = Function(module, name, PARAMETERS)
    x, y = (f.load(f.at(f.arg("table"), slot, "ptr"), "ptr") for slot in (source, target))
    with f.loop(f.mul(f.arg("lo"), 10), f.mul(f.arg("hi"), 10)) as i:
        value = f.load(f.at(x, i.index, "float"), "float")
        scaled = f.fadd(f.fmul(value, f.number("float", factor)), f.number("float", plus))
        f.store(scaled, f.at(y, i.index, "float"))
    return f.finish()


def two_phases(**more) -> tuple[bytes, Tables]:
    """y = 3 (2 x + 1) - 5 through the arena."""
    module = Module(host())
    export_kernels(module, [axpy(module, "a", 2, 0, 2, 1), axpy(module, "b", 0, 3, 3, -5)])
    phases = [Phase((Task(0, N // 10, 100.0),)), Phase((Task(1, N // 10, 100.0),))]
    places = [Place(2, (N,), "float32")], [Place(3, (N,), "float32")]
    labels = [Label("a", "loops", 2 * N, 8 * N), Label("b", "loops", 2 * N, 8 * N)]
    tables = Tables([*phases], *places, arena=4 * N, kernels=labels, **more)
    return assemble(module.text(), host()), tables


def test_phases_run_in_order_and_outputs_are_fresh():
    code, tables = two_phases()
    program = Program(code, tables)
    x = np.arange(N, dtype=np.float32)
    (first,) = program.run([x])
    (second,) = program.run([x + 1])
    np.testing.assert_array_equal(first, 3 * (2 * x + 1) - 5)
    np.testing.assert_array_equal(second, 3 * (2 * x + 3) - 5)
    mine = np.empty(N, np.float32)
    (third,) = program.run([x], [mine])
    assert third is mine
    np.testing.assert_array_equal(mine, first)


def test_bound_once_called_often():
    code, tables = two_phases()
    program = Program(code, tables)
    x, y = np.ones(N, np.float32), np.empty(N, np.float32)
    program.bind(2, x)
    program.bind(3, y)
    for n in range(3):
        x[:] = n
        program.call()
        assert (y == 6 * n - 2).all()


def test_tables_survive_json():
    _, tables = two_phases(status=0, notes={"peak": 12})
    tables.steps.insert(1, HostCall(0, True))
    again = Tables.from_json(tables.to_json())
    assert again == tables


def test_host_calls_run_between_phases():
    code, tables = two_phases()
    tables.steps.insert(1, HostCall(0))
    middle = Buffer(0, 0, (N,), (1,), np.dtype("float32"))

    def negate(program: Program) -> None:
        view = program.view(middle)
        view *= -1

    x = np.arange(N, dtype=np.float32)
    (y,) = Program(code, tables, hosts=[negate]).run([x])
    np.testing.assert_array_equal(y, -3 * (2 * x + 1) - 5)


def test_wrong_arrays_are_refused():
    code, tables = two_phases()
    program = Program(code, tables)
    with pytest.raises(ProgramError, match=r"input 0 .* float32\[1000\]; got float64\[1000\]"):
        program.run([np.zeros(N)])
    with pytest.raises(ProgramError, match="1 inputs and 1 outputs; got 2 and 1"):
        program.run([np.zeros(N)] * 2)
    with pytest.raises(ProgramError, match="writable"):
        program.run([np.zeros(N, np.float32)], [np.zeros((N, 2), np.float32)[:, 0]])


def test_what_is_all_numpy_needs_no_llvm(monkeypatch):
    def missing() -> None:
        raise AssertionError("asked for native code")

    monkeypatch.setattr(runtime, "native", missing)
    monkeypatch.setattr(runtime, "_pool", None)
    x = Buffer(2, 0, (3,), (1,), np.dtype("float32"))
    y = Buffer(3, 0, (3,), (1,), np.dtype("float32"))

    def double(program: Program) -> None:
        program.view(y)[...] = 2 * program.view(x)

    places = [Place(2, (3,), "float32")], [Place(3, (3,), "float32")]
    program = Program(None, Tables([HostCall(0)], *places), hosts=[double])
    np.testing.assert_array_equal(program.run([np.ones(3, np.float32)])[0], [2, 2, 2])


def test_a_check_ends_a_program_before_the_phase_after_it():
    """A kernel sets the status: the phases after it do not run, and the caller hears why."""
    module = Module(host())
    f = Function(module, "refuse", PARAMETERS)
    arena = f.load(f.at(f.arg("table"), 0, "ptr"), "ptr")
    f.store(Reg("7", "i64"), arena)
    f.finish()
    export_kernels(module, ["refuse", axpy(module, "b", 2, 3, 3, -5)])
    phases = [Phase((Task(0, 1, 1e5),)), Phase((Task(1, N // 10, 1e6),), True)]
    places = [Place(2, (N,), "float32")], [Place(3, (N,), "float32")]
    tables = Tables(phases, *places, arena=64, kernels=[Label("a"), Label("b")], status=0)
    program = Program(
        assemble(module.text(), host()), tables, failed=lambda program, n: ValueError(f"number {n}")
    )
    before = runtime.get_num_threads()
    try:
        for threads in (1, 2):
            runtime.set_num_threads(threads)
            mine = np.zeros(N, np.float32)
            with pytest.raises(ValueError, match="number 7"):
                program.run([np.ones(N, np.float32)], [mine])
            assert not mine.any()
    finally:
        runtime.set_num_threads(before)


def test_an_error_in_a_host_call_comes_through_and_the_program_stays_usable():
    code, tables = two_phases()
    tables.steps.insert(1, HostCall(0))
    fails = [True]

    def host_call(program: Program) -> None:
        if fails[0]:
            raise ZeroDivisionError

    program = Program(code, tables, hosts=[host_call])
    x = np.arange(N, dtype=np.float32)
    with pytest.raises(ZeroDivisionError):
        program.run([x])
    fails[0] = False
    np.testing.assert_array_equal(program.run([x])[0], 3 * (2 * x + 1) - 5)


def test_addresses_of_arrays():
    for array in (np.zeros(3), np.zeros((2, 3))[:, 1:], np.frombuffer(b"12345678", np.int64)):
        assert address_of(array) == array.ctypes.data


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_waits_when_python_runs_amid_the_writing_of_state():
    code, tables = two_phases()
    tables.steps = [HostCall(0, True), *tables.steps]
    calls = []

    def interrupted(program: Program) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        calls.append(program)

    program = Program(code, tables, hosts=[interrupted])
    x, y = np.arange(N, dtype=np.float32), np.zeros(N, np.float32)
    with pytest.raises(KeyboardInterrupt):
        program.run([x], [y])
    assert calls == [program]
    np.testing.assert_array_equal(y, 3 * (2 * x + 1) - 5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_programs_go_when_nobody_holds_them():
    code, tables = two_phases()
    program = Program(code, tables)
    program.run([np.ones(N, np.float32)])
    gone = weakref.ref(program)
    del program
    assert gone() is None


def test_programs_share_the_memory_of_temporary_values():
    code, tables = two_phases()
    small, large = Program(code, tables), Program(code, replace(tables, arena=40 * N))
    x = np.arange(N, dtype=np.float32)
    want = 3 * (2 * x + 1) - 5
    for program in (small, large, small):
        np.testing.assert_array_equal(program.run([x])[0], want)
    assert small.arena is large.arena and small.arena is not None
    gone = weakref.ref(small.arena)
    assert small.arena.nbytes >= 40 * N
    del program, small
    assert gone() is not None
    del large
    assert gone() is None


def test_programs_that_run_at_once_have_memory_of_their_own():
    code, tables = two_phases()
    tables.steps.insert(1, HostCall(0))
    inner = Program(code, replace(tables, steps=[s for s in tables.steps if s != HostCall(0)]))
    seen = []

    def nested(program: Program) -> None:
        x = np.full(N, 7, np.float32)
        np.testing.assert_array_equal(inner.run([x])[0], 3 * (2 * x + 1) - 5)
        seen.append(inner.arena is not program.arena)

    x = np.arange(N, dtype=np.float32)
    outer = Program(code, tables, hosts=[nested])
    for _ in range(3):
        np.testing.assert_array_equal(outer.run([x])[0], 3 * (2 * x + 1) - 5)
    assert seen == [True] * 3


def test_programs_of_several_threads_do_not_meet_in_memory():
    before = runtime.get_num_threads()
    runtime.set_num_threads(2)
    code, tables = two_phases()
    tables.steps = [replace(s, tasks=(replace(s.tasks[0], cost=5e6),)) for s in tables.steps]
    wrong = []

    def work(number: int) -> None:
        program = Program(code, replace(tables, arena=4 * N * (1 + number)))
        x = np.arange(N, dtype=np.float32) + 1000 * number
        want = 3 * (2 * x + 1) - 5
        for _ in range(200):
            if not np.array_equal(program.run([x])[0], want):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    runtime.set_num_threads(before)
    assert not wrong
