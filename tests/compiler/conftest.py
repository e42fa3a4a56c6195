import sys
from pathlib import Path

import pytest

from chainrule.compiler import state

# The tables of operations and layers, which are tested compiled here, lie with their own tests.
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "nn")]


@pytest.fixture(autouse=True)
def every_traced_graph_is_verified(monkeypatch):
    monkeypatch.setattr(state, "VERIFY", True)
