"""The runtime: phases in order on any number of threads, and everything that can come between."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from runtime_jobs import code_of, expected, mixer, result, run

from chainrule.compiler.native import runtime
from chainrule.compiler.native.jit import assembly
from chainrule.compiler.native.program import TRIALS, Phase, Program, Task
from chainrule.compiler.native.runtime import Native, Pool
from chainrule.compiler.native.runtime_ir import runtime as runtime_text
from chainrule.compiler.native.runtime_job import WAKE, Share, deal
from chainrule.compiler.native.runtime_records import MOST_CHUNKS, POOL
from chainrule.compiler.native.runtime_system import BELL, CONDITION, LOCK, System, this_system
from chainrule.compiler.native.target import foreign
from chainrule.errors import ArgumentError


@pytest.fixture(autouse=True)
def restore_threads():
    before = runtime.get_num_threads()
    yield
    runtime.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("units", "phases", "chunk"), [(1, 4, 1), (5, 40, 1), (97, 400, 3), (1024, 60, 0), (64, 200, 1)]
)
def test_every_phase_sees_the_one_before(threads, units, phases, chunk):
    runtime.set_num_threads(threads)
    program = mixer(units, phases, chunk=chunk, cost=5000.0)
    for seed in range(20):
        np.testing.assert_array_equal(run(program, units, seed), expected(units, phases, seed))


def test_every_thread_is_dealt_a_part_of_each_kernel():
    shares = [Share(0, 4, 1, 500.0), Share(1, 1, 1, 90.0), Share(2, 64, 3, 10.0)]
    for threads in (1, 2, 3, 5):
        dealt = deal(shares, threads)
        for share, parts in zip(shares, dealt, strict=True):
            assert parts[0][0] == 0
            assert parts[-1][1] == share.count
            assert all(hi == lo for (_, hi), (lo, _) in pairwise(parts))
        loads = [
            sum(s.cost * (p[i][1] - p[i][0]) for s, p in zip(shares, dealt, strict=True))
            for i in range(threads)
        ]
        assert max(loads) <= max(500.0 * -(-4 // threads) + 100, 1.1 * sum(loads) / threads)
    assert deal([Share(0, 10, 1, 1.0)], 2) == [[(0, 5), (5, 10)]]
    assert deal([Share(0, 2, 1, 9.0), Share(1, 8, 1, 1.0)], 2)[1] == [(0, 4), (4, 8)]


def test_threads_share_the_work():
    runtime.set_num_threads(2)
    program = mixer(64, 2, delay=200_000, cost=1e6)
    runs, deadline = 0, time.monotonic() + 20
    with program.profiled() as rows:
        while not rows[1, :, 1].any() and time.monotonic() < deadline:  # some by the worker
            run(program, 64)
            runs += 1
    assert rows.shape == (2, 2, 4)
    assert rows[:, :, 1].sum() == 128 * runs  # every chunk once
    assert rows[1, :, 1].any()


def test_small_programs_stay_on_one_thread():
    runtime.set_num_threads(2)
    program = mixer(64, 4, cost=10.0)
    with program.profiled() as rows:
        run(program, 64)
    assert rows[1].sum() == 0


def test_more_chunks_than_a_word_can_count():
    units = 3 * MOST_CHUNKS + 5
    runtime.set_num_threads(2)
    program = mixer(units, 2, chunk=1)
    np.testing.assert_array_equal(run(program, units), expected(units, 2))


def test_parked_threads_burn_no_processor():
    runtime.set_num_threads(4)
    program = mixer(64, 10)
    run(program, 64)
    pool = runtime.pool()
    deadline = time.monotonic() + 10
    while pool.get("sleepers") < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pool.get("sleepers") == 3
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05
    np.testing.assert_array_equal(run(program, 64), expected(64, 10))


def test_threads_park_on_conditions_where_there_is_no_futex(monkeypatch):
    pool = Pool(Native(this_system("pthread")), 3)
    monkeypatch.setattr(runtime, "_pool", pool)
    program = mixer(64, 100, cost=5000.0)
    for seed in range(30):
        np.testing.assert_array_equal(run(program, 64, seed), expected(64, 100, seed))
        time.sleep(0.002)  # long enough to park
    pool.quit()


def test_two_threads_of_the_users_at_once():
    runtime.set_num_threads(2)
    shared = mixer(64, 50, delay=500, cost=5000.0)
    wrong: list[int] = []

    def work(number: int) -> None:
        own = mixer(97, 50, delay=500, cost=5000.0)
        for seed in range(40):
            if not np.array_equal(run(own, 97, seed), expected(97, 50, seed)):
                wrong.append(number)
            shared.call()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_long_runs_let_other_python_threads_run():
    runtime.set_num_threads(1)
    program = mixer(64, 2, delay=3_000_000, cost=1e7)
    ticks = []

    def tick() -> None:
        while not ticks or ticks[-1] is not None:
            ticks.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.monotonic()
    run(program, 64)
    stop = time.monotonic()
    seen = sum(start < t < stop for t in list(ticks))
    ticks.append(None)
    thread.join()
    assert seen > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_child_of_a_fork_makes_threads_of_its_own():
    runtime.set_num_threads(2)
    program = mixer(64, 50, cost=5000.0)
    run(program, 64)
    child = os.fork()
    if child == 0:
        right = all(np.array_equal(run(program, 64, s), expected(64, 50, s)) for s in range(20))
        os._exit(0 if right and runtime.pool().threads == 2 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(run(program, 64), expected(64, 50))


def script(body: str, **environment: str) -> subprocess.Popen:
    """Another process with these helpers at hand."""
    head = "import os, signal, sys, threading, time\nfrom runtime_jobs import *\n"
    head += "from chainrule.compiler.native import runtime\n"
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(body)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen) -> tuple[int, str]:
    out, error = process.communicate(timeout=60)
    assert not error, error
    return process.returncode, out


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("commits", [False, True])
def test_ctrl_c_within_a_second_and_state_whole(threads, commits):
    """A step of about 20 s is broken off at once; one that writes state comes to its end first."""
    body = f"""
        runtime.set_num_threads({threads})
        program = mixer(64, 200, delay={2_000_000 if not commits else 300_000}, cost=2e6)
        if {commits}:
            steps = program.tables.steps
            tables = program.tables
            tables.steps = [Phase(s.tasks, True) for s in steps]
            program = Program(program.code, tables)
            program.bind(2, np.zeros(128, np.int64))
        run(mixer(64, 2), 64)  # all is loaded
        threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        try:
            x = run(program, 64)
            print("never interrupted", time.monotonic() - start)
        except KeyboardInterrupt:
            took = time.monotonic() - start
            now = result(program, 64)
            whole = np.array_equal(now, expected(64, 200)) or not now.any()
            again = mixer(64, 20, cost=1e4)
            usable = np.array_equal(run(again, 64), expected(64, 20))
            print(round(took, 2), whole, usable)
    """
    code, out = outcome(script(body))
    assert code == 0
    took, whole, usable = out.split()
    assert usable == "True"
    if commits:  # done, or not begun
        assert whole == "True"
    else:
        assert float(took) < 6  # to its end it would take longer


@pytest.mark.parametrize("how", ["return", "sys.exit(0)", "os._exit(0)"])
def test_a_process_ends_with_its_threads_wherever_they_are(how):
    """Parked, waiting awake, and while another thread of the user's runs a step."""
    for pause, background in ((0.05, False), (0.0, False), (0.0, True)):
        body = f"""
            runtime.set_num_threads(3)
            program = mixer(64, 100, cost=5000.0)
            run(program, 64)
            def forever():
                while True: program.call()
            if {background}:
                threading.Thread(target=forever, daemon=True).start()
                time.sleep(0.05)
            time.sleep({pause})
            {how if how != "return" else "pass"}
        """
        assert outcome(script(body)) == (0, "")


