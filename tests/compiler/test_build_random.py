"""Random graphs, built and run, give what they mean; each primitive has its quota."""

from __future__ import annotations

from random import Random

import pytest
from graphs import PRIMITIVES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers import MAKERS
from random_graphs import check_program, draw_graph

from chainrule.compiler.build import Options, build
from chainrule.compiler.ir import evaluate
from chainrule.compiler.passes import PASSES, run

NAMES = sorted(MAKERS)
SLOW = 10_000
HOW = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


def test_every_primitive_has_a_maker():
    assert sorted(PRIMITIVES) == NAMES


@pytest.mark.parametrize("name", NAMES)
@settings(HOW, max_examples=2)
@given(seed=st.integers(0, 1 << 40))
def test_programs(name: str, seed: int):
    graph, arrays, exact = draw_graph(Random(f"{name} {seed}"), name)
    check_program(build(graph), graph, arrays, exact)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@settings(HOW, max_examples=-(-SLOW // len(NAMES)))
@given(seed=st.integers(0, 1 << 40))
def test_many_programs(name: str, seed: int):
    random = Random(f"{name} {seed}")
    graph, arrays, exact = draw_graph(random, name, size=random.randint(3, 25))
    check_program(build(graph), graph, arrays, exact)


@settings(HOW, max_examples=40)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 1 << 40))
def test_programs_in_numpy(name: str, seed: int):
    graph, arrays, exact = draw_graph(Random(seed), name)
    check_program(build(graph, Options(native=False)), graph, arrays, exact)


@settings(HOW, max_examples=40)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 1 << 40))
def test_passes_leave_legal_graphs_that_mean_the_same(name: str, seed: int):
    graph, arrays, exact = draw_graph(Random(seed), name, size=16)

    class Evaluated:
        def __init__(self, made):
            self.made = made

        def run(self, given, outputs):
            results = evaluate(self.made, given)
            for i, j in graph.updates.items():
                results[i] = given[j] = results[i].copy()
            return results

    for count in range(1, len(PASSES) + 1):
        made = run(graph, PASSES[:count], check=True)
        check_program(Evaluated(made), graph, arrays, exact)
