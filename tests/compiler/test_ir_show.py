"""Graphs and plans as text and pictures."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from chainrule.compiler import show
from chainrule.compiler.build import schedule
from chainrule.compiler.ir import Graph
from chainrule.compiler.native.target import host
from chainrule.compiler.passes import run
from chainrule.compiler.plan import Plan, plan
from chainrule.graph import Spec
from chainrule.primitives import elementwise as e
from chainrule.primitives import linalg, reduction
from chainrule.primitives import movement as m

F = np.dtype("float32")


@pytest.fixture
def planned() -> Plan:
    g = Graph(name='a "step"')
    x, w = g.input(Spec((8, 4), F), "x"), g.input(Spec((4, 6), F), "0.weight")
    z = g.add(e.tanh, g.add(linalg.matmul, x, w))
    two = g.constant(np.broadcast_to(F.type(2), (8, 6)))
    grad = g.add(linalg.matmul, g.add(m.permute, x, axes=(1, 0)), g.add(e.mul, z, two))
    g.outputs = [g.add(reduction.sum, z, axes=(0, 1)), g.add(e.sub, w, grad)]
    g.updates = {1: 1}
    return plan(*schedule(run(g), host()))


def test_every_operation_and_edge_is_drawn_once(planned):
    graph = planned.schedule.graph
    text = show.dot(graph, planned.schedule.kernels)
    nodes = re.findall(r"^ +(op\d+) \[", text, re.M)
    assert sorted(nodes) == sorted(f"op{i}" for i in range(len(graph.ops)))
    assert len(re.findall(r"-> op", text)) == sum(len(op.inputs) for op in graph.ops)
    assert text.count("subgraph cluster") == len(planned.schedule.kernels)
    assert r"next %" in text and r"a \"step\"" in text and "axes=(1, 0)" in text
    assert text.count("{") == text.count("}")


def test_the_picture_of_memory_shows_every_place_within_its_frame(planned):
    picture = show.memory_svg(planned)
    svg = ElementTree.fromstring(picture[: picture.index("</svg>") + 6])
    boxes = [b for b in svg if b.tag == "rect"]
    assert len(boxes) == len(planned.arena.lives) > 0
    for box in boxes:
        x, y, wide, high = (float(box.get(k) or 0) for k in ("x", "y", "width", "height"))
        assert x >= 0 and x + wide <= show.WIDTH + 0.2 and y >= 0 and y + high <= show.HEIGHT + 0.6
        assert "bytes from" in (box[0].text or "")
    assert f"{planned.arena.nbytes} bytes" in picture


def test_schedules_and_plans_print(planned):
    text = str(planned)
    assert "step 0:" in text and "matmul" in text and "alive at once" in text
    assert "after" in str(planned.schedule)


def test_a_large_graph_is_drawn_as_its_kernels(planned, monkeypatch):
    kernels = planned.schedule.kernels
    monkeypatch.setattr(show, "MOST", 2)
    text = show.dot(planned.schedule.graph, kernels)
    assert "cluster" not in text
    nodes = re.findall(r"^ +k(\d+) \[", text, re.M)
    assert nodes == [str(k) for k in range(len(kernels))]
    edges = {(int(a), int(b)) for a, b in re.findall(r"k(\d+) -> k(\d+)", text)}
    assert edges and all(a < b for a, b in edges)  # a kernel reads what an earlier one made
    assert "next 0.weight" in text and "matmul" in text
