import functools
import sys
from pathlib import Path

import pytest

import chainrule as cr
from chainrule.compiler import state

# The tables of operations and layers, which are tested compiled here, lie with their own tests.
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "nn")]


@pytest.fixture(autouse=True)
def every_traced_graph_is_verified(monkeypatch):
    monkeypatch.setattr(state, "VERIFY", True)


@pytest.fixture(params=["numpy", "native"])
def backend(request, monkeypatch):
    """The module's `compiled` runs the graph operation by operation, and then native code."""
    monkeypatch.setattr(
        request.module, "compiled", functools.partial(cr.compile, backend=request.param)
    )