def test_the_number_of_threads():
    runtime.set_num_threads(3)
    assert runtime.get_num_threads() == 3
    assert runtime.pool().threads == 3
    for wrong in (0, -1, 1.5, "2", True):
        with pytest.raises(ArgumentError, match="whole number of threads"):
            runtime.set_num_threads(wrong)  # type: ignore[arg-type]


def test_the_number_of_threads_from_the_environment(monkeypatch):
    monkeypatch.setenv("CHAINRULE_NUM_THREADS", "5")
    assert runtime._wanted_threads() == 5
    monkeypatch.setenv("CHAINRULE_NUM_THREADS", "many")
    with pytest.raises(ArgumentError, match="CHAINRULE_NUM_THREADS='many'"):
        runtime._wanted_threads()
    monkeypatch.delenv("CHAINRULE_NUM_THREADS")
    assert 1 <= runtime._wanted_threads() <= (os.cpu_count() or 1)


def test_a_control_groups_quota_counts(tmp_path):
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    assert runtime._quota(tmp_path, "a/b") == sys.maxsize
    (group / "cpu.max").write_text("max 100000\n")
    assert runtime._quota(tmp_path, "a/b") == sys.maxsize
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    assert runtime._quota(tmp_path, "a/b") == 2
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert runtime._quota(tmp_path, "a/b") == 1


def test_pools_that_are_replaced_end_their_threads():
    def native_threads() -> int:
        return len(os.listdir("/proc/self/task"))

    if not os.path.isdir("/proc/self/task"):
        pytest.skip("no /proc here")
    runtime.set_num_threads(1)
    runtime.pool()
    time.sleep(0.05)
    before = native_threads()
    for threads in (5, 2, 7):
        runtime.set_num_threads(threads)
        run(mixer(64, 4), 64)
        assert native_threads() >= before + threads - 1
    runtime.set_num_threads(1)
    deadline = time.monotonic() + 10
    while native_threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert native_threads() == before
    assert result(mixer(4, 2), 4).shape == (4,)


