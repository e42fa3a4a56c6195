import sys
from pathlib import Path

import pytest

# The tables of operations and layers, which are tested compiled here, lie with their own tests.
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "nn")]


@pytest.fixture(scope="session", autouse=True)
def nothing_on_disk():
    """What tests compile is not kept; the tests of the cache choose a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHAINRULE_CACHE", "0")
        yield
