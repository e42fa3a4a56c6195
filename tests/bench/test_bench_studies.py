"""Studies at small sizes, each as the command runs it."""

from __future__ import annotations

import pytest

from chainrule.bench import SECTIONS, WORKLOADS, losses, run, start, studies
from chainrule.bench.run import Settings, quiet

SMALL = Settings(threads=1, rounds=1, seconds=0.005, peers=("numpy",), losses=3)


@pytest.fixture
def one_workload(monkeypatch):
    """The studies look at `mlp-digits` alone."""
    for room in (losses, studies, start):
        monkeypatch.setattr(room, "WORKLOADS", {"mlp-digits": WORKLOADS["mlp-digits"]})


def test_losses_are_compared_start_by_start(monkeypatch, one_workload):
    monkeypatch.setitem(losses.SEEDS, "mlp-digits", 2)
    records = losses.measure(SMALL, quiet)
    assert [r["label"] for r in records] == ["mlp-digits, start 0", "mlp-digits, start 1"]
    for found in records:
        assert set(found["distances"]) == {"chainrule compiled", "chainrule eager"}
        assert all(0 < far < 1e-5 for far in found["distances"].values())
    assert records[0]["distances"] != records[1]["distances"]
    assert "| mlp-digits" not in str(SECTIONS["losses"].tables(records))


def test_contention_compares_the_same_processes(one_workload):
    said = []
    (found,) = studies.contention(SMALL, said.append)
    assert set(found["alone"]) == set(found["beside"]) == {"chainrule compiled"}
    assert any("beside" in text for text in said)
    assert studies.slowdowns([found])[0][:2] == ("mlp-digits", "chainrule compiled")


def test_first_calls_cold_and_warm(monkeypatch, one_workload):
    monkeypatch.setattr(start, "points", lambda: [("mlp-digits", WORKLOADS["mlp-digits"])])
    monkeypatch.setattr(start, "CALLS", 50)
    records = start.measure(SMALL, quiet)
    assert [r["label"] for r in records] == ["mlp-digits", "imports", "calls"]
    assert records[0]["cold"][0] > 0 and records[0]["warm"][0] > 0
    table, text = SECTIONS["start"].tables(records)
    assert table.rows[0][0] == "mlp-digits"
    assert "import chainrule" in text and "2 inputs and 30 states" in text


def test_every_study_has_points_with_names_of_their_own():
    for name, points in studies.GROWTH.items():
        labels = [point.label for point in points(Settings())]
        assert len(labels) == len(set(labels)) > 5, name
    labels = [label for label, _ in start.points()]
    assert {"lstm, T = 10", "lstm, T = 1000", "resnet20"} <= set(labels)


def test_a_study_measures_its_points(monkeypatch):
    point = studies.Point("one", WORKLOADS["mlp-digits"], SMALL)
    monkeypatch.setitem(studies.GROWTH, "batch", lambda settings: [point])
    (found,) = studies.run_study("batch", SMALL)
    assert found["label"] == "one"
    assert found["contestants"]["chainrule compiled"]["steps"] >= 3


def test_compiled_peers_are_left_out_where_asked(monkeypatch):
    monkeypatch.setattr(run, "installed", lambda peers: ["torch"])
    every = run.contestants(WORKLOADS["lenet"], Settings())
    few = run.contestants(WORKLOADS["lenet"], Settings(compiled_peers=False))
    assert set(every) - set(few) == {("torch", "compiled"), ("torch", "compiled-channels-last")}