@pytest.mark.slow
@pytest.mark.parametrize("parking", [None, "pthread"])
def test_a_minute_of_everything_at_once(parking, monkeypatch):
    """Threads of the user's with programs of their own, pools that come and go, pauses of all
    lengths: every result is right, and it ends."""
    monkeypatch.setattr(runtime, "_native", Native(this_system(parking)))
    monkeypatch.setattr(runtime, "_pool", None)
    stop = time.monotonic() + 30
    wrong: list[tuple[int, int]] = []
    rounds = [0] * 3

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        programs = {}
        while time.monotonic() < stop:
            units, phases = int(rng.integers(1, 200)), 2 * int(rng.integers(1, 40))
            cost = float(10 ** rng.uniform(1, 5))
            key = (units, phases, int(np.log10(cost)))
            if key not in programs:
                programs[key] = mixer(units, phases, chunk=int(rng.integers(0, 4)), cost=cost)
            seed = int(rng.integers(1000))
            if not np.array_equal(run(programs[key], units, seed), expected(units, phases, seed)):
                wrong.append(key[:2])
            rounds[number] += 1
            pause = rng.choice([0, 0, 0, 2e-5, 1e-4, 3e-4, 3e-3])
            if pause > 2e-4:
                time.sleep(pause)
            elif pause:
                until = time.perf_counter() + pause
                while time.perf_counter() < until:
                    pass

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for t in threads:
        t.start()
    rng = np.random.default_rng(99)
    while time.monotonic() < stop:
        runtime.set_num_threads(int(rng.integers(1, 6)))
        time.sleep(float(rng.uniform(0, 0.02)))
    for t in threads:
        t.join(60)
        assert not t.is_alive()
    assert not wrong
    assert min(rounds) > 100


@pytest.mark.parametrize(
    ("triple", "system", "calls"),
    [
        ("aarch64-unknown-linux-gnu", System("futex", "aarch64"), ["syscall", "#98", "yield"]),
        ("arm64-apple-darwin", System("pthread", "arm64", 6), ["pthread_cond_wait", "yield"]),
        ("x86_64-apple-darwin", System("pthread", "x86_64", 6), ["pthread_cond_wait", "pause"]),
        ("x86_64-pc-windows-msvc", System("address", "AMD64"), ["WaitOnAddress", "pause"]),
        ("riscv64-unknown-linux-gnu", System("futex", "riscv64"), ["syscall", "98"]),
    ],
)
def test_the_runtime_can_be_made_for_other_systems(triple, system, calls):
    """Made, not run: each way of parking, and each processor's way of waiting, is in the code."""
    other = "neon" if triple.startswith(("aarch64", "arm64")) else "plain"
    target = replace(foreign(other), triple=triple)
    made = assembly(runtime_text(target, system), target)
    for call in calls:
        assert call in made
    for name in ("enter", "worker", "quit"):
        assert f"{name}:" in made


def test_the_systems_offsets_are_the_pools():
    assert (POOL["bell"], POOL["lock"], POOL["condition"]) == (BELL, LOCK, CONDITION)


def test_wrong_estimates_are_found_out():
    """What is said to be short and is long lets go of Python's lock after some runs, and back."""
    runtime.set_num_threads(1)
    long, short = mixer(64, 2, delay=300_000, cost=1.0), mixer(64, 2, cost=1e6)
    assert long._parts[0].short and not short._parts[0].short
    for program in (long, short):
        for seed in range(TRIALS):
            np.testing.assert_array_equal(run(program, 64, seed), expected(64, 2, seed))
    assert not long._parts[0].short and short._parts[0].settled
    np.testing.assert_array_equal(run(long, 64), expected(64, 2))
    np.testing.assert_array_equal(run(short, 64), expected(64, 2))


def test_threads_park_while_one_works_for_long():
    """In a step most of which is one chunk, the other threads are not awake for nothing."""
    runtime.set_num_threads(4)
    program = mixer(64, 2)
    phases = [Phase((Task(0, 64, 1e9, 64),)), Phase((Task(1, 64, 1e9, 1),))] * 3
    slow = Program(
        code_of(64, 4_000_000), replace(program.tables, steps=[phases[0]]), target=program.target
    )
    fast = Program(code_of(64, 10), replace(program.tables, steps=phases), target=program.target)
    for one in (slow, fast):
        one.bind(2, np.zeros(128, np.int64))
    fast.call()
    slow.call()
    wall, processor = time.perf_counter(), time.process_time()
    slow.call()  # one chunk of about 0.1 s
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    assert processor < 2 * wall
    for seed in range(200):  # and they come back
        assert np.array_equal(run(fast, 64, seed), expected(64, 6, seed))


def test_short_steps_in_a_row_wake_threads_in_the_end():
    """Each of them alone is too short to wake anybody."""
    runtime.set_num_threads(2)
    program = mixer(64, 2, delay=1000, cost=600.0, chunk=4)
    job = program._parts[0].job
    assert job.wants(2) == 2 and job.cost < WAKE
    program.call()
    deadline = time.monotonic() + 10
    while runtime.pool().get("sleepers") < 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    with program.profiled() as rows:
        while not rows[1, :, 1].any() and time.monotonic() < deadline:
            program.call()
    assert rows[1, :, 1].any()
