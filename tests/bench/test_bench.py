"""The benchmark: workloads, processes, arithmetic of the report, and the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from chainrule import bench
from chainrule.bench import ours, report, run, workloads
from chainrule.cli.entry import run as main
from chainrule.errors import ArgumentError, ChainruleError


def record(name: str, ours: float, **peers: float) -> dict:
    times = {"chainrule compiled": ours, **{k.replace("_", " "): v for k, v in peers.items()}}
    found = {
        k: run.worker_record([v] * 3, 2**20) | {"cold": 1.0, "distance": 1e-6}
        for k, v in times.items()
    }
    return {"workload": name, "what": "", "failed": {}, "contestants": found}


def test_ratio_is_the_fastest_peers_time_over_ours():
    found = record("lenet", 2e-3, torch_eager=6e-3, jax_jit=5e-3)
    assert report.fastest_peer(found)[0] == "jax jit"
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


def test_page_shows_losing_rows_and_failures():
    losing = record("lenet", 4e-3, jax_jit=1e-3)
    losing["failed"]["torch eager"] = "ImportError: no torch"
    made = {
        "records": [losing], "command": "chainrule bench lenet", "date": "2026-01-01",
        "machine": "m", "versions": {"jax": "1"},
        "settings": {"threads": 2, "rounds": 1, "seconds": 0.1, "burn": False},
    }  # fmt: skip
    text = bench.page(made)
    assert "| lenet | 4 ms | 1 ms (jax jit) | 0.25 | 2.5 |" in text
    assert "torch eager: ImportError" in text


@pytest.mark.parametrize(
    ("value", "text"), [(2.0, "2 s"), (0.0123, "12.3 ms"), (4.5e-6, "4.5 us"), (3e-9, "3 ns")]
)
def test_times_come_in_the_unit_that_suits_them(value, text):
    assert report.seconds(value) == text


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


def test_the_command_measures_and_writes(tmp_path, capsys):
    made, page = tmp_path / "run.json", tmp_path / "page.md"
    arguments = ["bench", "gemm-32x784x16-NN", "mlp-digits", "--peers", "numpy", "--rounds", "1"]
    code = main([*arguments, "--seconds", "0.01", "--json", str(made), "--page", str(page)])
    assert code == 0
    records = json.loads(made.read_text())["records"]
    assert set(records[0]["contestants"]) == {"chainrule compiled", "numpy matmul"}
    steps = records[1]["contestants"]["chainrule compiled"]
    assert steps["falls"]
    assert steps["distance"] < 1e-4
    assert steps["peak"] > 2**20
    assert "gemm-32x784x16-NN" in page.read_text()


def test_wrong_numbers_end_in_a_sentence(capsys):
    assert main(["bench", "lenet", "--rounds", "0"]) == 2
    assert "rounds" in capsys.readouterr().err


def test_a_contestant_that_dies_is_reported():
    worker = run.Worker("chainrule", "compiled", 1)
    worker.process.kill()
    worker.process.wait()
    assert "ended" in worker.ask(run=0.1)["error"]
    worker.close()
