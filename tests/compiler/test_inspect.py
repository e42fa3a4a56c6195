"""`step.inspect()`: the road from graph to assembly, and a profile that adds up."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.compiler.inspect import Inspection, InspectionError, Profile, Row, measure
from chainrule.compiler.inspect_html import page
from chainrule.compiler.native.jit import assemble
from chainrule.compiler.plan import tables


def made(threads: int = 1):
    cr.set_num_threads(threads)
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @cr.compile(backend="native")
    def step(images, labels):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        opt.step()
        return loss

    rng = np.random.default_rng(0)
    images = cr.asarray(rng.standard_normal((32, 64), np.float32))
    return model, step, (images, cr.asarray(rng.integers(0, 10, 32)))


@pytest.fixture(autouse=True)
def restore_threads():
    before = cr.get_num_threads()
    yield
    cr.set_num_threads(before)


@pytest.fixture(scope="module")
def report() -> Inspection:
    _, step, batch = made()
    step(*batch)
    return step.inspect(runs=3)


def test_each_stage_can_be_read(report):
    assert "matmul" in str(report.graph)
    assert len(report.simplified.ops) <= len(report.graph.ops)
    assert "step 0:" in report.kernels
    count = len(report.program.tables.kernels)
    assert count == len(report.plan.natives)
    for number in range(count):
        assert report.llvm_of(number).startswith("define internal void @kernel")
        called = report.code.reached(f"kernel{number}")
        assert report.llvm_of(number).count("define") == len(called)
        assert all(f"{name}:" in report.assembly_of(number) for name in called)
        assert "ret" in report.assembly_of(number)
    with pytest.raises(InspectionError, match=f"no kernel {count}; there are {count}, from 0"):
        report.llvm_of(count)
    assert report.after("dead")


def test_a_kernel_is_followed_from_the_layer_to_the_multiply_adds(report):
    """Its operations name the user's layer and line; what it calls does the arithmetic."""
    labels = report.program.tables.kernels
    (number,) = (n for n, k in enumerate(labels) if k.name.startswith("matmul add relu"))
    told = report.operations_of(number)
    assert "matmul(" in told and "# " in told and "test_inspect.py:" in told and "Linear" in told
    assert report.target.name == "plain" or "fma" in report.assembly_of(number)
    assert all(name in report.code.assembly for name in report.code.llvm)
    with pytest.raises(InspectionError, match="there is no kernel -1"):
        report.operations_of(-1)


def test_links_of_the_page_lead_somewhere(report):
    shown = page(report)
    ids = re.findall(r'id="([^"]*)"', shown)
    links = re.findall(r'href="#([^"]*)"', shown)
    assert len(ids) == len(set(ids)) and set(links) <= set(ids)
    assert {f"kernel{n}" for n in range(len(report.program.tables.kernels))} <= set(links)


def test_every_kernel_is_in_the_profile_once(report):
    profile = report.profile
    tables = report.program.tables
    assert sorted(row.number for row in profile.rows) == list(range(len(tables.kernels)))
    for row in profile.rows:
        label = tables.kernels[row.number]
        assert (row.name, row.family, row.flops) == (label.name, label.family, label.flops)
        assert row.chunks >= 1 and row.wall >= 0
        assert row.work <= profile.total
    assert sum(row.work for row in profile.rows) <= profile.total * 1.01
    assert 0 <= profile.outside < profile.total
    assert profile.peak_flops > 1e8 and profile.peak_bytes > 1e8
    order = [row.phase for row in profile.rows]
    assert order == sorted(order)


def test_products_count_their_multiply_adds(report):
    products = [row for row in report.profile.rows if row.family == "matmul"]
    forward_and_backward = 2 * 32 * 64 * 48 * 2 + 2 * 32 * 48 * 10 * 3
    total = sum(row.flops for row in products)
    assert forward_and_backward <= total < 1.5 * forward_and_backward


