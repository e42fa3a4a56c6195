"""The benchmark: workloads, processes, arithmetic of the report."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bench_records import record

from chainrule import bench
from chainrule.bench import losses, ours, products, report, run, studies, worker, workloads
from chainrule.errors import ArgumentError, ChainruleError


def test_ratio_is_the_fastest_peers_time_over_ours():
    found = record("lenet", 2e-3, torch_eager=6e-3, jax_jit=5e-3)
    assert report.fastest_peer(found)[0] == "jax jit"
    assert report.fastest_peer(found, "torch")[0] == "torch eager"
    assert report.ratio(found) == pytest.approx(2.5)
    assert report.ratio(record("lenet", 2e-3)) is None


def test_products_count_as_one_row_in_the_mean():
    records = [
        record("gemm-256-NN", 1.0, jax_jit=2.0), record("gemm-256-NT", 1.0, jax_jit=8.0),
        record("lenet", 1.0, jax_jit=1.0),
    ]  # fmt: skip
    means = report.summary(records)
    assert means["gemm"] == pytest.approx(4)
    assert means["all rows"] == pytest.approx(math.sqrt(4 * 1))


def test_peers_that_are_far_slower_than_expected_are_marked():
    expected = bench.WORKLOADS["lenet"].expected[1]
    slow = record("lenet", 1e-3, torch_eager=1.26 * expected, torch_compiled=9.0, jax_jit=1e-9)
    fair = record("lenet", 1e-3, torch_eager=9.0, torch_compiled=1.24 * expected)
    unknown = record("mlp-wide", 1e-3, torch_eager=1.0)
    marks = [row[1:] for row in report.peer_rows([slow, fair, unknown])]
    assert [row[0] for row in marks] == ["torch eager", "torch compiled"]
    assert [row[3:] for row in marks] == [("1.26", "more than 25 % slower"), ("1.24", "")]


def test_the_leanest_peer_is_the_one_with_the_smallest_peak():
    found = record("lenet", 1.0, torch_eager=1.0, jax_jit=2.0)
    found["contestants"]["jax jit"]["peak"] = 2**19
    assert report.mebibytes(found) == ("1 MiB", "0 MiB (jax jit)")


@pytest.mark.parametrize(
    ("value", "text"), [(2.0, "2 s"), (0.0123, "12.3 ms"), (4.5e-6, "4.5 us"), (3e-9, "3 ns")]
)
def test_times_come_in_the_unit_that_suits_them(value, text):
    assert report.seconds(value) == text


def test_growth_is_told_from_row_to_row():
    rows = studies.study_rows(
        [record(name, t) | {"label": f"{name} {t}"} for name, t in (("lenet", 1), ("lenet", 4))]
        + [record("gru", 8) | {"label": "gru"}]
    )
    assert [row[2] for row in rows] == ["-", "4.00", "-"]


def test_speedup_and_slowdown():
    one, two = (record("lenet", t, jax_jit=3.0) for t in (2.0, 1.0))
    named = [one | {"label": "lenet, 1 thread(s)"}, two | {"label": "lenet, 2 thread(s)"}]
    assert [row[1::3] for row in studies.speedups(named)] == [
        ("chainrule compiled", "2.00"), ("jax jit", "1.00"),
    ]  # fmt: skip
    busy = record("lenet", 3.0, jax_jit=30.0, torch_eager=24.0)["contestants"]
    alone = record("lenet", 1.0, jax_jit=2.0, torch_eager=12.0)["contestants"]
    study = [{"label": "lenet", "alone": alone, "beside": busy}]
    assert studies.contention_rows(study) == [
        ("lenet", "3 s", "3.00", "24 s (torch eager)", "2.00", "8.00")
    ]
    assert ("lenet", "jax jit", "2 s", "30 s", "15.00") in studies.slowdowns(study)


def test_distances_above_the_limit_are_counted():
    records = [
        {"workload": "lenet", "distances": {"a": far, "b": 1e-7}} for far in (1e-6, 2e-4, 3e-1)
    ]
    assert losses.rows(records) == [
        ("lenet", "a", "3", "2", "2.0e-04", "3.0e-01"),
        ("lenet", "b", "3", "0", "1.0e-07", "1.0e-07"),
    ]  # fmt: skip


def test_batches_are_the_same_for_every_contestant():
    for workload in bench.WORKLOADS.values():
        if workload.group != "gemm":
            first, second = workload.batch(), workload.batch()
            assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
            assert first[0].shape == workload.shape


@pytest.mark.parametrize("layout", ["NN", "TN", "NT"])
def test_products_multiply(layout):
    workload = bench.WORKLOADS[f"gemm-32x784x16-{layout}"]
    a, b = workload.batch()
    expected = (a.T if layout == "TN" else a) @ (b.T if layout == "NT" else b)
    step = ours.step_of(workload, {}, "float32", "eager")
    assert np.allclose(step().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_products_share_is_of_what_one_core_reaches():
    found = products.best((256, 256, 256), "NT", 1)
    assert 1e8 < found["flops"] < 1.5 * found["peak"]
    (row,) = products.rows([{"label": "gemm-256-NT", "layout": "NT", "flops": 1e9, "peak": 2e9}])
    assert row == ("256", "NT", "1", "2", "50%")


@pytest.mark.parametrize("name", ["mlp-digits", "lenet", "lstm", "gru"])
def test_models_agree_with_jax(name):
    """The same weights and batch give the same losses over three steps of the optimiser."""
    import jax

    from chainrule.bench import with_jax

    workload = bench.WORKLOADS[name]
    weights = {k: v.numpy().copy() for k, v in ours.model_of(workload).state_dict().items()}
    mine = ours.step_of(workload, weights, "float32", "eager")
    with jax.enable_x64(False):  # other tests of this process may want it
        theirs = with_jax.step_of(workload, weights, "float32", "jit")
        expected = [float(theirs()) for _ in range(3)]
    assert [float(mine()) for _ in range(3)] == pytest.approx(expected, abs=2e-5)


def test_unknown_names_are_refused():
    with pytest.raises(ChainruleError, match="lenet"):
        workloads.chosen(["lenett"])
    with pytest.raises(ArgumentError, match="mxnet"):
        run.installed(("mxnet",))


def test_slow_steps_end_a_run_early():
    import time

    contestant = worker.Contestant(1, "numpy")
    contestant.step = lambda: time.sleep(0.05)
    assert len(contestant.run({"run": 0.005})["times"]) == 1
    assert len(contestant.run({"run": 0.02})["times"]) >= 3


def test_a_contestant_that_dies_is_reported():
    one = run.Worker("chainrule", "compiled", 1)
    one.process.kill()
    one.process.wait()
    assert "ended" in one.ask(run=0.1)["error"]
    one.close()


def test_peers_keep_their_memory():
    one = run.Worker("numpy", "matmul", 1)
    try:
        assert one.ready()["imported"] > 0
        assert one.ask(run=0.1)["error"].startswith("AttributeError")  # nothing was built
    finally:
        one.close()
    assert set(run.ENVIRONMENT) == {"torch", "jax"}


def test_a_contestant_that_was_broken_off_runs_in_no_further_round():
    class Pretended:
        def __init__(self, name, steps):
            self.name, self.steps, self.asked = name, steps, 0

        def ask(self, run):
            self.asked += 1
            return {"times": [1.0] * self.steps, "peak": 1}

    workers = [Pretended("quick", 3), Pretended("slow", 2)]
    found = run.timed(workers, run.Settings(rounds=4), {"failed": {}}, run.quiet)
    assert [w.asked for w in workers] == [4, 1]
    assert [found[w.name]["steps"] for w in workers] == [12, 2]
