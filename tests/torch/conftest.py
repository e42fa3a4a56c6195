"""Comparisons with PyTorch are left out where it is not installed."""

from importlib.util import find_spec

# pytest puts tests/ on the path, where this folder looks like a package "torch" without any code:
# pytest.importorskip("torch") would find that one. The real one has an origin.
_found = find_spec("torch")
if _found is None or _found.origin is None:
    collect_ignore_glob = ["test_*.py"]