def test_nothing_of_the_users_changes():
    model, step, batch = made()
    twin, twin_step, _ = made()
    for _ in range(2):
        step(*batch)
        twin_step(*batch)
    str(step.inspect(runs=2))
    assert float(step(*batch)) == float(twin_step(*batch))
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_the_table_and_the_page(report, tmp_path):
    text = str(report)
    assert "GFLOP/s" in text and "passed in no kernel" in text and "matmul" in text
    assert len(report.profile.table(most=2).splitlines()) == 4
    assert len(report.profile.table().splitlines()) == 1 + len(report.profile.rows)
    report.save(tmp_path / "step.html")
    shown = (tmp_path / "step.html").read_text()
    assert shown.startswith("<!doctype html>") and shown == page(report)
    for part in ("LLVM IR", "Assembly", "define internal void @kernel0", 'class="lane"'):
        assert part in shown
    assert "<script" not in shown and "http" not in re.sub(r"http-equiv", "", shown)
    lanes = re.findall(r'<div class="lane">(.*?)</div></div>', shown)
    assert len(lanes) == 4  # all, families, kernels; one thread
    widths = [float(w) for w in re.findall(r"width:([\d.]+)%", lanes[2])]
    assert sum(widths) == pytest.approx(100, abs=0.1)


def test_host_calls_are_rows_too():
    @cr.compile(backend="native")
    def spectrum(x):
        z = cr.astype(x, cr.complex64)
        return cr.real(z * z) + x

    spectrum(cr.ones((50, 50)))
    rows = spectrum.inspect(runs=2).profile.rows
    assert "NumPy" in {row.family for row in rows}
    assert {row.family for row in rows} > {"NumPy"}


def test_what_has_not_run_natively_is_refused():
    _, step, _ = made()
    with pytest.raises(InspectionError, match="call the compiled function first"):
        step.inspect()

    @cr.compile(backend="numpy")
    def double(x):
        return 2 * x

    double(cr.ones(3))
    with pytest.raises(InspectionError, match="runs in NumPy"):
        double.inspect()


def test_time_outside_of_kernels():
    def row(start: float, wall: float) -> Row:
        return Row(0, "", "", 0, start, wall, (wall,), ((start, start + wall),), 1, 0, 0)

    rows = (row(0.0, 2.0), row(1.0, 2.0), row(5.0, 1.0))
    assert Profile(rows, 8.0, 1, 1.0, 1.0).outside == pytest.approx(4.0)


def test_equal_kernels_share_a_line():
    def row(number: int, name: str, work: float) -> Row:
        span = (0.0, work)
        return Row(number, name, "loops", 0, 0.0, work, (work,), (span,), 2, 3000, 400)

    profile = Profile((row(0, "a", 1e-6), row(1, "b", 5e-6), row(2, "a", 8e-6)), 2e-5, 1, 1e9, 1e9)
    _, first, second = profile.grouped().splitlines()
    assert first.split()[:5] == ["2", "times", "9.0", "64.3%", "4"] and first.endswith("loops: a")
    assert second.split()[:4] == ["1", "5.0", "35.7%", "2"] and second.endswith("loops: b")
    assert profile.busy == pytest.approx(0.7)
    *_, rest = profile.grouped(1).splitlines()
    assert rest.split() == ["...", "5.0", "35.7%", "1", "more"]


def test_programs_run_while_they_are_measured():
    _, step, batch = made(threads=2)
    step(*batch)
    program = step.versions[0].launch.program
    arrays = [np.ones(p.shape, p.dtype) * 0 for p in program.tables.inputs]
    thread = threading.Thread(target=lambda: [step(*batch) for _ in range(50)])
    thread.start()
    profile = measure(program, arrays, runs=5)
    thread.join()
    assert profile.rows


def test_what_is_shown_is_what_runs(report):
    """The graph is planned and emitted once more to be shown; the code comes out the same."""
    for one in (report, _recurrent()):
        assert tables(one.plan).kernels == one.program.tables.kernels
        assert assemble(one.llvm, one.target) == one.program.code


def _recurrent() -> Inspection:
    model = nn.LSTM(8, 16, batch_first=True)
    opt = optim.Adam(model.parameters())

    @cr.compile(backend="native")
    def step(x):
        opt.zero_grad()
        z, _ = model(x)
        loss = cr.mean(z * z)
        loss.backward()
        opt.step()
        return loss

    step(cr.ones((4, 6, 8)))
    return step.inspect()
