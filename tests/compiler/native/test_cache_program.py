"""Programs from disk do what they did, without passes and without emission."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from chainrule.compiler import build as building
from chainrule.compiler.build import Options, build
from chainrule.compiler.ir import Graph, evaluate
from chainrule.compiler.native import cache
from chainrule.errors import ArgumentError
from chainrule.graph import Primitive, Spec
from chainrule.primitives.checks import check
from chainrule.primitives.elementwise import add, cast, exp, mul
from chainrule.primitives.movement import permute

F32, C64 = np.dtype("float32"), np.dtype("complex64")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE", str(tmp_path / "programs"))
    monkeypatch.delenv("CHAINRULE_REDZONES", raising=False)  # such programs are not kept
    return tmp_path / "programs"


@pytest.fixture
def from_disk_only(monkeypatch):
    """From here on nothing may be emitted."""

    def start() -> None:
        def emit(*args: object) -> None:
            raise AssertionError("the program was compiled again")

        monkeypatch.setattr(building, "assemble", emit)

    return start


def step(word: str = "refused") -> Graph:
    """Complex numbers (in NumPy), a constant of many numbers, a check, an update."""

    def refuse(x: np.ndarray) -> Exception:
        return ArgumentError(f"{word}: {x.max()}")

    g = Graph(name="step")
    x = g.input(Spec((5, 7), F32), "x")
    w = g.input(Spec((5, 7), F32), "w")
    table = g.constant(np.arange(35, dtype=np.float32).reshape(5, 7))
    g.add(check, x, low=-10.0, high=10.0, ignore=None, nan=False, refuse=refuse)
    y = g.add(add, g.add(exp, x), table)
    z = g.add(mul, *[g.add(permute, g.add(cast, y, dtype=C64), axes=(1, 0))] * 2)
    g.outputs = [z, g.add(mul, w, y)]
    g.updates = {1: 1}
    return g


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((5, 7), np.float32) for _ in range(2)]


def test_a_program_from_disk_does_the_same(place, from_disk_only):
    first = build(step())
    assert len(cache.entries()) == 1
    assert cache.entries()[0].title.startswith("step: 7 operations on float32[5, 7]")
    one = [a.copy() for a in first.run(arrays())]
    from_disk_only()
    second = build(step())
    two = second.run(arrays())
    for a, b, c in zip(one, two, evaluate(step(), arrays()), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-5)
    assert second.tables == first.tables


def test_its_checks_speak_as_the_graph_at_hand_does(place, from_disk_only):
    build(step("first"))
    from_disk_only()
    program = build(step("second"))
    x, w = arrays()
    x[2, 3] = 99.0
    before = w.copy()
    with pytest.raises(ArgumentError, match="second: 99"):
        program.run([x, w], [None, w])
    np.testing.assert_array_equal(w, before)


def test_other_options_are_other_programs(place):
    build(step())
    build(step(), Options(simplify=False))
    assert len(cache.entries()) == 2
    build(step(), Options(redzones=True))
    build(step(), Options(native=False))
    assert len(cache.entries()) == 2


def test_users_operations_are_compiled_each_time(place):
    mine = Primitive("mine", "2 x", ("x",), lambda x: Spec(x.shape, x.dtype), lambda x: 2 * x)
    g = Graph()
    x = g.input(Spec((3,), F32))
    g.outputs = [g.add(mine, x)]
    np.testing.assert_array_equal(build(g).run([np.ones(3, F32)])[0], [2, 2, 2])
    assert cache.entries() == []


def test_a_second_process_trains_the_same_from_disk(place):
    """The second finds all programs, and takes the same steps bit for bit."""
    body = """
        import numpy as np, chainrule as cr
        from chainrule import nn, optim

        cr.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Dropout(0.2), nn.Linear(36, 5),
        )
        opt = optim.Adam(model.parameters(), lr=0.01)

        @cr.compile(backend="native")
        def step(x, y):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            return loss

        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((8, 1, 8, 8)).astype("f"), rng.integers(0, 5, 8)
        losses = [float(step(cr.asarray(x), cr.asarray(y))).hex() for _ in range(5)]
        print(*losses, *(p.detach().numpy().tobytes().hex()[:16] for p in model.parameters()))
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(body)]
    runs, kept = [], []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        runs.append(done.stdout)
        kept.append({path.name: path.stat().st_ino for path in place.iterdir()})
    assert runs[0] == runs[1]
    assert len(kept[0]) == 3  # the step, the runtime, and the call
    assert kept[0] == kept[1]  # the same files, not written again
