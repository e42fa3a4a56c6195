import sys
from pathlib import Path

# The tables of operations and layers, which are tested compiled here, lie with their own tests.
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "nn")]
